"""Nobody gets in without a credential, and which header it came in does not matter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nexus.access.asgi import PUBLIC, is_public
from nexus.access.credentials import lone_key, read_credentials
from nexus.access.keys import ApiKey, checksum, new_key
from nexus.access.service import AccessService
from nexus.access.types import Scope
from nexus.http.types import KNOWN

from .conftest import ORIGIN, Browser, NewBrowser

HEADERS = [
    lambda token: {"authorization": f"Bearer {token}"},
    lambda token: {"authorization": f"bearer {token}"},
    lambda token: {"x-api-key": token},
    lambda token: {"api-key": token},
    lambda token: {"x-goog-api-key": token},
]


async def make_key(access: AccessService, *scopes: Scope, **attributes: Any) -> str:
    if await access.accounts.needs_setup():
        await access.accounts.create_admin("root@example.com", "a plain but long sentence")
    who = await access.system_principal()
    view = await access.keys.create(who, name="k", scopes=scopes or (Scope.USAGE_READ,), **attributes)
    assert view.token is not None
    return view.token.reveal()


@pytest.mark.parametrize(
    ("method", "path", "public"),
    [
        ("GET", "/livez", True),
        ("HEAD", "/readyz", True),
        ("POST", "/livez", False),
        ("GET", "/", True),
        ("GET", "/assets/index-abc.js", True),
        ("GET", "/models/anything", True),
        ("POST", "/", False),
        ("DELETE", "/assets/x", False),
        ("OPTIONS", "/", False),
        ("POST", "/hooks/trg_1", True),
        ("GET", "/api/v1/errors", True),
        ("POST", "/api/v1/auth/login", True),
        ("GET", "/api/v1/auth/login", False),
        ("POST", "/api/v1/auth/logout", False),
        ("GET", "/api/v1/auth/me", False),
        ("GET", "/api/v1/auth/status", True),
        ("GET", "/api", False),
        ("GET", "/API/v1/keys", False),
        ("GET", "//api/v1/keys", False),
        ("GET", "/v1/models", False),
        ("OPTIONS", "/v1/models", False),
        ("GET", "/v1", False),
        ("GET", "/v1beta/models", False),
        ("GET", "/v2/health/live", False),
        ("GET", "/mcp", False),
        ("GET", "/metrics", False),
        ("GET", "/docs", False),
        ("GET", "/openapi.json", False),
        ("QUERY", "/api/v1/keys", False),
    ],
)
def test_the_public_list(method: str, path: str, public: bool) -> None:
    assert is_public(method, path) is public


def test_the_public_list_is_short() -> None:
    assert len(PUBLIC) <= 8


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/v1beta/models/m:generateContent", "/v2/models/m/infer", "/mcp"]
)
async def test_without_a_credential_every_dialect_says_401_in_its_own_way(browser: NewBrowser, path: str) -> None:
    response = await browser().client.post(path)
    assert response.status_code == 401
    assert "reached" not in response.text
    assert "detail" not in response.json() or "code" in response.json()
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", HEADERS)
async def test_every_header_gives_the_same_verdict(access: AccessService, browser: NewBrowser, headers: Any) -> None:
    client = browser().client
    token = await make_key(access, Scope.USAGE_READ)
    assert (await client.get("/api/v1/probe/usage.read", headers=headers(token))).status_code == 200
    refused = await client.get("/api/v1/probe/llm.invoke", headers=headers(token))
    assert (refused.status_code, refused.json()["scope"]) == (403, "llm:invoke")
    assert (await client.get("/api/v1/probe/usage.read", headers=headers(token[:-1] + "!"))).status_code == 401


async def test_the_key_parameter_counts_where_google_asks(access: AccessService, browser: NewBrowser) -> None:
    client = browser().client
    token = await make_key(access)
    assert (await client.get(f"/v1beta/models?key={token}")).text == '"reached"'
    assert (await client.get(f"/v1/models/m:generateContent?key={token}")).text == '"reached"'
    assert (await client.get(f"/v1/models?key={token}")).status_code == 401
    assert (await client.get(f"/api/v1/keys?key={token}")).status_code == 401


async def test_two_different_keys_are_one_too_many(access: AccessService, browser: NewBrowser) -> None:
    client = browser().client
    one, two = await make_key(access), await make_key(access)
    same = {"authorization": f"Bearer {one}", "x-api-key": one}
    assert (await client.get("/v1/models", headers=same)).status_code == 200
    assert (await client.get("/v1/models", headers=same | {"x-api-key": two})).status_code == 401
    assert (await client.get("/v1/models", headers={"authorization": "Basic cm9vdDpyb290"})).status_code == 401


KEY_HEADERS: list[list[tuple[bytes, bytes]]] = [
    [],
    [(b"authorization", b"Bearer nx_1")],
    [(b"authorization", b"Bearer  nx_1 ")],
    [(b"authorization", b"Bearer ")],
    [(b"authorization", b"Bearer\xa0nx_1")],
    [(b"authorization", b"bearer nx_1")],
    [(b"authorization", b"Bearer nx_1"), (b"x-api-key", b"nx_1")],
    [(b"authorization", b"Bearer nx_1"), (b"authorization", b"Bearer nx_2")],
    [(b"x-goog-api-key", b"nx_1")],
    [(b"authorization", b"Bearer nx_1"), (b"cookie", b"nexus=x")],
]


@pytest.mark.parametrize("headers", KEY_HEADERS)
@pytest.mark.parametrize("query", [b"", b"key=nx_3", b"key=nx_1"])
def test_the_short_way_to_a_key_finds_what_the_long_one_does(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    scope = {"path": "/v1beta/models", "headers": headers, "query_string": query}
    found = lone_key(scope)
    assert found is None or found == read_credentials(scope, "/v1beta/models", None).token


@pytest.mark.parametrize(
    "token",
    [
        "",
        "null",
        "undefined",
        "' OR 1=1--",
        "'; select pg_sleep(5)--",
        "nx_" + "%" * 59,
        "nx_00000000_" + "0" * 43 + "_000000",
        "Bearer Bearer x",
        "{{7*7}}",
        "../../etc/passwd",
        "a" * 60_000,
        "\xff\xfe",
        "nx_\x01",
    ],
)
async def test_hostile_keys_are_401_and_reach_no_database(
    access: AccessService, browser: NewBrowser, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_database(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a key was looked up in the database")

    monkeypatch.setattr(access._database, "_transaction", no_database)
    client = browser().client
    for headers in HEADERS:
        for path in ("/v1/models", "/api/v1/keys", "/v2/models/x"):
            raw = {name: value.encode("latin-1") for name, value in headers(token).items()}
            response = await client.get(path, headers=raw)
            assert response.status_code == 401
            assert len(token) < 6 or token not in response.text


async def test_a_well_formed_key_that_nobody_made_is_401(browser: NewBrowser, access: AccessService) -> None:
    token = await make_key(access)
    other = new_key()
    body = f"nx_{token[3:11]}_{other.secret}"
    for forged in (other.token, f"{body}_{checksum(body)}", ApiKey("A" * 8, "0" * 43).token):
        response = await browser().client.get("/v1/models", headers={"authorization": f"Bearer {forged}"})
        assert response.status_code == 401


async def test_a_key_can_be_bound_to_networks(access: AccessService, browser: NewBrowser) -> None:
    token = await make_key(access, cidrs=["203.0.113.0/24", "2001:db8::/32"])
    headers = {"x-api-key": token}
    for address, status in {
        "203.0.113.77": 200,
        "::ffff:203.0.113.77": 200,
        "2001:db8::1": 200,
        "198.51.100.1": 403,
        "::1": 403,
        "unix": 403,
    }.items():
        client = browser(client=(address, 1)).client
        assert (await client.get("/v1/models", headers=headers)).status_code == status, address
        # What the caller says of itself changes nothing.
        lied = headers | {"x-forwarded-for": "203.0.113.77"}
        assert (await client.get("/v1/models", headers=lied)).status_code == status, address


@pytest.mark.parametrize("path", ["/v1/models", "/v1beta/models", "/v2/models/x", "/mcp"])
async def test_cookies_count_only_where_browsers_belong(root: Browser, path: str) -> None:
    assert (await root.client.get("/api/v1/auth/me")).status_code == 200
    assert (await root.client.get(path)).status_code == 401


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": None, "sec-fetch-site": "same-origin"}, True),
        ({"origin": None}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://localhost:8000.evil.example"}, False),
        ({"origin": "http://localhost:9000"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"x-csrf-token": None}, False),
        ({"x-csrf-token": "0" * 64}, False),
        ({"x-csrf-token": "é"}, False),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "QUERY"])
async def test_a_change_by_cookie_needs_origin_and_token(
    root: Browser, headers: dict[str, str | None], allowed: bool, method: str
) -> None:
    for name in headers:
        root.client.headers.pop(name, None)
    raw = {name: value.encode("latin-1") for name, value in headers.items() if value is not None}
    response = await root.client.request(method, "/api/v1/nothing", headers=raw)
    assert (response.status_code != 403) is allowed
    assert allowed or response.json()["code"] == "csrf_failed"
    assert (await root.client.get("/api/v1/auth/me")).status_code == 200


async def test_metrics_are_for_this_machine_or_a_key_with_the_right(access: AccessService, browser: NewBrowser) -> None:
    assert (await browser(client=("127.0.0.1", 1)).client.get("/metrics")).status_code == 200
    assert (await browser(client=("::1", 1)).client.get("/metrics")).status_code == 200
    assert (await browser().client.get("/metrics")).status_code == 401
    proxied = browser(client=("127.0.0.1", 1), **{"x-forwarded-for": "203.0.113.9"}).client
    assert (await proxied.get("/metrics")).status_code == 401
    token = await make_key(access, Scope.METRICS_READ)
    assert (await browser().client.get("/metrics", headers={"x-api-key": token})).status_code == 200


async def test_websockets_are_refused_before_they_open(access: AccessService) -> None:
    from nexus.access.asgi import Authentication

    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("reached")

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": [], "query_string": b""}
    await Authentication(app, access=access)(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_principal_in_the_scope_is_never_believed(access: AccessService) -> None:
    from nexus.access.asgi import Authentication

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "principal" not in scope

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "principal": "root"}
    await Authentication(app, access=access)(scope, None, None)  # type: ignore[arg-type]
    assert ORIGIN


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
async def test_a_known_head_opens_nothing_that_its_key_no_longer_opens(
    access: AccessService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a connection knows of a head spares work, and is void as soon as any key changes."""
    from nexus.access.asgi import Authentication

    token = await make_key(access, cidrs=["203.0.113.0/24"])
    ends = datetime.now(UTC) + timedelta(seconds=60)
    expiring = await make_key(access, expires_at=ends)
    served: list[str] = []
    refused: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["principal"].id)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            refused.append(message["status"])

    async def ask(key: str, known: dict[str, Any], client: str = "203.0.113.5") -> None:
        shown = f"Bearer {key}" if name == "authorization" else key
        scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": [(name.encode(), shown.encode())]}
        scope |= {"query_string": b"", "client": (client, 1), KNOWN: known}
        await Authentication(app, access=access)(scope, None, send)  # type: ignore[arg-type]

    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for _ in range(3):
        await ask(token, first)
        await ask(expiring, second)
    assert (len(served), refused) == (6, [])
    assert first
    assert second
    await ask(token, first, client="198.51.100.1")
    assert refused == [403]

    class Later:
        def now(self) -> datetime:
            return ends + timedelta(seconds=1)

    monkeypatch.setattr(access.limits, "_clock", Later())
    await ask(expiring, second)
    assert refused == [403, 401]
    await access.keys.revoke(await access.system_principal(), served[0])
    await ask(token, first)
    assert refused == [403, 401, 401]
    assert len(served) == 6
