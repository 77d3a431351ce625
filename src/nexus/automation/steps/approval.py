"""Ask people, and go on when they agree.

    - key: ask
      uses: approval
      with: {message: "Pay {{ inputs.amount }} to {{ inputs.to }}?", roles: [owner, operator], expires: 86400}

Asked at /api/v1/approvals; the answer goes to `POST /api/v1/approvals/{id}/approve` or `/reject`. The channels of
`notify`, one or a list, are told, with a link by which whoever reads them answers; where only certain people may
(`roles`, `users`, `four_eyes`), it leads to the dashboard instead.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nexus.automation.approvals import Approval, ApprovalService
from nexus.automation.errors import ApprovalExpired, ApprovalRejected
from nexus.automation.step import StepModel
from nexus.core.clock import rfc3339
from nexus.runs.types import Parked, StepContext

RoleName = Literal["owner", "admin", "developer", "operator", "viewer"]
Name = Annotated[str, Field(min_length=1, max_length=63)]


class ApprovalInputs(StepModel):
    """The question, who may answer (all who have the scope `automation:approve` unless named), and until when."""

    message: str = Field(min_length=1, max_length=10_000)
    data: Any = Field(None, description="What people should see beside the question")
    roles: list[RoleName] = Field(
        default_factory=list, max_length=5, description="Roles of the project that may answer"
    )
    users: list[str] = Field(default_factory=list, max_length=100, description="Ids or addresses of those who may")
    four_eyes: bool = Field(
        False, description="Somebody else has to answer than the person who started the run, by whatever key"
    )
    notify: Name | Annotated[list[Name], Field(max_length=10)] = Field(
        default_factory=list, description="Channels to tell, by name or id: who reads them may answer by a link"
    )
    expires: float | None = Field(None, gt=0, le=366 * 86_400, description="Seconds to wait for an answer")
    on_reject: Literal["fail", "continue"] = Field("fail", description="continue: go on with approved = false")
    on_expiry: Literal["fail", "reject", "approve"] = Field("fail", description="What no answer in time means")

    @model_validator(mode="after")
    def _somebody_looks(self) -> ApprovalInputs:
        if self.four_eyes and self.on_expiry == "approve":
            raise ValueError("four_eyes does not go with on_expiry: approve, which is nobody's answer")
        return self


class ApprovalOutputs(StepModel):
    """The answer. `by` is who gave it, null when nobody did in time."""

    approved: bool
    status: Literal["approved", "rejected", "expired"]
    by: str | None
    comment: str | None
    at: str | None


class ApprovalStep:
    """The step `approval`."""

    uses = "approval"
    summary = "Ask people, and go on when they agree."
    queue = "default"
    Inputs = ApprovalInputs
    Outputs = ApprovalOutputs

    async def run(self, context: StepContext, inputs: ApprovalInputs) -> ApprovalOutputs:
        """Ask, or look for the answer."""
        approval = await context.services.get(ApprovalService).ask(
            context,
            inputs.message,
            data=inputs.data,
            roles=inputs.roles,
            users=inputs.users,
            four_eyes=inputs.four_eyes,
            notify=[inputs.notify] if isinstance(inputs.notify, str) else inputs.notify,
            expires=inputs.expires,
        )
        if approval.status == "pending":
            context.log(f"waits for {approval.id}")
            raise Parked(until=approval.expires_at, state={"approval_id": approval.id})
        return _answer(approval, inputs)


def _answer(approval: Approval, inputs: ApprovalInputs) -> ApprovalOutputs:
    verdict = approval.status
    if verdict == "expired":
        if inputs.on_expiry == "fail":
            raise ApprovalExpired
        verdict = "approved" if inputs.on_expiry == "approve" else "rejected"
    if verdict == "rejected" and inputs.on_reject == "fail":
        said = f": {approval.comment}" if approval.comment else "."
        raise ApprovalRejected(f"The approval was rejected by {approval.decided_by or 'nobody in time'}{said}")
    return ApprovalOutputs(
        approved=verdict == "approved",
        status="expired" if approval.status == "expired" else "approved" if verdict == "approved" else "rejected",
        by=approval.decided_by,
        comment=approval.comment,
        at=rfc3339(approval.decided_at),
    )


plug = ApprovalStep()
