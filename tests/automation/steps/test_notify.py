"""The step `notify`: told once through a channel of the project, whatever the attempts."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from tests.automation.conftest import Shop

import nexus.automation.alert_tables  # noqa: F401  the database fixtures create what has been imported
from nexus.automation.channel_service import ChannelService
from nexus.core.clock import SystemClock
from nexus.http import fetch
from nexus.storage.db import Database
from nexus.testing.script import Script, response
from nexus.testing.upstream import FakeUpstream

FLOW: dict[str, Any] = {
    "inputs": {"what": {"type": "string"}},
    "steps": [
        {
            "key": "tell",
            "uses": "notify",
            "with": {"channel": "ops", "title": "{{ inputs.what }} is done", "details": {"n": 3}},
            "retries": {"max": 3, "base": 0.01},
        }
    ],
}


@pytest.mark.slow
async def test_people_are_told_once_under_one_message_id(shop: Shop, database: Database) -> None:
    channels = ChannelService(database=database, runs=shop.runs, secrets=shop.secrets, clock=SystemClock())
    shop.services.put(channels)
    answers = iter([response(503, b""), response(200, b"ok")])
    fetch.configure(["127.0.0.0/8"])
    try:
        with FakeUpstream(lambda _request: Script((next(answers),))) as hook:
            config = {"url": f"{hook.url}/hook"}
            given = {"config": config, "secret": None, "credential": None, "enabled": True}
            await channels.create(shop.who, name="ops", kind="webhook", **given)
            run = await shop.run(FLOW, what="the load")
            assert run.error is None
            (log,) = await channels.deliveries(shop.who, "ops")
            assert (log.status, log.attempts, log.run_id) == ("delivered", 2, run.id)
            assert run.result == {"delivery_id": log.id, "status": 200}
            assert len({seen.headers["webhook-id"] for seen in hook.seen}) == 1
            assert hook.seen[-1].json["data"]["title"] == "the load is done"
    finally:
        fetch.configure([])
    gone = await shop.run({"steps": [{"key": "t", "uses": "notify", "with": {"channel": "nobody", "title": "x"}}]})
    assert gone.error is not None
    assert gone.error.code == "channel_not_found"


@pytest.mark.slow
async def test_a_secret_is_told_and_not_kept(shop: Shop, database: Database) -> None:
    secret = "hush-hush/4711"
    await shop.secrets.put(shop.who, "TOKEN", secret)
    channels = ChannelService(database=database, runs=shop.runs, secrets=shop.secrets, clock=SystemClock())
    shop.services.put(channels)
    answers = iter([response(503, b""), response(200, b"ok")])
    told = {
        "title": "{{ secrets.TOKEN }} is new",
        "text": "curl -H 'authorization: {{ secrets.TOKEN }}'",
        "details": {"{{ secrets.TOKEN }}": "name", "deep": [{"token": "{{ secrets.TOKEN }}"}]},
    }
    step = {"key": "tell", "uses": "notify", "with": {"channel": "ops", **told}, "retries": {"max": 3, "base": 0.01}}
    fetch.configure(["127.0.0.0/8"])
    try:
        with FakeUpstream(lambda _request: Script((next(answers),))) as hook:
            given = {"config": {"url": f"{hook.url}/hook"}, "secret": None, "credential": None, "enabled": True}
            await channels.create(shop.who, name="ops", kind="webhook", **given)
            run = await shop.run({"steps": [step]})
            assert run.error is None
            (log,) = await channels.deliveries(shop.who, "ops")
            assert (log.status, log.notice["title"]) == ("delivered", "*** is new")
            assert log.notice["details"]["deep"] == [{"token": "***"}]
            assert secret not in str(log.notice)
            first, second = (seen.json["data"] for seen in hook.seen)
            assert first == second
            assert second["title"] == f"{secret} is new"
            assert secret in second["text"]
    finally:
        fetch.configure([])
    with database.engine.connect() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        kept = [str(row) for name in tables for row in connection.execute(text(f'SELECT * FROM "{name}"'))]
    assert "hush-hush" not in "\n".join(kept)
