"""What each kind of channel sends, to servers of ours; what it makes of the answers; that no credential shows."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from nexus.automation.channel import CHANNELS, ChannelPlug, Notice
from nexus.automation.errors import ChannelGone, CredentialMissing, RequestFailed, RequestFailedForNow
from nexus.core.errors import NexusError
from nexus.http import fetch
from nexus.http.errors import UrlNotAllowed
from nexus.testing.script import Script, response
from nexus.testing.upstream import FakeUpstream

KEY = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HTTP = ("webhook", "slack", "teams", "discord", "pagerduty")


@pytest.fixture(autouse=True)
def loopback() -> Iterator[None]:
    fetch.configure(["127.0.0.0/8"])
    yield
    fetch.configure([])


def notice(event: Any = "alert.firing", **given: Any) -> Notice:
    plain: dict[str, Any] = {
        "id": "msg_1",
        "event": event,
        "key": "alr_1",
        "severity": "critical",
        "title": "A run of <load> has failed",
        "text": "It broke & stopped.",
        "at": "2026-11-26T12:00:00.000Z",
        "details": {"workflow": "load", "step": "a", "nothing": None},
        "link": "https://nexus.test/api/v1/alerts/alr_1",
    }
    return Notice(**(plain | given))


async def send(kind: str, upstream: FakeUpstream, told: Notice, **config: Any) -> int | None:
    plug = CHANNELS.get(kind)
    if kind in ("webhook", "pagerduty"):
        config.setdefault("url", f"{upstream.url}/in")
    credential = {"webhook": KEY, "pagerduty": "R0UT1NG"}.get(kind, f"{upstream.url}/secret-path")
    return await plug.send(told, plug.Config.model_validate(config), credential)


@pytest.mark.parametrize("kind", CHANNELS.names())
def test_every_kind_fulfils_the_contract(kind: str) -> None:
    plug = CHANNELS.get(kind)
    assert isinstance(plug, ChannelPlug)
    assert plug.kind == kind
    assert plug.summary.endswith(".")
    assert plug.Config.model_json_schema()["additionalProperties"] is False


@pytest.mark.parametrize("kind", HTTP)
async def test_long_texts_fit_the_limits_of_the_service(kind: str) -> None:
    long = "x" * 30_000
    with FakeUpstream(lambda _request: Script((response(200, b"ok"),))) as upstream:
        told = notice(title=long, text=long, details={f"name {n}": long for n in range(40)})
        assert await send(kind, upstream, told) == 200
        body = upstream.seen[0].json
    if kind == "slack":
        (attachment,) = body["attachments"]
        header, section, fields, _link = attachment["blocks"]
        assert len(header["text"]["text"]) <= 150
        assert len(section["text"]["text"]) <= 3000
        assert len(fields["fields"]) <= 10
        assert all(len(field["text"]) <= 2000 for field in fields["fields"])
    if kind == "discord":
        (embed,) = body["embeds"]
        texts = [embed["title"], embed["description"], *(f["name"] + f["value"] for f in embed["fields"])]
        assert len(embed["title"]) <= 256
        assert sum(map(len, texts)) <= 6000
        assert body["allowed_mentions"] == {"parse": []}
    if kind == "pagerduty":
        assert len(body["payload"]["summary"]) == 1024


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (410, ChannelGone),
        (503, RequestFailedForNow),
        (429, RequestFailedForNow),
        (400, RequestFailed),
        (302, RequestFailed),
    ],
)
async def test_what_answers_mean(kind: str, status: int, error: type[NexusError]) -> None:
    answer = response(status, b"no", "location: http://127.0.0.1:1/", "retry-after: 7")
    with FakeUpstream(lambda _request: Script((answer,))) as upstream:
        with pytest.raises(error) as raised:
            await send(kind, upstream, notice())
        assert len(upstream.seen) == 1, "no redirect is followed"
    # Of a webhook every failure is worth another attempt.
    if kind == "webhook" and status != 410:
        assert raised.value.retryable
    if status == 429:
        assert raised.value.retry_after == 7
    told = raised.value.message + str(raised.value.details)
    assert "secret-path" not in told
    assert "127.0.0.1" not in told


async def test_a_credential_that_is_not_there_is_named() -> None:
    for kind in HTTP:
        plug = CHANNELS.get(kind)
        config = {"url": "http://127.0.0.1:9/"} if kind == "webhook" else {}
        with pytest.raises(CredentialMissing):
            await plug.send(notice(), plug.Config.model_validate(config), None)


async def test_two_keys_sign_twice_while_one_replaces_the_other() -> None:
    other = "whsec_" + "B" * 32
    plug = CHANNELS.get("webhook")
    with FakeUpstream(lambda _request: Script((response(200, b""),))) as upstream:
        config = plug.Config.model_validate({"url": f"{upstream.url}/x", "headers": {"X-Team": "a"}})
        await plug.send(notice(), config, f"{KEY} {other}")
        headers = upstream.seen[0].headers
        body = upstream.seen[0].json
    assert headers["x-team"] == "a"
    first, second = headers["webhook-signature"].split()
    assert first != second
    assert first.startswith("v1,")
    assert body["data"]["key"] == "alr_1"
    assert set(body) == {"type", "timestamp", "data"}


@pytest.mark.parametrize(
    ("event", "action"),
    [("alert.firing", "trigger"), ("alert.acknowledged", "acknowledge"), ("alert.resolved", "resolve")],
)
async def test_pagerduty_hears_of_one_incident_from_beginning_to_end(event: str, action: str) -> None:
    with FakeUpstream(lambda _request: Script((response(202, b'{"status":"success"}'),))) as upstream:
        await send("pagerduty", upstream, notice(event))
        body = upstream.seen[0].json
    assert (body["event_action"], body["dedup_key"], body["routing_key"]) == (action, "alr_1", "R0UT1NG")
    assert ("payload" in body) is (action == "trigger")
    if action == "trigger":
        assert body["payload"]["severity"] == "critical"
        assert body["payload"]["custom_details"]["workflow"] == "load"
        assert body["links"] == [{"href": "https://nexus.test/api/v1/alerts/alr_1", "text": "Open in NEXUS"}]


async def test_teams_gets_an_adaptive_card() -> None:
    with FakeUpstream(lambda _request: Script((response(202, b""),))) as upstream:
        await send("teams", upstream, notice())
        (attachment,) = upstream.seen[0].json["attachments"]
    card = attachment["content"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["body"][0]["items"][0]["text"] == "[CRITICAL] A run of <load> has failed"
    assert card["body"][-1]["facts"] == [{"title": "workflow", "value": "load"}, {"title": "step", "value": "a"}]
    assert card["actions"][0]["url"] == "https://nexus.test/api/v1/alerts/alr_1"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"ok":true}', None),
        (b'{"ok":false,"error":"channel_not_found"}', RequestFailed),
        (b'{"ok":false,"error":"internal_error"}', RequestFailedForNow),
        (b"<html>", RequestFailedForNow),
    ],
)
async def test_a_slack_bot_is_answered_in_the_body(answer: bytes, error: type[NexusError] | None) -> None:
    plug = CHANNELS.get("slack")
    with FakeUpstream(lambda _request: Script((response(200, answer),))) as upstream:
        config = plug.Config.model_validate({"conversation": "#ops", "url": f"{upstream.url}/api"})
        if error is None:
            assert await plug.send(notice(), config, "xoxb-1") == 200
        else:
            with pytest.raises(error) as raised:
                await plug.send(notice(), config, "xoxb-1")
            assert raised.value.retryable is (error is RequestFailedForNow)
        seen = upstream.seen[0]
    assert seen.headers["authorization"] == "Bearer xoxb-1"
    assert seen.json["channel"] == "#ops"
    assert seen.json["text"] == "[CRITICAL] A run of &lt;load&gt; has failed"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """What a mail server called localhost shows, and what its clients need to trust it."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context, cert.read_text()


