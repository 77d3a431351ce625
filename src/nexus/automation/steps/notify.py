"""Tell people through a channel of the project.

    - key: tell
      uses: notify
      with: {channel: ops, title: "{{ inputs.what }} is done", details: {rows: "{{ steps.load.output.rows }}"}}
      retries: {max: 5}

Channels are made at `/api/v1/channels`. Every attempt is the same delivery: one that has arrived is not sent again.
Secrets are told but not kept: the log of deliveries, and what is sent again from it, has `***` for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from nexus.automation.channel_service import ChannelService
from nexus.automation.step import StepModel
from nexus.runs.types import StepContext


class NotifyInputs(StepModel):
    """Whom to tell what."""

    channel: str = Field(min_length=1, max_length=63, description="Name or id of a channel")
    title: str = Field(min_length=1, max_length=500)
    text: str = Field("", max_length=20_000)
    severity: Literal["info", "warning", "error", "critical"] = "info"
    details: dict[str, Any] = Field(default_factory=dict, max_length=50)


class NotifyOutputs(StepModel):
    """That it was told. `status` is that of the answer."""

    delivery_id: str
    status: int | None


class Notify:
    """The step `notify`."""

    uses = "notify"
    summary = "Tell people by e-mail, webhook, Slack, Teams, Discord or PagerDuty."
    queue = "default"
    Inputs = NotifyInputs
    Outputs = NotifyOutputs

    async def run(self, context: StepContext, inputs: NotifyInputs) -> NotifyOutputs:
        """Send the notice."""
        channels = context.services.get(ChannelService)
        once = f"step:{context.idempotency_key}:{context.round}"
        page = f"/runs/{context.run_id}"
        notice = channels.notice(
            "notice", context.run_id, inputs.severity, inputs.title, inputs.text, inputs.details, page
        )
        hidden = {"title": context.hide(inputs.title), "text": context.hide(inputs.text)}
        kept = replace(notice, **hidden, details=context.hide(inputs.details))
        row = await channels.tell(
            context.project_id, inputs.channel, notice, once=once, run_id=context.run_id, kept=kept
        )
        context.log(f"told {inputs.channel}")
        return NotifyOutputs(delivery_id=row.id, status=row.answer_status)


plug = Notify()
