"""Links that answer an approval without signing in: signed, for one approval, until a time, used once.

A link carries the right of the person who made it to answer this one question, and nothing else: whether that
person may is looked up when it is used, so it ends with the person's role. Those told to a channel answer in the
channel's name, where the question is not for certain people. Opening a link shows the question; only sending the
form that it shows decides (mail scanners and previews open links).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy.orm import Session

from nexus.access.roles import scopes_of
from nexus.access.storage import role_of, user
from nexus.access.types import Principal, Scope
from nexus.automation import channel_storage
from nexus.automation.approvals import Approval, ApprovalService, Verdict
from nexus.automation.errors import ApprovalDecided, ApprovalLinkInvalid, ApprovalNotFound, NotYoursToApprove
from nexus.core.clock import Clock
from nexus.core.ids import is_id
from nexus.core.secrets import Keyring
from nexus.storage.db import Database

PATH: Final = "/hooks/approvals"
_USE: Final = "approval link"
_LONGEST: Final = 1_000
_CHANNEL_SECONDS: Final = 30 * 86_400.0


class _Claim(msgspec.Struct, array_like=True):
    approval_id: str
    project_id: str
    whose: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Link:
    """A link and its end. `url` is a path where the installation does not know its own address."""

    url: str
    expires_at: datetime


class ApprovalLinks:
    """Makes links and takes the answers that come by them."""

    def __init__(
        self,
        *,
        approvals: ApprovalService,
        database: Database,
        keyring: Keyring,
        clock: Clock,
        public_url: str | None = None,
    ) -> None:
        """Sign with `keyring`; links lead to `public_url`."""
        self._approvals, self._database, self._keyring, self._clock = approvals, database, keyring, clock
        self._base = (public_url or "").rstrip("/")

    async def make(self, principal: Principal, approval_id: str, *, seconds: float) -> Link:
        """Return a link by which whoever has it answers in the name of the caller.

        It ends with the question, at the latest. Raises `ApprovalNotFound`, `ApprovalDecided`, and
        `NotYoursToApprove` for those who may not answer themselves or are nobody in particular.
        """
        if principal.user_id is None:
            raise NotYoursToApprove("A link answers in the name of a person; this key belongs to nobody in particular.")
        return await self._make(principal, principal.user_id, approval_id, seconds)

    async def of_channel(self, project_id: str, channel_id: str, approval_id: str) -> Link:
        """Return a link by which whoever reads a channel answers in its name, good for 30 days at the most.

        Raises `ApprovalNotFound`, `ApprovalDecided`, and `NotYoursToApprove` where the question is for certain people.
        """
        return await self._make(_reader(project_id, channel_id), channel_id, approval_id, _CHANNEL_SECONDS)

    async def _make(self, principal: Principal, whose: str, approval_id: str, seconds: float) -> Link:
        approval = await self._approvals.answerable(principal, approval_id)
        ends = self._clock.now() + timedelta(seconds=seconds)
        ends = ends if approval.expires_at is None else min(ends, approval.expires_at)
        claim = _Claim(approval.id, principal.project_id, whose, int(ends.timestamp()))
        packed = msgspec.json.encode(claim)
        token = f"{_text(packed)}.{_text(self._keyring.sign(_USE, packed))}"
        return Link(f"{self._base}{PATH}?token={token}", datetime.fromtimestamp(claim.expires_at, UTC))

    async def show(self, token: str) -> Approval:
        """Return the question of a link, and change nothing. Raises `ApprovalLinkInvalid`."""
        return (await self._open(token))[1]

    async def decide(self, token: str, verdict: Verdict, comment: str | None = None) -> Approval:
        """Answer by a link, once. Raises `ApprovalLinkInvalid`, `ApprovalDecided`, `NotYoursToApprove`."""
        holder, approval = await self._open(token)
        if approval.status != "pending":
            raise ApprovalDecided
        return await self._approvals.decide(holder, approval.id, verdict, comment)

    async def _open(self, token: str) -> tuple[Principal, Approval]:
        claim = self._claim(token)
        holder = await self._database.read(_holder, claim)
        try:
            return holder, await self._approvals.get(holder, claim.approval_id)
        except ApprovalNotFound:
            raise ApprovalLinkInvalid from None

    def _claim(self, token: str) -> _Claim:
        packed, dot, signature = token[:_LONGEST].partition(".")
        try:
            raw, signed = _bytes(packed), _bytes(signature)
            if not dot or not hmac.compare_digest(self._keyring.sign(_USE, raw), signed):
                raise ApprovalLinkInvalid
            claim = msgspec.json.decode(raw, type=_Claim)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise ApprovalLinkInvalid from None
        if claim.expires_at <= self._clock.now().timestamp():
            raise ApprovalLinkInvalid
        return claim


def _holder(session: Session, claim: _Claim) -> Principal:
    """Return the channel or the person whose right a link carries, as far as it goes by now."""
    if is_id(claim.whose, "chn"):
        channel = channel_storage.get(session, claim.project_id, claim.whose)
        if channel is None or not channel.enabled:
            raise ApprovalLinkInvalid
        return _reader(claim.project_id, channel.id)
    account = user(session, claim.whose)
    if account is None or account.disabled_at is not None:
        raise ApprovalLinkInvalid
    role = role_of(session, claim.project_id, account.id)
    if role is None and not account.superadmin:
        raise ApprovalLinkInvalid
    rights = scopes_of(role, superadmin=account.superadmin) & {Scope.AUTOMATION_APPROVE}
    return Principal("session", account.id, claim.project_id, rights, user_id=account.id)


def _reader(project_id: str, channel_id: str) -> Principal:
    return Principal("system", channel_id, project_id, frozenset({Scope.AUTOMATION_APPROVE}))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