class Letters:
    """A mail server's hands."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.refuse = ""

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.letters.append(envelope)
        return "250 OK"


def mail_server(letters: Letters, **given: Any) -> Controller:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Controller(letters, hostname="127.0.0.1", port=port, **given)


def mail_config(server: Controller, **given: Any) -> Any:
    plain = {"host": "127.0.0.1", "port": server.port, "security": "none", "sender": "NEXUS <nexus@a.test>"}
    return CHANNELS.get("email").Config.model_validate(plain | {"recipients": ["ops@a.test", "boss@a.test"]} | given)


@pytest.mark.slow
async def test_an_e_mail_says_it_all() -> None:
    letters = Letters()
    server = mail_server(letters)
    server.start()
    try:
        told = notice(title="Größe\nX-Evil: 1")
        assert await CHANNELS.get("email").send(told, mail_config(server), None) == 250
        letters.refuse = "451 later"
        with pytest.raises(RequestFailedForNow):
            await CHANNELS.get("email").send(told, mail_config(server), None)
        letters.refuse = "550 never"
        with pytest.raises(RequestFailed) as raised:
            await CHANNELS.get("email").send(told, mail_config(server), None)
        assert not raised.value.retryable
    finally:
        await asyncio.to_thread(server.stop)
    with pytest.raises(RequestFailedForNow):
        await CHANNELS.get("email").send(notice(), mail_config(server), None)
    (envelope,) = letters.letters
    mail = message_from_bytes(envelope.content, policy=policy.default)
    assert envelope.rcpt_tos == ["ops@a.test", "boss@a.test"]
    assert (mail["subject"], mail["x-evil"]) == ("[CRITICAL] Größe X-Evil: 1", None)
    assert mail["message-id"] == "<msg_1@a.test>"
    body = mail.get_content()
    assert "It broke & stopped." in body
    assert "workflow: load" in body
    assert "https://nexus.test/api/v1/alerts/alr_1" in body


@pytest.mark.slow
@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_an_e_mail_goes_encrypted_and_the_certificate_is_checked(security: str, certificate: Any) -> None:
    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: LoginPassword) -> AuthResult:
        # Not handled: the server is to say 535 itself.
        return AuthResult(success=(data.login, data.password) == (b"me", b"hush-hush"), handled=False)

    context, ca = certificate
    letters = Letters()
    given: dict[str, Any] = {"authenticator": authenticate, "auth_required": True}
    if security == "starttls":
        given |= {"tls_context": context, "require_starttls": True}
    else:
        given |= {"ssl_context": context, "auth_require_tls": False}
    server = mail_server(letters, **given)
    await asyncio.to_thread(server.start)
    try:
        config = mail_config(server, security=security, username="me", host="localhost", ca=ca)
        await CHANNELS.get("email").send(notice(), config, "hush-hush")
        assert len(letters.letters) == 1
        with pytest.raises(RequestFailed) as raised:
            await CHANNELS.get("email").send(notice(), config, "wrong-word")
        assert "535" in raised.value.message
        assert "wrong-word" not in raised.value.message
        unknown = mail_config(server, security=security, username="me", host="localhost")
        with pytest.raises(RequestFailed, match="certificate"):
            await CHANNELS.get("email").send(notice(), unknown, "hush-hush")
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_mail_server_inside_is_not_reached_unless_allowed() -> None:
    fetch.configure([])
    config = CHANNELS.get("email").Config.model_validate(
        {"host": "127.0.0.1", "port": 25, "security": "none", "sender": "a@b.test", "recipients": ["a@b.test"]}
    )
    with pytest.raises(UrlNotAllowed):
        await CHANNELS.get("email").send(notice(), config, None)


@pytest.mark.parametrize("kind", ["slack", "teams", "pagerduty"])
async def test_the_link_of_a_question_says_what_it_is_for(kind: str) -> None:
    with FakeUpstream(lambda _request: Script((response(200, b"ok"),))) as upstream:
        for event in ("approval.requested", "notice"):
            await send(kind, upstream, notice(event))
        asked, told = (str(seen.json) for seen in upstream.seen)
    assert ("Answer in NEXUS" in asked, "Open in NEXUS" in told) == (True, True)
    assert notice("approval.requested").headline.startswith("[Approval] ")
    assert notice("notice").headline.startswith("[Notice] ")
