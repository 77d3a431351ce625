"""Channels that are told what a step asks: a link that answers where anybody may, none where somebody has to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text
from tests.automation.conftest import Shop
from tests.automation.test_approvals import asked, flow

import nexus.automation.alert_tables  # noqa: F401  the database fixtures create what has been imported
from nexus.automation import approval_notices
from nexus.automation.approval_links import ApprovalLinks
from nexus.automation.approvals import Approval
from nexus.automation.channel_service import ChannelService
from nexus.automation.errors import ApprovalDecided, ApprovalLinkInvalid
from nexus.core.clock import SystemClock
from nexus.core.secrets import Keyring
from nexus.http import fetch
from nexus.runs.types import RetryPolicy, Run, RunStatus
from nexus.storage.db import Database
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow
SITE = "https://nexus.test"


@dataclass
class Board:
    shop: Shop
    channels: ChannelService
    links: ApprovalLinks
    hook: FakeUpstream
    database: Database

    async def add(self, name: str = "ops") -> str:
        given = {"config": {"url": f"{self.hook.url}/{name}"}, "secret": None, "credential": None, "enabled": True}
        return (await self.channels.create(self.shop.who, name=name, kind="webhook", **given))[0].id

    async def ask(self, **given: Any) -> tuple[Run, Approval]:
        run = await self.shop.start(flow(**given))
        (approval,) = await asked(self.shop, run)
        return run, approval

    async def told(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the runs that tell have ended, and return what came."""
        async with asyncio.timeout(60):
            while True:
                runs = await self.shop.runs.list(self.shop.who, kind="alert")
                if len(runs) == count and all(run.status.final for run in runs):
                    return [seen.json for seen in self.hook.seen]
                await asyncio.sleep(0.02)


def token_of(link: str) -> str:
    assert link.startswith(f"{SITE}/hooks/approvals?token="), link
    return link.partition("?token=")[2]


@pytest.fixture
async def board(shop: Shop, database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Board]:
    monkeypatch.setattr(approval_notices, "RETRIES", RetryPolicy(max=3, base=0.01))
    clock = SystemClock()
    channels = ChannelService(database=database, runs=shop.runs, secrets=shop.secrets, clock=clock, public_url=SITE)
    links = ApprovalLinks(
        approvals=shop.approvals, database=database, keyring=Keyring(b"k" * 48), clock=clock, public_url=SITE
    )
    shop.services.put(channels)
    shop.services.put(links)
    fetch.configure(["127.0.0.0/8"])
    with FakeUpstream(lambda _request: Script((response(200, b"ok"),))) as hook:
        yield Board(shop, channels, links, hook, database)
    fetch.configure([])


async def test_who_reads_the_channel_answers_once_in_its_name(board: Board) -> None:
    channel = await board.add()
    run, _ = await board.ask(message="Pay?\nFor the shop.", data={"amount": 5}, notify="ops", expires=600)
    (told,) = await board.told()
    assert (told["type"], told["data"]["title"], told["data"]["text"]) == (
        "approval.requested",
        "Pay?",
        "Pay?\nFor the shop.",
    )
    details = told["data"]["details"]
    assert (details["amount"], details["run"], details["step"]) == (5, run.id, "ask")
    assert details["until"] is not None
    token = token_of(told["data"]["link"])
    assert (await board.links.show(token)).status == "pending"
    decided = await board.links.decide(token, "approved", "from the channel")
    assert (decided.decided_by, decided.comment) == (channel, "from the channel")
    with pytest.raises(ApprovalDecided):
        await board.links.decide(token, "rejected")
    done = await board.shop.wait(run)
    assert (done.status, done.steps[0].output["by"]) == (RunStatus.SUCCEEDED, channel)


async def test_every_channel_is_told_however_often_it_takes_and_no_link_is_kept(board: Board) -> None:
    failures = iter([503, 503])

    def answer(request: Seen) -> Script:
        away = request.path.endswith("mail") and (status := next(failures, None))
        return Script((response(status, b"") if away and status else response(200, b"ok"),))

    board.hook.answering = answer
    await board.add()
    await board.add("mail")
    _, approval = await board.ask(notify=["ops", "mail"])
    await board.told()
    seen = [one for one in board.hook.seen if one.path.endswith("mail")]
    assert len(seen) == 3
    assert len({one.headers["webhook-id"] for one in seen}) == 1
    ops, mail = (
        next(token_of(one.json["data"]["link"]) for one in board.hook.seen[::-1] if one.path.endswith(name))
        for name in ("ops", "mail")
    )
    assert ops != mail
    (log,) = await board.channels.deliveries(board.shop.who, "mail")
    assert (log.status, log.attempts, log.notice["link"]) == ("delivered", 3, f"{SITE}/approvals")
    with board.database.engine.connect() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        kept = "\n".join(str(row) for name in tables for row in connection.execute(text(f'SELECT * FROM "{name}"')))
    assert approval.id in kept
    assert "token=" not in kept
    await board.links.decide(mail, "approved")
    with pytest.raises(ApprovalDecided):
        await board.links.decide(ops, "approved")


@pytest.mark.parametrize("given", [{"roles": ["owner"]}, {"users": ["anna@x"]}, {"four_eyes": True}])
async def test_where_certain_people_have_to_answer_no_link_does(board: Board, given: dict[str, Any]) -> None:
    await board.add()
    await board.ask(notify="ops", **given)
    (told,) = await board.told()
    assert told["data"]["link"] == f"{SITE}/approvals"


async def test_a_link_ends_with_its_channel(board: Board) -> None:
    channel = await board.add()
    _, approval = await board.ask(notify=[channel])
    (told,) = await board.told()
    token = token_of(told["data"]["link"])
    await board.channels.change(board.shop.who, "ops", {"enabled": False})
    with pytest.raises(ApprovalLinkInvalid):
        await board.links.decide(token, "approved")
    await board.channels.delete(board.shop.who, "ops")
    with pytest.raises(ApprovalLinkInvalid):
        await board.links.show(token)
    assert (await board.shop.approvals.get(board.shop.who, approval.id)).status == "pending"


async def test_a_channel_that_is_away_does_not_stop_the_question(board: Board) -> None:
    board.hook.answering = lambda _request: Script((response(410, b""),))
    await board.add()
    run, approval = await board.ask(notify="ops")
    await board.told()
    (teller,) = await board.shop.runs.list(board.shop.who, kind="alert")
    assert (teller.status, teller.trigger["caused_by"]) == (RunStatus.FAILED, run.id)
    await board.shop.approvals.decide(board.shop.who, approval.id, "approved")
    assert (await board.shop.wait(run)).status is RunStatus.SUCCEEDED


async def test_a_channel_that_is_not_there_is_a_mistake(board: Board) -> None:
    run = await board.shop.run(flow(notify=["nobody"]))
    assert run.error is not None
    assert (run.error.code, run.error.message) == ("channel_not_found", "There is no channel 'nobody'.")
    assert not await board.shop.approvals.list(board.shop.who)
