"""`/api/v1/triggers` over HTTP: a webhook's whole life, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from fastapi import FastAPI
from tests.automation.conftest import WHO
from tests.automation.test_signatures import standard
from tests.automation.test_triggers import WORKFLOW, House

from nexus.automation import routes
from nexus.automation.trigger_service import TriggerService
from nexus.automation.trigger_tables import TriggerRow
from nexus.core.services import Services
from nexus.http import handlers
from nexus.http.types import Receive, Scope, Send
from nexus.storage.db import Database

pytestmark = pytest.mark.slow
NEW = {"kind": "webhook", "workflow": "flow", "name": "paid", "inputs": {"n": "{{ event.body.n }}"}}


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    house = House(database, tmp_path)
    await house.automation.apply(WHO, orjson.dumps(WORKFLOW))
    yield house
    await house.http.aclose()
    await house.runs.stop()


@pytest.fixture
async def http(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    api = FastAPI()
    services = Services()
    services.put(house.triggers, as_type=TriggerService)
    api.state.services = services
    handlers.install(api)
    api.include_router(routes.router)

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        scope["principal"] = WHO
        await api(scope, receive, send)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=known), base_url="http://localhost") as client:
        yield client


async def test_the_life_of_a_webhook(house: House, http: httpx2.AsyncClient) -> None:
    made = await http.post("/api/v1/triggers", json=NEW)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    trigger = made.json()
    secret = trigger.pop("secret")
    assert secret.startswith("whsec_")
    assert made.headers["location"] == f"/api/v1/triggers/{trigger['id']}"
    assert (await http.get("/api/v1/triggers/paid")).json() == trigger
    assert (await http.get("/api/v1/triggers?kind=webhook")).json()["data"] == [trigger]
    assert (await http.get("/api/v1/triggers?kind=event")).json()["data"] == []

    tried = (await http.post("/api/v1/triggers/paid/test", json={"event": {"body": {"n": 4}}})).json()
    assert (tried["would_start"], tried["inputs"]) == (True, {"n": 4})
    tried = (await http.post("/api/v1/triggers/paid/test")).json()
    assert (tried["would_start"], tried["error"]["field"]) == (False, "inputs.n")

    for number in (1, 2):
        body = orjson.dumps({"n": number})
        headers = {**standard(body, house.at, secret, f"msg_{number}"), "content-type": "application/json"}
        called = await house.http.post(trigger["url"], content=body, headers=headers)
        assert called.status_code == 202, called.text
    page = (await http.get("/api/v1/triggers/paid/deliveries?limit=1")).json()
    assert (page["has_more"], page["data"][0]["key"]) == (True, "msg_2")
    rest = (await http.get(f"/api/v1/triggers/paid/deliveries?limit=1&cursor={page['next_cursor']}")).json()
    assert [row["key"] for row in rest["data"]] == ["msg_1"]
    delivery = rest["data"][0]["id"]
    whole = (await http.get(f"/api/v1/triggers/paid/deliveries/{delivery}")).json()
    assert whole["event"]["body"] == {"n": 1}
    assert (await http.post(f"/api/v1/triggers/paid/deliveries/{delivery}/retry")).json()["code"] == "delivery_settled"
    assert (await http.get("/api/v1/triggers/paid/deliveries?outcome=failed")).json()["data"] == []

    fresh = await http.post("/api/v1/triggers/paid/rotate-secret", json={"overlap_seconds": 60})
    assert fresh.json()["secret"].startswith("whsec_")
    assert (await http.get("/api/v1/triggers/paid")).json()["secrets"] == 2
    changed = await http.patch("/api/v1/triggers/paid", json={"when": "event.body.n > 1", "overlap": "queue"})
    assert (changed.json()["when"], changed.json()["overlap"]) == ("event.body.n > 1", "queue")
    assert (await http.patch("/api/v1/triggers/paid", json={"when": None})).json()["when"] is None
    assert (await http.post("/api/v1/triggers/paid/disable")).json()["enabled"] is False
    assert (await http.post("/api/v1/triggers/paid/enable")).json()["enabled"] is True
    assert (await http.delete("/api/v1/triggers/paid")).status_code == 204
    assert (await http.get("/api/v1/triggers/paid")).status_code == 404


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({"kind": "moon"}, 422, "kind"),
        ({"workflow": "none"}, 404, None),
        ({"config": {"preset": "paypal"}}, 422, "config.preset"),
        ({"config": {"preset": "hmac", "hmac": {"header": "x", "content": "{id}"}}}, 422, "config.hmac"),
        ({"kind": "event", "config": {"types": ["No"]}}, 422, "config.types.0"),
        ({"kind": "file", "config": {"folder": "inbox"}}, 422, "config.folder"),
        ({"inputs": {"n": "{{ nothing }}"}}, 422, "inputs.n"),
        ({"inputs": {"n": "{{"}}, 422, "inputs.n"),
        ({"when": "1 +"}, 422, None),
        ({"when": "secrets.KEY == 1"}, 422, "when"),
        ({"secret": "short"}, 422, "secret"),
        ({"secret": "whsec_" + "a" * 20}, 422, "secret"),
        ({"overlap": "never"}, 422, "overlap"),
        ({"project_id": "prj_b"}, 422, "project_id"),
    ],
)
async def test_bad_triggers_name_the_field(
    house: House, http: httpx2.AsyncClient, given: dict[str, Any], status: int, field: str | None
) -> None:
    answer = await http.post("/api/v1/triggers", json={**NEW, **given})
    assert answer.status_code == status, answer.text
    if field is not None:
        assert field.replace(".", "/") in answer.text or field in answer.text, answer.text
    assert house.count(TriggerRow) == 0
