"""Approvals: who may, how often, and what comes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.automation.conftest import Shop
from tests.automation.test_flows import say, statuses

from nexus.access.tables import MembershipRow, ProjectRow, UserRow
from nexus.access.types import Principal, Scope
from nexus.automation.approvals import Approval
from nexus.automation.errors import ApprovalDecided, ApprovalNotFound, NotYoursToApprove, WorkflowInvalid
from nexus.core.errors import Forbidden
from nexus.runs.types import Run, RunStatus
from nexus.storage.db import Database

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def flow(**more: Any) -> dict[str, Any]:
    ask = {"key": "ask", "uses": "approval", "with": {"message": "Pay {{ inputs.amount }}?", **more}}
    after = say("after", "{{ steps.ask.output.approved }} by {{ steps.ask.output.by }}")
    return {"inputs": {"amount": {"default": 5}}, "steps": [ask, after]}


async def asked(shop: Shop, run: Run, count: int = 1) -> list[Approval]:
    async with asyncio.timeout(60):
        while True:
            found = await shop.approvals.list(shop.who, run_id=run.id)
            if len(found) >= count and (await shop.runs.get(shop.who, run.id)).status is RunStatus.WAITING:
                return list(found)
            await asyncio.sleep(0.02)


async def test_approve(shop: Shop) -> None:
    run = await shop.start(flow(data={"to": "shop"}))
    (approval,) = await asked(shop, run)
    assert (approval.status, approval.message, approval.data) == ("pending", "Pay 5?", {"to": "shop"})
    decided = await shop.approvals.decide(shop.who, approval.id, "approved", "fine")
    assert (decided.status, decided.decided_by, decided.comment) == ("approved", "key_a", "fine")
    run = await shop.wait(run)
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert run.steps[0].output["comment"] == "fine"
    again = await shop.approvals.decide(shop.who, approval.id, "approved")
    assert again.comment == "fine", "saying the same again changes nothing"
    with pytest.raises(ApprovalDecided):
        await shop.approvals.decide(shop.who, approval.id, "rejected")
    assert not await shop.approvals.list(shop.who, status="pending")


async def test_reject_fails_the_run_and_a_retry_asks_again(shop: Shop) -> None:
    run = await shop.start(flow())
    (approval,) = await asked(shop, run)
    await shop.approvals.decide(shop.who, approval.id, "rejected", "too much")
    run = await shop.wait(run)
    assert run.error is not None
    assert (run.error.code, run.error.message) == ("approval_rejected", "The approval was rejected by key_a: too much")
    await shop.runs.retry(shop.who, run.id)
    newest = (await asked(shop, run, 2))[0]
    await shop.approvals.decide(shop.who, newest.id, "approved")
    assert (await shop.wait(run)).status is RunStatus.SUCCEEDED


async def test_reject_may_be_an_answer_like_another(shop: Shop) -> None:
    run = await shop.start(flow(on_reject="continue"))
    (approval,) = await asked(shop, run)
    await shop.approvals.decide(shop.who, approval.id, "rejected")
    run = await shop.wait(run)
    assert (run.status, run.steps[0].output["approved"]) == (RunStatus.SUCCEEDED, False)


@pytest.mark.parametrize(
    ("on_expiry", "status", "code"),
    [("fail", "failed", "approval_expired"), ("reject", "failed", "approval_rejected"), ("approve", "succeeded", None)],
)
async def test_no_answer_in_time(shop: Shop, on_expiry: str, status: str, code: str | None) -> None:
    run = await shop.run(flow(expires=0.2, on_expiry=on_expiry))
    assert (run.status.value, run.error and run.error.code) == (status, code)
    (approval,) = await shop.approvals.list(shop.who, run_id=run.id)
    assert approval.status == "expired"
    with pytest.raises(ApprovalDecided):
        await shop.approvals.decide(shop.who, approval.id, "approved")


async def test_nobody_can_answer_for_a_run_that_was_cancelled(shop: Shop) -> None:
    run = await shop.start(flow())
    (approval,) = await asked(shop, run)
    await shop.runs.cancel(shop.who, run.id)
    await shop.wait(run)
    with pytest.raises(ApprovalDecided):
        await shop.approvals.decide(shop.who, approval.id, "approved")
    assert (await shop.approvals.get(shop.who, approval.id)).status == "cancelled"
    assert [one.id for one in await shop.approvals.list(shop.who, status="cancelled")] == [approval.id]
    assert not await shop.approvals.list(shop.who, status="pending")


async def test_resume_is_no_way_around_an_approval(shop: Shop) -> None:
    run = await shop.start(flow())
    await asked(shop, run)
    await shop.runs.resume(shop.who, run.id)
    await asyncio.sleep(0.3)
    while (status := statuses(await shop.runs.get(shop.who, run.id))["ask"]) in ("ready", "running"):
        await asyncio.sleep(0.02)
    assert status == "waiting"


async def test_of_many_answers_one_counts(shop: Shop) -> None:
    run = await shop.start(flow())
    (approval,) = await asked(shop, run)
    people = [replace(shop.who, id=f"key_{n}") for n in range(20)]
    verdicts = ["approved", "rejected"]
    answers = await asyncio.gather(
        *(
            shop.approvals.decide(who, approval.id, verdicts[n % 2])  # type: ignore[arg-type]
            for n, who in enumerate(people)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Approval) for answer in answers) == 1
    assert sum(isinstance(answer, ApprovalDecided) for answer in answers) == 19
    run = await shop.wait(run)
    winner = next(answer for answer in answers if isinstance(answer, Approval))
    assert (run.status is RunStatus.SUCCEEDED) == (winner.status == "approved")


@pytest.fixture
def people(database: Database) -> dict[str, Principal]:
    """A viewer, an operator and the owner of the project, as they sign in."""

    def make(session: Any) -> dict[str, Principal]:
        session.add(ProjectRow(id="prj_a", name="a", created_at=NOW))
        made = {}
        for role in ("viewer", "operator", "owner"):
            session.add(
                UserRow(
                    id=f"usr_{role}", email=f"{role}@x", name=role, password_hash="", superadmin=False, created_at=NOW
                )
            )
            session.flush()
            session.add(MembershipRow(project_id="prj_a", user_id=f"usr_{role}", role=role, created_at=NOW))
            scopes = {Scope.AUTOMATION_READ} | ({Scope.AUTOMATION_APPROVE} if role != "viewer" else set())
            made[role] = Principal("session", f"usr_{role}", "prj_a", frozenset(scopes), user_id=f"usr_{role}")
        return made

    return database.write_now(make)


@pytest.mark.parametrize(
    ("named", "allowed"),
    [
        ({}, {"operator", "owner"}),
        ({"roles": ["owner"]}, {"owner"}),
        ({"roles": ["operator"]}, {"operator"}),
        ({"users": ["viewer@x"]}, {"viewer"}),
        ({"users": ["usr_viewer"], "roles": ["owner"]}, {"viewer", "owner"}),
    ],
)
async def test_who_may_answer(
    shop: Shop, people: dict[str, Principal], named: dict[str, Any], allowed: set[str]
) -> None:
    may = set()
    for role, person in people.items():
        run = await shop.start(flow(**named))
        (approval,) = await asked(shop, run)
        try:
            await shop.approvals.decide(person, approval.id, "approved")
            may.add(role)
        except (NotYoursToApprove, Forbidden):
            pass
    assert may == allowed


@pytest.mark.parametrize(
    ("starter", "decider", "allowed"),
    [
        ("owner", "owner", False),
        ("owner", "operator", True),
        ("owner's key", "owner", False),
        ("owner", "owner's key", False),
        ("owner's key", "owner's other key", False),
        ("owner's key", "operator's key", True),
        ("nobody's key", "owner", True),
        ("owner", "nobody's key", False),
        ("nobody's key", "nobody's other key", False),
        ("operator", "admin", True),
        ("admin", "admin", False),
    ],
)
async def test_four_eyes(shop: Shop, people: dict[str, Principal], starter: str, decider: str, allowed: bool) -> None:
    def who(name: str) -> Principal:
        person, _, key = name.partition("'s ")
        if not key:
            scopes = frozenset(Scope) if person == "admin" else shop.who.scopes
            return Principal("session", f"usr_{person}", "prj_a", scopes, user_id=f"usr_{person}")
        user_id = None if person == "nobody" else f"usr_{person}"
        return replace(shop.who, id=f"key_{key}", key_id=f"key_{key}", user_id=user_id)

    shop.who = who(starter)
    run = await shop.start(flow(four_eyes=True))
    (approval,) = await asked(shop, run)
    assert approval.four_eyes
    if allowed:
        await shop.approvals.decide(who(decider), approval.id, "approved")
        assert (await shop.wait(run)).status is RunStatus.SUCCEEDED
        return
    for verdict in ("approved", "rejected"):
        with pytest.raises(NotYoursToApprove) as refused:
            await shop.approvals.decide(who(decider), approval.id, verdict)  # type: ignore[arg-type]
        assert (refused.value.status, refused.value.code) == (403, "approval_not_yours")
    assert (await shop.approvals.get(shop.who, approval.id)).status == "pending"


async def test_four_eyes_and_no_answer_is_no_approval(shop: Shop) -> None:
    with pytest.raises(WorkflowInvalid, match="four_eyes"):
        await shop.start(flow(message="Pay?", four_eyes=True, on_expiry="approve"))


async def test_another_project_sees_nothing(shop: Shop) -> None:
    run = await shop.start(flow())
    (approval,) = await asked(shop, run)
    other = replace(shop.who, project_id="prj_b")
    assert not await shop.approvals.list(other)
    for call in (shop.approvals.get(other, approval.id), shop.approvals.decide(other, approval.id, "approved")):
        with pytest.raises(ApprovalNotFound):
            await call


async def test_waits(shop: Shop) -> None:
    steps = [
        {"key": "short", "uses": "wait", "with": {"seconds": 0.2}},
        {"key": "past", "uses": "wait", "with": {"until": "2020-01-01T00:00:00Z"}},
        {"key": "paid", "uses": "wait", "with": {"signal": True}},
        {"key": "late", "uses": "wait", "with": {"signal": True, "seconds": 0.2}},
    ]
    run = await shop.start({"steps": steps})
    async with asyncio.timeout(60):
        while statuses(await shop.runs.get(shop.who, run.id))["late"] != "succeeded":
            await asyncio.sleep(0.05)
    await shop.runs.signal(shop.who, run.id, "paid", {"amount": 5})
    run = await shop.wait(run)
    outputs = {step.key: step.output for step in run.steps}
    assert outputs["paid"]["signal"] == {"amount": 5}
    assert [outputs[key]["signalled"] for key in ("short", "past", "paid", "late")] == [False, False, True, False]
