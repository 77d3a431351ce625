"""Providers and routes over the API: kept, sealed, merged with the settings file, known to every process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from tests.clock import until
from tests.llm.conftest import WHO, Gateway, fast, serving
from tests.llm.routing.test_delivery import ask, said
from tests.llm.scripts import failing

from nexus.access.audit import AuditLog
from nexus.access.types import Scope
from nexus.core.clock import SystemClock
from nexus.core.secrets import Keyring
from nexus.ledger.service import Ledger
from nexus.llm.configuration.service import Configuration
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.tables import ProviderRow
from nexus.storage.db import Database
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()
KEYRING = Keyring(b"k" * 48)
KEY = "sk-a-secret-of-the-provider-9876"
TEXT = "alpha beta gamma delta"


class Instance:
    """One process: its gateway and its stored configuration."""

    def __init__(self, gateway: Gateway, configuration: Configuration, learned: list[str]) -> None:
        self.gateway = gateway
        self.configuration = configuration
        self.learned = learned

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return HTTP.request(method, f"{self.gateway.url}/api/v1{path}", json=body, headers=given, timeout=20)


@pytest.fixture
def start(database: Database, ledger: Ledger, upstream: FakeUpstream) -> Iterator[Callable[..., Instance]]:
    """Return a function that starts a process on the same database; the file has the provider and route `up`."""
    with ExitStack() as stack:

        def make(keyring: Keyring = KEYRING, **changes: Any) -> Instance:
            provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}
            route = {"name": "filed", "deployments": [{"provider": "up", "model": "echo"}]}
            settings = LLMSettings(**fast(**{"providers": [provider], "routes": [route]} | changes))
            llm = LLMService(settings=settings, record=ledger.record)
            learned: list[str] = []
            configuration = Configuration(
                database=database,
                keyring=keyring,
                clock=SystemClock(),
                audit=AuditLog(database, KEYRING),
                llm=llm,
                refresh=0.1,
                learn_secret=learned.append,
            )
            who = replace(WHO, kind="session", user_id=None)
            gateway = stack.enter_context(serving(llm, ledger, who, configuration))
            return Instance(gateway, configuration, learned)

        yield make


@pytest.fixture
def instance(start: Callable[..., Instance]) -> Instance:
    return start()


def provider(upstream: FakeUpstream, name: str = "mine", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "openai", "base_url": upstream.url, "api_key": KEY} | more


ROUTE = {"name": "org/best", "deployments": [{"provider": "mine", "model": "echo", "weight": 2}]}


def test_a_provider_and_a_route_serve_at_once(instance: Instance, upstream: FakeUpstream) -> None:
    made = instance.call("POST", "/providers", provider(upstream, region="x-1", client_secret="hush-hush"))
    assert made.status_code == 201, made.text
    assert made.headers["location"] == "/api/v1/providers/mine"
    assert made.headers["etag"] == '"1"'
    shown = made.json()
    assert (shown["key_last4"], shown["source"], shown["revision"]) == ("9876", "api", 1)
    assert shown["options"] == {"region": "x-1", "client_secret": "***"}
    assert KEY not in made.text
    assert set(instance.learned) == {KEY}
    made = instance.call("POST", "/routes", ROUTE)
    assert made.status_code == 201, made.text
    assert made.json()["deployments"][0]["weight"] == 2
    assert said(ask(instance.gateway, "org/best")) == TEXT
    assert said(ask(instance.gateway, "mine/other")) == TEXT
    assert upstream.seen[0].headers["authorization"] == f"Bearer {KEY}"
    shown = instance.call("GET", "/providers")
    assert "sk-upstream" not in shown.text
    listed = {row["name"]: row["source"] for row in shown.json()["data"]}
    assert listed == {"up": "settings", "mine": "api"}
    listed = {row["name"]: row["source"] for row in instance.call("GET", "/routes").json()["data"]}
    assert listed == {"filed": "settings", "org/best": "api"}
    assert instance.call("GET", "/routes/org/best").json()["revision"] == 1


def test_secrets_are_sealed_for_their_own_row(instance: Instance, database: Database, upstream: FakeUpstream) -> None:
    instance.call("POST", "/providers", provider(upstream, client_secret="hush-hush"))
    with database.engine.connect() as connection:
        dump = "\n".join(str(row) for row in connection.execute(text("select * from llm_provider")))
        trail = "\n".join(str(row) for row in connection.execute(text("select * from audit_event")))
    assert "mine" in dump
    for secret in (KEY, "9876", "hush"):
        assert secret not in dump + trail
    assert "provider.create" in trail
    sealed = database.read_now(lambda session: session.scalars(select(ProviderRow)).one().sealed)
    assert json.loads(KEYRING.decrypt(sealed, "llm_provider|mine|*|sealed").reveal())["api_key"] == KEY
    instance.call("POST", "/providers", provider(upstream, "other", api_key="sk-other-key-1234"))

    def swap(session: Any) -> None:
        rows = {row.name: row for row in session.scalars(select(ProviderRow))}
        rows["other"].sealed = rows["mine"].sealed

    database.write_now(swap)
    instance.call("PATCH", "/providers/mine", {"base_url": upstream.url})
    assert {row["name"] for row in instance.call("GET", "/providers").json()["data"]} == {"up", "mine"}


def test_changes_keep_what_they_leave_out(instance: Instance, upstream: FakeUpstream) -> None:
    instance.call("POST", "/providers", provider(upstream, region="x-1"))
    changed = instance.call("PATCH", "/providers/mine", {"region": "x-2"}).json()
    assert (changed["key_last4"], changed["options"], changed["revision"]) == ("9876", {"region": "x-2"}, 2)
    changed = instance.call("PATCH", "/providers/mine", {"api_key": None, "region": None}).json()
    assert (changed["key_last4"], changed["options"]) == (None, {})
    instance.call("POST", "/routes", ROUTE | {"fallbacks": ["filed"], "cache": {"exact": True}})
    changed = instance.call("PATCH", "/routes/org/best", {"strategy": "least_busy", "fallbacks": None}).json()
    assert (changed["strategy"], changed["fallbacks"], changed["cached"]) == ("least_busy", [], True)


def test_a_change_can_be_bound_to_what_was_seen(instance: Instance, upstream: FakeUpstream) -> None:
    instance.call("POST", "/providers", provider(upstream))
    assert instance.call("PATCH", "/providers/mine", {"region": "a"}, if_match='"1"').status_code == 200
    for method, body in (("PATCH", {"region": "b"}), ("DELETE", None)):
        assert instance.call(method, "/providers/mine", body, if_match='"1"').status_code == 412
    assert instance.call("DELETE", "/providers/mine", if_match='"2"').status_code == 204


def test_what_the_file_says_is_read_only(instance: Instance, upstream: FakeUpstream) -> None:
    for path, body in (("/providers/up", {"region": "x"}), ("/routes/filed", {"strategy": "weighted"})):
        refused = instance.call("PATCH", path, body)
        assert (refused.status_code, refused.json()["code"]) == (409, "configured_in_file")
        assert instance.call("DELETE", path).status_code == 409
    taken = instance.call("POST", "/providers", provider(upstream, "up"))
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    taken = instance.call("POST", "/routes", {"name": "filed", "deployments": [{"provider": "up", "model": "x"}]})
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")


BAD_PROVIDERS: list[tuple[dict[str, Any], int, str]] = [
    ({"kind": "nonsense"}, 400, "/kind"),
    ({"kind": "local"}, 400, "/kind"),
    ({"name": "a/b"}, 422, "/name"),
    ({"name": "local"}, 409, "/name"),
    ({"base_url": "ftp://x"}, 422, "/base_url"),
    ({"base_url": "http://user:pw@x/v1"}, 422, "/base_url"),
]
BAD_ROUTES: list[tuple[dict[str, Any], int, str]] = [
    ({"deployments": [{"provider": "nobody", "model": "m"}]}, 400, "/deployments/0/provider"),
    ({"deployments": []}, 422, "/deployments"),
    ({"deployments": [{"provider": "up", "model": "m", "typo": 1}]}, 422, "/deployments/0/typo"),
    ({"fallbacks": ["filed", "nothing"]}, 400, "/fallbacks/1"),
    ({"fallbacks": ["new"]}, 400, "/fallbacks/0"),
    ({"fallbacks": ["nexus-local"]}, 400, "/fallbacks/0"),
    ({"strategy": "best"}, 422, "/strategy"),
    ({"name": "with space"}, 422, "/name"),
    ({"name": ""}, 422, "/name"),
    ({"cache": {"ttl": 0}}, 422, "/cache/ttl"),
    ({"cache": {"semantic": {"threshold": 2}}}, 422, "/cache/semantic/threshold"),
    ({"timeouts": {"total": -1}}, 422, "/timeouts/total"),
    ({"health": {"interval": 0}}, 422, "/health/interval"),
    ({"deployments": [{"provider": "local", "model": "nexus-local"}]}, 400, "/deployments/0/model"),
]


@pytest.mark.parametrize(("change", "status", "pointer"), BAD_PROVIDERS, ids=[str(case[0]) for case in BAD_PROVIDERS])
def test_bad_providers_name_the_field(
    instance: Instance, upstream: FakeUpstream, change: dict[str, Any], status: int, pointer: str
) -> None:
    refused = instance.call("POST", "/providers", provider(upstream, "new") | change)
    assert refused.status_code == status, refused.text
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert KEY not in refused.text
    assert len(instance.call("GET", "/providers").json()["data"]) == 1


@pytest.mark.parametrize(("change", "status", "pointer"), BAD_ROUTES, ids=[str(case[0]) for case in BAD_ROUTES])
def test_bad_routes_name_the_field(instance: Instance, change: dict[str, Any], status: int, pointer: str) -> None:
    route = {"name": "new", "deployments": [{"provider": "up", "model": "m"}]} | change
    refused = instance.call("POST", "/routes", route)
    assert refused.status_code == status, refused.text
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert len(instance.call("GET", "/routes").json()["data"]) == 1


def test_what_is_in_use_is_not_deleted(instance: Instance, upstream: FakeUpstream) -> None:
    instance.call("POST", "/providers", provider(upstream))
    instance.call("POST", "/routes", ROUTE)
    instance.call("POST", "/routes", ROUTE | {"name": "other", "fallbacks": ["org/best"]})
    assert instance.call("DELETE", "/providers/mine").json()["code"] == "still_used"
    assert instance.call("DELETE", "/routes/org/best").json()["code"] == "still_used"
    for path in ("/routes/other", "/routes/org/best", "/providers/mine"):
        assert instance.call("DELETE", path).status_code == 204
        assert instance.call("GET", path).status_code == 404
        assert instance.call("DELETE", path).status_code == 404
    assert ask(instance.gateway, "org/best").json()["error"]["code"] == "model_not_found"
    assert ask(instance.gateway, "mine/echo").json()["error"]["code"] == "model_not_found"


def test_other_processes_learn_within_moments(start: Callable[..., Instance], upstream: FakeUpstream) -> None:
    one, two = start(), start()
    one.call("POST", "/providers", provider(upstream))
    one.call("POST", "/routes", ROUTE)
    until(lambda: ask(two.gateway, "org/best").status_code == 200)
    assert said(ask(two.gateway, "org/best")) == TEXT
    one.call("DELETE", "/routes/org/best")
    until(lambda: ask(two.gateway, "org/best").status_code != 200)
    assert ask(two.gateway, "org/best").status_code == 404


def test_what_cannot_work_any_more_is_left_out_and_says_so(
    start: Callable[..., Instance], upstream: FakeUpstream
) -> None:
    one = start()
    one.call("POST", "/providers", provider(upstream, "mine"))
    one.call("POST", "/routes", ROUTE)
    one.call(
        "POST",
        "/routes",
        {"name": "second", "deployments": [{"provider": "up", "model": "m"}], "fallbacks": ["org/best"]},
    )
    other_file = [{"name": "mine", "kind": "openai", "base_url": upstream.url, "api_key": "sk-of-the-file-1234"}]
    two = start(providers=other_file, routes=[])
    shown = two.call("GET", "/providers").json()
    assert "settings have a provider" in shown["left_out"]["mine"]
    assert "no provider up" in shown["left_out"]["second"]
    assert said(ask(two.gateway, "org/best")) == TEXT, "it leads to the file's provider of that name"
    three = start(keyring=Keyring(b"another" * 9))
    assert "org/best" in three.call("GET", "/routes").json()["left_out"]
    assert said(ask(three.gateway, "filed")) == TEXT


def test_only_platform_administrators_change_anything(
    instance: Instance, ledger: Ledger, upstream: FakeUpstream
) -> None:
    poor = replace(WHO, scopes=frozenset({Scope.LLM_INVOKE, Scope.KEYS_MANAGE, Scope.MODELS_MANAGE}))
    with serving(instance.gateway.llm, ledger, poor, instance.configuration) as place:
        other = Instance(place, instance.configuration, [])
        assert other.call("GET", "/routes").status_code == 200
        for method, path, body in (
            ("GET", "/providers", None),
            ("POST", "/providers", provider(upstream)),
            ("POST", "/routes", ROUTE),
            ("PATCH", "/routes/filed", {}),
            ("DELETE", "/routes/filed", None),
            ("POST", "/providers/up/test", {}),
        ):
            assert other.call(method, path, body).status_code == 403


def test_the_environment_s_key_goes_to_its_own_address_only(
    instance: Instance, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    given = provider(upstream)
    del given["api_key"]
    assert instance.call("POST", "/providers", given).json()["key_last4"] is None
    ask(instance.gateway, "mine/echo")
    assert "authorization" not in upstream.seen[-1].headers


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("openai", {}, None),
        ("openai", {"model": "echo"}, None),
        ("anthropic", {}, None),
        ("google", {"model": "echo"}, None),
        ("openai", {"model": "fault-401"}, "upstream_credentials"),
        ("openai", {"model": "fault-404"}, "model_not_found"),
        ("openai", {"model": "fault-500"}, "upstream_unavailable"),
    ],
)
def test_a_provider_can_be_tried(
    instance: Instance, upstream: FakeUpstream, kind: str, body: dict[str, Any], code: str | None
) -> None:
    instance.call("POST", "/providers", provider(upstream, kind=kind))
    tried = instance.call("POST", "/providers/mine/test", body)
    assert tried.status_code == 200, tried.text
    assert tried.json()["ok"] is (code is None), tried.json()
    assert (tried.json()["error"] or {}).get("code") == code
    assert tried.json()["latency_ms"] > 0
    assert KEY not in tried.text
    assert upstream.seen[0].method == ("POST" if body else "GET")


def test_a_refused_key_and_a_dead_address_are_told(instance: Instance, upstream: FakeUpstream) -> None:
    upstream.answering = failing("401")
    tried = instance.call("POST", "/providers/up/test", {}).json()
    assert tried["error"]["code"] == "upstream_credentials"
    assert "sk-upstream" not in str(tried)
    instance.call("POST", "/providers", provider(upstream, base_url="http://127.0.0.1:9/v1"))
    tried = instance.call("POST", "/providers/mine/test", {}).json()
    assert tried["error"]["code"] == "upstream_unavailable"
    assert "127.0.0.1" not in tried["error"]["message"]
    assert instance.call("POST", "/providers/none/test", {}).status_code == 404


def test_routes_show_how_their_places_do(instance: Instance, upstream: FakeUpstream) -> None:
    ask(instance.gateway, "filed")
    place = instance.call("GET", "/routes/filed").json()["deployments"][0]
    assert place["standing"]["breaker"] == "closed"
    assert 0 < place["standing"]["latency_seconds"] < 1
    upstream.answering = failing("500")
    for _ in range(5):
        ask(instance.gateway, "filed")
    standing = instance.call("GET", "/routes/filed").json()["deployments"][0]["standing"]
    assert (standing["breaker"], standing["last_error"]) == ("open", "upstream_unavailable")
    assert 0 < standing["free_in_seconds"] <= 10


async def test_loading_twice_at_once_ends_well(database: Database, ledger: Ledger, upstream: FakeUpstream) -> None:
    llm = LLMService(settings=LLMSettings(**fast()), record=ledger.record)
    configuration = Configuration(
        database=database, keyring=KEYRING, clock=SystemClock(), audit=AuditLog(database, KEYRING), llm=llm
    )
    made = await asyncio.gather(
        *(configuration.put_provider(WHO, provider(upstream, f"p{i}")) for i in range(8)), return_exceptions=True
    )
    assert sorted(map(str, made)) == [f"p{i}" for i in range(8)]
    assert {account.name for account in llm.registry.accounts()} == {f"p{i}" for i in range(8)}
