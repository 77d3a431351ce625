"""Questions that steps ask people: asked once for each step and round, decided once.

The step waits without a worker. The decision and the waking of the step are one transaction, so an answer is
neither lost nor counted twice, whatever dies when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus.access.storage import role_of, user
from nexus.access.types import Principal, Scope
from nexus.automation.approval_notices import announcing
from nexus.automation.errors import ApprovalDecided, ApprovalNotFound, NotYoursToApprove
from nexus.automation.tables import ApprovalRow
from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.runs.service import RunService
from nexus.runs.tables import RunRow, StepRow
from nexus.runs.types import StepContext, StepStatus
from nexus.runs.waking import wake_step
from nexus.storage.db import Database
from nexus.storage.events import publish

Verdict = Literal["approved", "rejected"]
ApprovalStatus = Literal["pending", "approved", "rejected", "expired", "cancelled"]
_REPUBLISH: Final = 60.0
_OPEN: Final = (StepStatus.RUNNING, StepStatus.WAITING, StepStatus.READY)


@dataclass(frozen=True, slots=True)
class Approval:
    """A question and, once there is one, its answer."""

    id: str
    run_id: str
    step_key: str
    map_index: int | None
    status: ApprovalStatus
    message: str
    data: Any
    roles: list[str]
    users: list[str]
    four_eyes: bool
    requested_at: datetime
    expires_at: datetime | None
    decided_at: datetime | None
    decided_by: str | None
    comment: str | None


class ApprovalService:
    """Asks, lists and decides."""

    def __init__(self, *, database: Database, runs: RunService, clock: Clock) -> None:
        """Keep questions in `database`, wake steps through it, ring the engines of `runs`."""
        self._database, self._runs, self._clock = database, runs, clock

    async def ask(
        self,
        context: StepContext,
        message: str,
        *,
        data: Any = None,
        roles: Sequence[str] = (),
        users: Sequence[str] = (),
        four_eyes: bool = False,
        expires: float | None = None,
        notify: Sequence[str] = (),
    ) -> Approval:
        """Return the question of this step and round, asking it when it has not been; how it stands by now.

        The channels of `notify` are told when it is asked. Raises `ChannelNotFound`.
        """
        now, message, data = self._clock.now(), context.hide(message), context.hide(data)

        def find_or_ask(session: Session) -> Approval:
            asked = select(ApprovalRow).where(
                ApprovalRow.step_id == context.step_id, ApprovalRow.round == context.round
            )
            row = session.scalars(asked).one_or_none()
            if row is None:
                row = ApprovalRow(
                    id=new_id("apr"),
                    project_id=context.project_id,
                    run_id=context.run_id,
                    step_id=context.step_id,
                    step_key=context.step_key,
                    map_index=context.map_index,
                    round=context.round,
                    status="pending",
                    message=message,
                    data=[data],
                    roles=list(roles),
                    users=list(users),
                    four_eyes=four_eyes,
                    requested_at=now,
                    expires_at=None if expires is None else now + timedelta(seconds=expires),
                )
                session.add(row)
                session.flush()
                _tell(session, row, "approval.requested", now)
                if notify:
                    self._runs.start_in(session, context.principal, announcing(session, context, row.id, notify))
            elif row.status == "pending" and row.expires_at is not None and now >= row.expires_at:
                _decide(session, row, "expired", now)
            return _approval(row)

        approval = await self._database.write(find_or_ask)
        if notify:
            self._runs.ring()
        return approval

    async def list(
        self,
        principal: Principal,
        *,
        status: ApprovalStatus | None = None,
        run_id: str | None = None,
        after: str | None = None,
        limit: int = 20,
        descending: bool = True,
    ) -> Sequence[Approval]:
        """Return up to `limit` questions of the project, beyond the one with the id `after`."""

        def read(session: Session) -> list[Approval]:
            query = _with_step().where(ApprovalRow.project_id == principal.project_id)
            if run_id is not None:
                query = query.where(ApprovalRow.run_id == run_id)
            if after is not None:
                query = query.where(ApprovalRow.id < after if descending else ApprovalRow.id > after)
            waits = StepRow.status.in_(_OPEN)
            if status == "pending":
                query = query.where(ApprovalRow.status == "pending", waits)
            elif status == "cancelled":
                query = query.where(ApprovalRow.status == "pending", waits.is_not(True))
            elif status is not None:
                query = query.where(ApprovalRow.status == status)
            order = ApprovalRow.id.desc() if descending else ApprovalRow.id.asc()
            return [_approval(row, step) for row, step in session.execute(query.order_by(order).limit(limit))]

        return await self._database.read(read)

    async def get(self, principal: Principal, approval_id: str) -> Approval:
        """Return a question of the project. Raises `ApprovalNotFound`."""
        row, step = await self._database.read(_find, principal.project_id, approval_id)
        return _approval(row, step)

    async def answerable(self, principal: Principal, approval_id: str) -> Approval:
        """Return a question that the principal may answer now. Raises as `decide` does."""

        def look(session: Session) -> Approval:
            row, step = _find(session, principal.project_id, approval_id)
            _check_who(session, principal, row)
            approval = _approval(row, step)
            if approval.status != "pending" or (row.expires_at is not None and self._clock.now() >= row.expires_at):
                raise ApprovalDecided
            return approval

        return await self._database.read(look)

    async def decide(
        self, principal: Principal, approval_id: str, verdict: Verdict, comment: str | None = None
    ) -> Approval:
        """Answer a question and let its step go on.

        Who may: the users and the roles it names, or, where it names none, whoever has the scope
        `automation:approve`; with `four_eyes` nobody who started the run. Deciding again in the same way changes
        nothing. Raises `ApprovalNotFound`, `NotYoursToApprove`, `ApprovalDecided`.
        """
        now = self._clock.now()

        def answer(session: Session) -> Approval:
            _find(session, principal.project_id, approval_id)
            row = session.get_one(ApprovalRow, approval_id, with_for_update=True, populate_existing=True)
            _check_who(session, principal, row)
            if row.status == verdict and row.decided_by == principal.id:
                return _approval(row)
            if row.status != "pending" or (row.expires_at is not None and now >= row.expires_at):
                raise ApprovalDecided
            signal = {"approval_id": row.id, "verdict": verdict}
            if not wake_step(session, row.run_id, row.step_id, now, _REPUBLISH, signal):
                raise ApprovalDecided("Nobody waits for this approval any more.")
            row.decided_by, row.comment = principal.id, comment
            _decide(session, row, verdict, now)
            return _approval(row)

        approval = await self._database.write(answer)
        self._runs.ring()
        return approval


def _decide(session: Session, row: ApprovalRow, status: ApprovalStatus, now: datetime) -> None:
    row.status, row.decided_at = status, now
    session.flush()
    _tell(session, row, "approval.decided", now)


def _tell(session: Session, row: ApprovalRow, type_: str, now: datetime) -> None:
    data = {
        "approval_id": row.id,
        "run_id": row.run_id,
        "step": row.step_key,
        "status": row.status,
        "message": row.message,
        "roles": row.roles,
        "users": row.users,
    }
    publish(session, type_, row.project_id, data, at=now, subject=row.id)


def _check_who(session: Session, principal: Principal, row: ApprovalRow) -> None:
    if row.four_eyes:
        _check_other(session, principal, row)
    if principal.may(Scope.ADMIN):
        return
    if not row.roles and not row.users:
        principal.require(Scope.AUTOMATION_APPROVE)
        return
    account = None if principal.user_id is None else user(session, principal.user_id)
    if account is not None and {account.id, account.email} & set(row.users):
        return
    role = None if account is None else role_of(session, row.project_id, account.id)
    if role is None or role.value not in row.roles or not principal.may(Scope.AUTOMATION_APPROVE):
        raise NotYoursToApprove


def _check_other(session: Session, principal: Principal, row: ApprovalRow) -> None:
    """Raise `NotYoursToApprove` unless it is known that another person asks than who started the run."""
    if principal.user_id is None:
        raise NotYoursToApprove("Another person has to decide; this key belongs to nobody in particular.")
    starter = session.execute(select(RunRow.starter).where(RunRow.id == row.run_id)).scalar_one_or_none()
    if starter is None or starter["user_id"] == principal.user_id:
        raise NotYoursToApprove("Another person has to decide than the one who started the run.")


def _with_step() -> Any:
    return select(ApprovalRow, StepRow.status).outerjoin(StepRow, StepRow.id == ApprovalRow.step_id)


def _find(session: Session, project_id: str, approval_id: str) -> tuple[ApprovalRow, str | None]:
    named = _with_step().where(ApprovalRow.id == approval_id, ApprovalRow.project_id == project_id)
    found = session.execute(named).one_or_none()
    if found is None:
        raise ApprovalNotFound
    return found[0], found[1]


def _approval(row: ApprovalRow, step: str | None = StepStatus.WAITING) -> Approval:
    gone = row.status == "pending" and step not in _OPEN
    return Approval(
        id=row.id,
        run_id=row.run_id,
        step_key=row.step_key,
        map_index=row.map_index,
        status="cancelled" if gone else row.status,  # type: ignore[arg-type]  # written by this file only
        message=row.message,
        data=row.data[0] if row.data else None,
        roles=row.roles,
        users=row.users,
        four_eyes=row.four_eyes,
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        decided_at=row.decided_at,
        decided_by=row.decided_by,
        comment=row.comment,
    )
