"""Nothing is lost when anything is killed: a client that leaves, an engine, the whole instance under load."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.server
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from nexus.cli.instance import Place, private

pytestmark = pytest.mark.slow


def _child(parent: int, name: str) -> psutil.Process:
    """Return the process of a part, waiting for it while it is being started again."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for process in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if name in process.cmdline() and "nexus.programs" in process.cmdline():
                    return process
        time.sleep(0.05)
    raise AssertionError(f"there is no {name}")


def _invocations(client: httpx2.Client, kind: str = "chat") -> list[dict[str, object]]:
    found, cursor = [], None
    while True:
        params = {"limit": "100", "kind": kind, **({"cursor": cursor} if cursor else {})}
        body = client.get("/api/v1/invocations", params=params).json()
        found += body["data"]
        cursor = body["next_cursor"]
        if not cursor:
            return found


def _client(place: Place) -> httpx2.Client:
    headers = {"authorization": f"Bearer {place.key}"}
    return httpx2.Client(base_url=place.url, headers=headers, timeout=60, trust_env=False)


@pytest.fixture
def own(models: Path, tmp_path: Path) -> Path:
    (tmp_path / "models").symlink_to(models, target_is_directory=True)
    return tmp_path


@pytest.fixture
def effects() -> Iterator[tuple[str, list[str]]]:
    """A web hook that is slow to answer and remembers every Idempotency-Key."""
    seen: list[str] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.headers["idempotency-key"])
            time.sleep(0.4)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", seen
    server.shutdown()


def _steps(url: str, count: int) -> str:
    steps = [
        {"key": f"s{n}", "uses": "http.request", "needs": [f"s{n - 1}"] if n else [],
         "with": {"method": "POST", "url": url, "json": {"n": n}}, "retries": {"max": 3, "base": 0.2}}
        for n in range(count)
    ]  # fmt: skip
    return json.dumps({"name": "effects", "steps": steps})


def test_a_client_that_leaves_is_still_recorded(place: Place) -> None:
    with _client(place) as client:
        before = len(_invocations(client))
        body = json.dumps({
            "model": "nexus-local", "stream": True, "max_tokens": 200,
            "messages": [{"role": "user", "content": "Tell me a long story."}],
        }).encode()  # fmt: skip
        where = urlsplit(place.url)
        for after in (0, 1, 3):
            with socket.create_connection((where.hostname, where.port)) as connection:
                head = (
                    f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {place.key}\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                connection.sendall(head.encode() + body)
                connection.settimeout(30)
                got = b""
                while got.count(b"data: ") < after:
                    got += connection.recv(4096)
                if after == 0:
                    time.sleep(0.3)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        until = time.monotonic() + 10
        while time.monotonic() < until and len(_invocations(client)) < before + 3:
            time.sleep(0.1)
        rows = _invocations(client)
        assert len(rows) == before + 3
        assert {row["status"] for row in rows[:3]} == {"client_disconnect"}


def test_an_engine_killed_in_the_middle_loses_no_step(own: Path, effects: tuple[str, list[str]]) -> None:
    url, seen = effects
    settings = {"NEXUS_FETCH_ALLOW": "127.0.0.0/8", "NEXUS_RUNS__LEASE": "3", "NEXUS_RUNS__HEARTBEAT": "1"}
    with private(own, settings=settings, log=own / "log") as (place, process), _client(place) as client:
        applied = client.post("/api/v1/workflows", content=_steps(url, 4), headers={"content-type": "application/json"})
        assert applied.status_code == 201, applied.text
        runs = [client.post("/api/v1/workflows/effects/runs", json={}).json()["id"] for _ in range(6)]
        for _ in range(3):
            time.sleep(0.7)
            _child(process.pid, "engine").kill()
        until = time.monotonic() + 60
        states: dict[str, str] = {}
        while time.monotonic() < until and set(states.values()) != {"succeeded"}:
            states = {run: client.get(f"/api/v1/runs/{run}").json()["status"] for run in runs}
            time.sleep(0.2)
        assert set(states.values()) == {"succeeded"}, states
        wanted = {f"{run}.s{n}" for run in runs for n in range(4)}
        assert set(seen) == wanted
        for run in runs:
            steps = client.get(f"/api/v1/runs/{run}/steps").json()["data"]
            assert [step["status"] for step in steps] == ["succeeded"] * 4


def test_the_api_killed_under_load_comes_back_and_keeps_every_answered_call(own: Path) -> None:
    with private(own, log=own / "log") as (place, process), _client(place) as client:
        answered = 0
        for turn in range(30):
            reply = client.post("/v1/embeddings", json={"model": "minilm-l6-v2", "input": f"text {turn}"})
            answered += reply.status_code == 200
        os.kill(_child(process.pid, "api").pid, signal.SIGKILL)
        until = time.monotonic() + 30
        alive = False
        while time.monotonic() < until and not alive:
            try:
                alive = client.get("/livez").status_code == 200
            except httpx2.HTTPError:
                time.sleep(0.1)
        assert answered == 30
        until = time.monotonic() + 15
        while time.monotonic() < until and len(_invocations(client, "embedding")) < answered:
            time.sleep(0.2)
        assert len(_invocations(client, "embedding")) == answered


def test_sigterm_under_load_lets_answers_end_and_records_all(own: Path) -> None:
    answered: list[int] = []
    stop = threading.Event()

    def ask(place: Place) -> None:
        with _client(place) as client:
            while not stop.is_set():
                try:
                    reply = client.post("/v1/embeddings", json={"model": "minilm-l6-v2", "input": "some text"})
                except httpx2.HTTPError:
                    return
                if reply.status_code == 200:
                    answered.append(1)

    with private(own, log=own / "log") as (place, process), concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask, place)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
        stop.set()
    with private(own, log=own / "log") as (place, _process), _client(place) as client:
        recorded = [row for row in _invocations(client, "embedding") if row["status"] == "ok"]
        assert len(answered) > 10
        assert len(recorded) >= len(answered)
        assert len(recorded) <= len(answered) + 4
