"""Links to approvals: opening shows, the form decides once, and no one gains more than the maker's right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from tests.automation.conftest import Shop
from tests.automation.test_approvals import asked, flow, people  # noqa: F401  a fixture
from tests.automation.test_schedules import Hands

from nexus.access.tables import MembershipRow, UserRow
from nexus.access.types import Principal
from nexus.automation.approval_door import APPROVAL_DOOR
from nexus.automation.approval_links import ApprovalLinks
from nexus.automation.approvals import Approval
from nexus.automation.errors import ApprovalDecided, ApprovalLinkInvalid, NotYoursToApprove
from nexus.core.clock import SystemClock
from nexus.core.errors import Forbidden
from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.http.dispatch import Dispatch
from nexus.http.edge import build_edge
from nexus.http.lifecycle import Lifecycle
from nexus.http.settings import HTTPSettings
from nexus.runs.types import Run, RunStatus
from nexus.storage.db import Database


@dataclass
class Desk:
    shop: Shop
    links: ApprovalLinks
    clock: Hands
    http: httpx2.AsyncClient
    owner: Principal
    people: dict[str, Principal]
    database: Database

    async def ask(self, **given: Any) -> tuple[Run, Approval]:
        run = await self.shop.start(flow(**given))
        (approval,) = await asked(self.shop, run)
        return run, approval

    async def link(self, approval: Approval, who: Principal | None = None, seconds: float = 3600) -> str:
        return (await self.links.make(who or self.owner, approval.id, seconds=seconds)).url


@pytest.fixture
async def desk(shop: Shop, database: Database, people: dict[str, Principal]) -> AsyncIterator[Desk]:  # noqa: F811
    clock = Hands()
    clock.at = SystemClock().now()
    links = ApprovalLinks(approvals=shop.approvals, database=database, keyring=Keyring(b"k" * 48), clock=clock)
    services = Services()
    services.put(links)
    app = Dispatch(_nothing, services=services, hot=APPROVAL_DOOR)
    edge = build_edge(app, settings=HTTPSettings(), lifecycle=Lifecycle())
    transport = httpx2.ASGITransport(app=edge)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield Desk(shop, links, clock, http, people["owner"], people, database)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not the door")


@pytest.mark.parametrize(("verdict", "status"), [("approve", RunStatus.SUCCEEDED), ("reject", RunStatus.FAILED)])
async def test_opening_shows_and_the_form_decides_once(desk: Desk, verdict: str, status: RunStatus) -> None:
    run, approval = await desk.ask(message="Pay <b>5</b>?", data={"to": "<script>"})
    url = await desk.link(approval)
    for _ in range(3):
        page = await desk.http.get(url)
        assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
        assert "Pay &lt;b&gt;5&lt;/b&gt;?" in page.text
        assert "<script>" not in page.text
        assert (await desk.http.head(url)).status_code in (200, 405)
    assert (await desk.shop.approvals.get(desk.owner, approval.id)).status == "pending"
    same = {"origin": "http://localhost"}
    done = await desk.http.post(url, data={"verdict": verdict, "comment": "by phone"}, headers=same)
    assert done.status_code == 200, done.text
    decided = await desk.shop.approvals.get(desk.owner, approval.id)
    assert (decided.decided_by, decided.comment) == (desk.owner.id, "by phone")
    assert (await desk.shop.wait(run)).status is status
    for again in ("approve", "reject"):
        assert (await desk.http.post(url, data={"verdict": again})).status_code == 409
    assert "no more use" in (await desk.http.get(url)).text


async def test_what_no_link_does(desk: Desk) -> None:
    _, approval = await desk.ask()
    _, other = await desk.ask()
    url, further = await desk.link(approval), await desk.link(other)
    address, _, token = url.partition("?token=")
    claim, _, signature = token.partition(".")
    mixed = further.partition("?token=")[2].partition(".")[0]
    forged = [f"{mixed}.{signature}", f"{claim}.", claim, "", ".", f"{claim}.{signature[:-2]}AA", "ü.é", "a" * 5000]
    for one in forged:
        assert (await desk.http.post(address, params={"token": one}, data={"verdict": "approve"})).status_code == 404
        assert (await desk.http.get(address, params={"token": one})).status_code == 404
    assert (await desk.http.get(address)).status_code == 404
    assert (await desk.http.post(url, data={"verdict": "maybe"})).status_code == 422
    assert (await desk.http.post(url)).status_code == 422
    foreign = {"origin": "http://evil.test"}
    assert (await desk.http.post(url, data={"verdict": "approve"}, headers=foreign)).status_code == 403
    assert (await desk.shop.approvals.get(desk.owner, approval.id)).status == "pending"
    desk.clock.at += timedelta(seconds=3601)
    assert (await desk.http.get(url)).status_code == 404
    assert (await desk.http.post(url, data={"verdict": "approve"})).status_code == 404


async def test_a_link_ends_with_the_question(desk: Desk) -> None:
    _, approval = await desk.ask(expires=600)
    link = await desk.links.make(desk.owner, approval.id, seconds=86_400)
    assert approval.expires_at is not None
    assert link.expires_at <= approval.expires_at


async def test_of_many_answers_by_one_link_one_counts(desk: Desk) -> None:
    run, approval = await desk.ask(on_reject="continue")
    token = (await desk.link(approval)).partition("?token=")[2]
    verdicts = ["approved", "rejected"] * 5
    answers = await asyncio.gather(
        *(desk.links.decide(token, verdict) for verdict in verdicts),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    counted = {answer.status for answer in answers if isinstance(answer, Approval)}
    assert len(counted) == 1
    assert all(isinstance(answer, Approval | ApprovalDecided) for answer in answers)
    assert (await desk.shop.wait(run)).status is RunStatus.SUCCEEDED


async def test_nobody_passes_on_a_right_that_is_not_theirs(desk: Desk) -> None:
    _, approval = await desk.ask(roles=["owner"])
    nobody = replace(desk.shop.who, user_id=None)
    for who, error in ((desk.people["operator"], NotYoursToApprove), (nobody, NotYoursToApprove)):
        with pytest.raises(error):
            await desk.link(approval, who)
    _, approval = await desk.ask()
    with pytest.raises(Forbidden):
        await desk.link(approval, desk.people["viewer"])
    # Four eyes: not even by a link of one's own.
    desk.shop.who = replace(desk.shop.who, user_id="usr_owner")
    _, approval = await desk.ask(four_eyes=True)
    with pytest.raises(NotYoursToApprove):
        await desk.link(approval)
    await desk.link(approval, desk.people["operator"])


@pytest.mark.parametrize("gone", ["disabled", "demoted", "removed"])
async def test_a_link_ends_with_its_makers_right(desk: Desk, gone: str) -> None:
    _, approval = await desk.ask()
    token = (await desk.link(approval)).partition("?token=")[2]

    def change(session: Any) -> None:
        member = session.get(MembershipRow, ("prj_a", "usr_owner"))
        if gone == "disabled":
            session.get(UserRow, "usr_owner").disabled_at = desk.clock.at
        elif gone == "demoted":
            member.role = "viewer"
        else:
            session.delete(member)

    await desk.database.write(change)
    with pytest.raises((ApprovalLinkInvalid, NotYoursToApprove, Forbidden)):
        await desk.links.decide(token, "approved")
    if gone != "demoted":
        with pytest.raises(ApprovalLinkInvalid):
            await desk.links.show(token)
    assert (await desk.shop.approvals.get(desk.owner, approval.id)).status == "pending"
