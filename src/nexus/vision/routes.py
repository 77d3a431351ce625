"""`/api/v1/vision/*`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.vision.question import ask, task_of
from nexus.vision.schemas import REQUEST, Limits, Presentation, Tasks, TaskShown
from nexus.vision.service import Answer, Trace, VisionService
from nexus.vision.sources import receive

router = APIRouter(prefix="/api/v1/vision", tags=["vision"])

Vision = Annotated[VisionService, service(VisionService)]
Caller = Annotated[Principal, requires(Scope.VISION_INVOKE)]


@router.get("/tasks", operation_id="vision.tasks")
async def tasks(who: Caller, vision: Vision) -> Tasks:
    """List what can be asked of a picture, with which models, and the limits."""
    from nexus.vision.images import FORMATS  # as in `VisionService`: what works on pixels, by the first call

    limits = vision.settings.model_dump(include={"max_bytes", "max_pixels", "max_side"})
    places = {"workers": vision.workers.workers, "queue": vision.settings.queue}
    shown = [TaskShown.model_validate(each) for each in await vision.tasks(who)]
    return Tasks(data=shown, limits=Limits(**limits, **places, formats=[kind.lower() for kind in FORMATS]))


@router.post(
    "/{task}",
    operation_id="vision.run",
    openapi_extra=REQUEST,
    response_class=Response,
    responses={200: {"content": {"application/json": {}, "image/png": {}}}},
)
async def run(task: str, request: Request, who: Caller, vision: Vision) -> Response:
    """Look at one image; the shape of the answer is that of `design/contract.md`."""
    task_of(task)
    sent = await receive(request, who, vision.files, limit=vision.settings.max_bytes)
    shape = Presentation.of(request.query_params, sent.fields)
    question = ask(task, _asked(request, sent.fields, form=sent.form), form=sent.form)
    answer = await vision.answer(who, question, sent.image, Trace(request.scope.get("request_id")))
    return await _shown(vision, sent.image, answer, shape)


def _asked(request: Request, fields: dict[str, object], *, form: bool) -> dict[str, object]:
    """Return the question's own fields; a form's may stand in the query too (JSON has types, a query has none)."""
    query = dict(request.query_params) if form else {}
    return {name: value for name, value in (query | fields).items() if name not in Presentation.model_fields}


async def _shown(vision: VisionService, image: bytes, answer: Answer, shape: Presentation) -> Response:
    from nexus.vision.images import encode_png
    from nexus.vision.rendering import coco

    result = answer.result
    if shape.annotate is None:
        body = result.encoded() if shape.format == "json" else msgspec.json.encode(coco(result))
        return Response(body, media_type="application/json")
    drawn = await vision.draw(image, result) if answer.picture is None else encode_png(answer.picture)
    named = {"x-nexus-invocation": result.id, "x-nexus-model": result.model}
    return Response(drawn, media_type="image/png", headers=named)
