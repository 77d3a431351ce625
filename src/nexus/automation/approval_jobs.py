"""The step of the runs that tell channels what is asked.

The link by which whoever reads a channel answers is made when the notice goes out, and kept nowhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from nexus.automation.approval_links import ApprovalLinks
from nexus.automation.approval_notices import NOTIFY
from nexus.automation.approvals import Approval, ApprovalService
from nexus.automation.channel_service import ChannelService
from nexus.automation.errors import ApprovalDecided, NotYoursToApprove
from nexus.core.clock import rfc3339
from nexus.runs.types import Handlers, StepContext

_TITLE: Final = 300


async def notify(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
    """Tell the channel `channel_id` of the question `approval_id`, unless that is over."""
    channel_id, channels = str(inputs["channel_id"]), context.services.get(ChannelService)
    approval = await context.services.get(ApprovalService).get(context.principal, str(inputs["approval_id"]))
    try:
        link = await context.services.get(ApprovalLinks).of_channel(context.project_id, channel_id, approval.id)
    except NotYoursToApprove:
        link = None
    except ApprovalDecided:
        context.log("the question is over, nobody is told")
        return {"status": None}
    title = approval.message.strip().partition("\n")[0][:_TITLE]
    text = "" if title == approval.message.strip() else approval.message
    details = _details(approval)
    kept = channels.notice("approval.requested", approval.id, "info", title, text, details, "/approvals")
    if kept.link is None:
        context.log("the notice has no link, as NEXUS_PUBLIC_URL is not set", "warning")
        link = None
    notice = replace(kept, link=link.url) if link else kept
    once = f"approval:{approval.id}:{channel_id}"
    row = await channels.tell(context.project_id, channel_id, notice, once=once, run_id=context.run_id, kept=kept)
    return {"status": row.answer_status}


def _details(approval: Approval) -> dict[str, Any]:
    data = approval.data if isinstance(approval.data, dict) else {"data": approval.data}
    return {**data, "run": approval.run_id, "step": approval.step_key, "until": rfc3339(approval.expires_at)}


HANDLERS: Handlers = {NOTIFY: notify}
