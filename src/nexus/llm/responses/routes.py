"""What may be done with a response after its call: read it, read its input, cancel it, delete it.

Source: https://platform.openai.com/docs/api-reference/responses/get and below.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response, StreamingResponse

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.llm.responses.service import ResponsesService

router = APIRouter(tags=["language"])

Asking = Annotated[Principal, requires(Scope.LLM_INVOKE)]
Store = Annotated[ResponsesService, service(ResponsesService)]
Named = Annotated[str, Path(max_length=128)]
_NO_STORE = {"cache-control": "no-store"}


@router.get("/v1/responses/{response_id}", operation_id="responses.get", response_class=Response)
async def get_response(
    response_id: Named,
    who: Asking,
    store: Store,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
) -> Response:
    """Show a response of the project, or stream its events with `stream=true`."""
    row = await store.get(who, response_id)
    if not stream:
        return Response(row.body, media_type="application/json", headers=_NO_STORE)
    events = store.stream(who, response_id, starting_after)
    return StreamingResponse(events, media_type="text/event-stream", headers=_NO_STORE | {"x-accel-buffering": "no"})


@router.delete("/v1/responses/{response_id}", operation_id="responses.delete")
async def delete_response(response_id: Named, who: Asking, store: Store) -> dict[str, Any]:
    """Delete a response, here and at the provider that keeps it."""
    await store.delete(who, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/v1/responses/{response_id}/cancel", operation_id="responses.cancel", response_class=Response)
async def cancel_response(response_id: Named, who: Asking, store: Store) -> Response:
    """Cancel a response that is made in the background."""
    return Response(await store.cancel(who, response_id), media_type="application/json", headers=_NO_STORE)


@router.get("/v1/responses/{response_id}/input_items", operation_id="responses.input_items")
async def list_input_items(
    response_id: Named,
    who: Asking,
    store: Store,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=128)] = None,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """List what a response was given, newest first."""
    items = await store.input_items(who, response_id)
    if order == "desc":
        items.reverse()
    places = {item.get("id"): place for place, item in enumerate(items)}
    start = places.get(after, -1) + 1 if after is not None else 0
    page = items[start : start + limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"object": "list", "data": page, "has_more": start + limit < len(items), **ends}
