"""Background work of this slice: the step `llm.respond`."""

from __future__ import annotations

from typing import Any

from nexus.llm.errors import UnknownResponse
from nexus.llm.responses.background import RESPOND
from nexus.llm.responses.service import ResponsesService
from nexus.runs.types import Handler, StepContext


async def respond(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
    """Answer `{"response_id": id}`, a response that was asked for in the background; the output has its status."""
    response_id = inputs.get("response_id")
    if not isinstance(response_id, str):
        raise UnknownResponse(field="response_id")
    service = context.services.get(ResponsesService)
    status = await service.background.respond(
        context.principal, response_id, run_id=context.run_id, step_key=context.step_key
    )
    return {"response_id": response_id, "status": status}


HANDLERS: dict[str, Handler] = {RESPOND: respond}
