"""`/api/v1/approvals`: what steps ask people, and their answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from nexus.access.guard import caller, requires
from nexus.access.types import Principal, Scope
from nexus.automation.approval_links import ApprovalLinks
from nexus.automation.approvals import ApprovalService, ApprovalStatus
from nexus.automation.schemas import ApprovalOut, Decision, LinkIn, LinkOut, approval_out
from nexus.core.clock import rfc3339
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of

router = APIRouter(prefix="/approvals", tags=["automation"])

Approvals = Annotated[ApprovalService, service(ApprovalService)]
Reader = Annotated[Principal, requires(Scope.AUTOMATION_READ)]
Links = Annotated[ApprovalLinks, service(ApprovalLinks)]
# Who may decide depends on the approval: the service looks.
Anybody = Annotated[Principal, caller()]


@router.get("", operation_id="approvals.list", summary="List approvals")
async def list_approvals(
    page: Paged,
    who: Reader,
    approvals: Approvals,
    status: ApprovalStatus | None = None,
    run_id: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """Questions of the project, the newest first; `status=pending` are those that wait for an answer."""
    rows = await approvals.list(
        who, status=status, run_id=run_id, after=page.after_id, limit=page.fetch, descending=page.descending
    )
    return page_of(rows, page, render=approval_out)


@router.get("/{approval_id}", operation_id="approvals.get", summary="Show an approval")
async def get_approval(approval_id: str, who: Reader, approvals: Approvals) -> ApprovalOut:
    """One question and, once there is one, its answer."""
    return approval_out(await approvals.get(who, approval_id))


@router.post("/{approval_id}/approve", operation_id="approvals.approve", summary="Approve")
async def approve(approval_id: str, who: Anybody, approvals: Approvals, body: Decision | None = None) -> ApprovalOut:
    """Let the step go on. Only those whom the approval names may, or all with `automation:approve` if it names none."""
    return approval_out(await approvals.decide(who, approval_id, "approved", (body or Decision()).comment))


@router.post("/{approval_id}/reject", operation_id="approvals.reject", summary="Reject")
async def reject(approval_id: str, who: Anybody, approvals: Approvals, body: Decision | None = None) -> ApprovalOut:
    """Say no: the step fails, or goes on with `approved: false`, as its definition wants."""
    return approval_out(await approvals.decide(who, approval_id, "rejected", (body or Decision()).comment))


@router.post("/{approval_id}/link", status_code=201, operation_id="approvals.link", summary="Make a link that answers")
async def make_link(approval_id: str, who: Anybody, links: Links, body: LinkIn | None = None) -> LinkOut:
    """A link by which whoever has it answers once, in the caller's name; opening it decides nothing."""
    link = await links.make(who, approval_id, seconds=(body or LinkIn()).expires)
    return LinkOut(url=link.url, expires_at=rfc3339(link.expires_at) or "")
