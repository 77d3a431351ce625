from __future__ import annotations

import contextvars
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from nexus.telemetry.context import bind, bind_request_id, bound, current
from nexus.telemetry.logs import configure, write_access
from nexus.telemetry.redact import MASK, Redactor, redactor
from nexus.telemetry.settings import TelemetrySettings
from nexus.telemetry.traces import enter_request, outgoing_headers


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the process logs as JSON."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    configure(TelemetrySettings(log_format="json"), stream=stream)
    yield stream
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    for handler in logging.getLogger().handlers:
        handler.flush()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


SECRETS = [
    ("sk-canary-0123456789abcdef", "0123456789abcdef"),
    ("sk-ant-api03-" + "a" * 40, "aaaa"),
    ("sk-proj-" + "Ab1_" * 10, "Ab1_"),
    ("nx_abcd1234_" + "x" * 43 + "_a1b2c3", "xxxx"),
    ("whsec_" + "bWVzc2FnZQ" * 3, "bWVz"),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    ("hf_" + "a" * 30, "aaaa"),
    ("AIza" + "b" * 35, "bbbb"),
    ("ghp_" + "c" * 36, "cccc"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "c2lnbmF0"),
    ("Bearer abcdef.0123456789", "0123456789"),
    ("Basic dXNlcjpwYXNzd29yZA==", "dXNlcj"),
    ('"x-api-key": "0123456789abcdef"', "0123456789abcdef"),
    ("password=correct-horse", "correct-horse"),
    ("postgresql://nexus:tr0ub4dor@db/nexus", "tr0ub4dor"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_patterns_are_masked(text: str, secret: str) -> None:
    masked = Redactor()(f"before {text} after")
    assert MASK in masked
    assert secret in text
    assert secret not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


@pytest.mark.parametrize(
    "text",
    [
        "plain words about a task and a risk-free token of thanks",
        "max_tokens: 1024, input_tokens=200",
        "GET /api/v1/keys 200 12.0 ms",
        "https://example.com/a?b=c",
        "run_01ja8w3xk5v0m2c7tqz9r4h6ye finished",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert Redactor()(text) == text


def test_registered_secrets_are_masked_in_every_form() -> None:
    redact = Redactor()
    redact.register('pa"ss\\wörd-123', "short")
    for text in ('x pa"ss\\wörd-123 y', json.dumps('pa"ss\\wörd-123'), repr('pa"ss\\wörd-123')):
        assert "rd-123" not in redact(text)
    assert redact("short") == "short"
    redact.forget('pa"ss\\wörd-123')
    assert redact('pa"ss\\wörd-123') == 'pa"ss\\wörd-123'


def test_a_secret_in_argument_exception_extra_or_warning_is_not_logged(written: io.StringIO) -> None:
    redactor.register("hunter2-hunter2")
    log = logging.getLogger("nexus.test")
    try:
        log.info("key %s", "hunter2-hunter2", extra={"field": {"deep": ["hunter2-hunter2"]}})
        log.error("sk-canary-0123456789abcdef")
        try:
            try:
                raise KeyError("hunter2-hunter2")
            except KeyError as error:
                raise RuntimeError("outer hunter2-hunter2") from error
        except RuntimeError:
            log.exception("failed")
    finally:
        redactor.forget("hunter2-hunter2")
    assert len(lines(written)) == 3
    assert "hunter2" not in written.getvalue()
    assert "canary" not in written.getvalue()
    assert "RuntimeError: outer" in lines(written)[2]["error"]["trace"]


def test_lines_carry_the_ids_of_the_moment(written: io.StringIO) -> None:
    log = logging.getLogger("nexus.test")
    with bound(request_id="req_1", project_id="prj_1", trace_id=None):
        log.info("inside", extra={"model": "m", "none": None})
        with bound(run_id="run_1"):
            assert current() == {"request_id": "req_1", "project_id": "prj_1", "run_id": "run_1"}
    log.info("outside")
    inside, outside = lines(written)
    assert (inside["request_id"], inside["project_id"], inside["model"]) == ("req_1", "prj_1", "m")
    assert "none" not in inside
    assert "request_id" not in outside
    assert inside["time"].endswith("Z")
    assert inside["level"] == "info"


PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("parent", [None, PARENT, b"rubbish"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/nx_abcd1234_0123456789"])
def test_the_lines_of_a_request_stand_in_order_with_the_same_ids(
    written: io.StringIO, parent: bytes | None, path: str
) -> None:
    def serve() -> str:
        enter_request("req_00000001", parent)
        logging.getLogger("nexus.test").info("inside")
        assert write_access("req_00000001", "GET", path, "/v1/models", 200, 12.0, "127.0.0.1")
        logging.getLogger("nexus.test").info("after")
        return outgoing_headers()["traceparent"]

    sent = contextvars.copy_context().run(serve)
    inside, access, after = lines(written)
    assert list(access) == [
        *("time", "level", "logger", "message", "request_id", "trace_id", "span_id"),
        *("method", "path", "route", "status", "ms", "client"),
    ]
    ids = [{name: line[name] for name in ("request_id", "trace_id", "span_id")} for line in (inside, access, after)]
    assert ids[0] == ids[1] == ids[2]
    assert f"-{ids[0]['trace_id']}-{ids[0]['span_id']}-" in sent
    assert (ids[0]["trace_id"] == PARENT[3:35].decode()) == (parent == PARENT)
    assert access["time"] >= inside["time"]
    assert (access["level"], access["logger"], access["message"]) == ("info", "nexus.access", "request")
    assert (access["method"], access["status"], access["ms"], access["client"]) == ("GET", 200, 12.0, "127.0.0.1")
    assert "0123456789" not in access["path"]


def test_what_waits_is_written_when_the_process_ends() -> None:
    code = (
        "from nexus.telemetry import logs, traces; from nexus.telemetry.settings import TelemetrySettings\n"
        "logs.configure(TelemetrySettings(log_format='json'))\n"
        "traces.enter_request('req_00000001', None)\n"
        "logs.write_access('req_00000001', 'GET', '/v1/models', '/v1/models', 200, 1.0, None)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ended.stderr)["path"] == "/v1/models"


def test_a_new_request_forgets_the_one_before() -> None:
    with bound(request_id=None, project_id=None, run_id=None):
        bind(project_id="prj_1", run_id="run_1")
        bind_request_id("req_2")
        assert current() == {"request_id": "req_2"}


def test_nothing_breaks_a_line(written: io.StringIO) -> None:
    log = logging.getLogger("nexus.test")
    log.info("two\nlines \ud800 \x00 %s", {1: "a"}, extra={"odd": {2: object}})
    log.info("x" * 100_000)
    first, second = lines(written)
    assert "two\nlines" in first["message"]
    assert len(second["message"]) < 20_000


def test_people_get_plain_lines_without_control_characters() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    try:
        configure(TelemetrySettings(log_format="text"), stream=stream)
        logging.getLogger("nexus.test").warning("red \x1b[31m bell \x07 key sk-canary-0123456789abcdef")
        logging.getLogger("nexus.test").debug("unseen")
    finally:
        root.handlers[:], root.level = before
        logging.captureWarnings(False)
    text = stream.getvalue()
    assert "WARNING nexus.test  red" in text
    assert "\x1b" not in text
    assert "canary" not in text
    assert "unseen" not in text
