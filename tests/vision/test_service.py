from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.clock import soon

from nexus.access.types import Principal, Scope
from nexus.catalog.errors import ModelNotFound
from nexus.catalog.pool import ModelPool
from nexus.catalog.types import ModelVersion
from nexus.core.errors import DeadlineExceeded, InvalidInput, NexusError
from nexus.http.problem import ValidationFailed
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.storage.caches.memory import MemoryCache
from nexus.testing.images import encoded, gradient
from nexus.vision.errors import (
    ImageUnreadable,
    ModelBroken,
    ModelNotRunnable,
    VisionBusy,
    VisionTaskNotFound,
    WrongTask,
)
from nexus.vision.service import Trace, VisionService
from nexus.vision.settings import VisionSettings
from nexus.vision.tasks.detect import plug as detect
from nexus.vision.types import Image

WHO = Principal("key", "key_1", "prj_1", frozenset({Scope.VISION_INVOKE}), key_id="key_1")


@pytest.fixture
def dinner(images: Path) -> bytes:
    return (images / "detect_voc" / "2007_000762.jpg").read_bytes()


@pytest.fixture
def records(ledger: Ledger) -> list[Invocation]:
    """Every invocation as it is recorded."""
    seen: list[Invocation] = []
    ledger.on_record(seen.append)
    return seen


async def test_a_result_has_the_shape_of_the_contract(
    vision: VisionService, dinner: bytes, records: list[Invocation]
) -> None:
    result = await vision.run(WHO, "detect", dinner, {"threshold": 0.5}, Trace(request_id="req-1"))
    body = json.loads(result.encoded())
    assert list(body)[:6] == ["id", "task", "model", "version", "image", "results"]
    assert (body["task"], body["model"], body["version"], body["cached"]) == ("detect", "yolox-nano", 1, False)
    assert (body["precision"], body["device"], body["image"]) == ("f32", "cpu", {"width": 500, "height": 375})
    assert set(body["timing_ms"]) == {"decode", "preprocess", "inference", "postprocess"}
    assert body["timing_ms"]["inference"] > 0
    best = body["results"][0]
    assert set(best) == {"label", "class_id", "score", "box"}
    assert best["label"] == "person"
    (kept,) = records
    assert (kept.id, kept.kind, kept.model, kept.version, kept.status) == (
        body["id"],
        "vision.detect",
        "yolox-nano",
        1,
        "ok",
    )
    assert (kept.project_id, kept.principal_id, kept.key_id, kept.items) == ("prj_1", "key_1", "key_1", 1)
    assert (kept.request_id, kept.cached) == ("req-1", False)
    assert kept.latency_ms
    assert kept.latency_ms >= body["timing_ms"]["inference"]


async def test_the_ledger_has_each_call_once(
    vision: VisionService, ledger: Ledger, dinner: bytes, records: list[Invocation]
) -> None:
    await vision.run(WHO, "detect", dinner)
    with pytest.raises(ImageUnreadable):
        await vision.run(WHO, "detect", b"nothing")
    rows = await ledger.invocations(WHO)
    assert [row.id for row in reversed(rows)] == [each.id for each in records]
    assert [each.error_code for each in records] == [None, "image_unreadable"]


async def test_the_same_question_is_answered_from_the_cache(
    vision: VisionService, dinner: bytes, records: list[Invocation]
) -> None:
    first = await vision.run(WHO, "detect", dinner)
    again = await vision.run(WHO, "detect", dinner)
    assert (again.cached, again.results) == (True, first.results)
    assert again.id != first.id
    assert [each.cached for each in records] == [False, True]
    for other in (
        await vision.run(WHO, "detect", dinner, {"threshold": 0.9}),
        await vision.run(WHO, "classify", dinner),
        await vision.run(WHO, "detect", dinner + b"\0"),
        await vision.run(replace(WHO, project_id="prj_2"), "detect", dinner),
    ):
        assert not other.cached


@pytest.mark.parametrize(
    ("task", "params", "error", "field"),
    [
        ("paint", {}, VisionTaskNotFound, None),
        ("detect", {"model": "absent"}, ModelNotFound, None),
        ("detect", {"model": "yolox-nano", "version": 7}, ModelNotFound, None),
        ("detect", {"model": "efficientnet-lite0"}, WrongTask, "model"),
        ("detect", {"model": ""}, ValidationFailed, "model"),
        ("detect", {"version": 1}, InvalidInput, "model"),
        ("detect", {"threshold": 1.5}, ValidationFailed, "threshold"),
        ("detect", {"threshold": "0.5"}, ValidationFailed, "threshold"),
        ("detect", {"threshold": True}, ValidationFailed, "threshold"),
        ("detect", {"threshold": float("nan")}, ValidationFailed, "threshold"),
        ("detect", {"classes": ["gryphon"]}, InvalidInput, "classes"),
        ("detect", {"colour": "red"}, ValidationFailed, "colour"),
        ("classify", {"top_k": 0}, ValidationFailed, "top_k"),
        ("classify", {"top_k": 10**30}, ValidationFailed, "top_k"),
        ("ocr", {"threshold": []}, ValidationFailed, "threshold"),
    ],
)
async def test_a_wrong_question_names_its_field(
    vision: VisionService, task: str, params: dict[str, Any], error: type[NexusError], field: str | None
) -> None:
    with pytest.raises(error) as caught:
        await vision.run(WHO, task, encoded(gradient()), params)
    assert caught.value.field == field
    assert caught.value.status in (404, 422)


@pytest.fixture
async def one_seat(catalogue: Any, pool: ModelPool, ledger: Ledger) -> AsyncIterator[VisionService]:
    settings = VisionSettings(workers=1, queue=0, timeout=60, cache_ttl=0)
    service = VisionService(settings=settings, catalog=catalogue, pool=pool, ledger=ledger, cache=MemoryCache())
    yield service
    await service.stop()


@dataclass
class Stuck:
    """Detections that wait to be let go."""

    begun: threading.Event
    go_on: threading.Event


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Stuck:
    """Hold every detection until it may go on."""
    held, run = Stuck(threading.Event(), threading.Event()), type(detect).run

    def wait(self: Any, loaded: Any, image: Image, *rest: Any) -> Any:
        held.begun.set()
        held.go_on.wait(60)
        return run(self, loaded, image, *rest)

    monkeypatch.setattr(type(detect), "run", wait)
    return held


async def test_a_full_house_is_busy_and_a_slow_call_ends(
    one_seat: VisionService, dinner: bytes, records: list[Invocation], stuck: Stuck
) -> None:
    held = asyncio.create_task(one_seat.run(WHO, "detect", dinner))
    await soon(stuck.begun.is_set)
    with pytest.raises(VisionBusy):
        await one_seat.run(WHO, "classify", dinner)
    stuck.go_on.set()
    await held
    stuck.go_on.clear()
    one_seat.settings.timeout = 0.5
    with pytest.raises(DeadlineExceeded):
        await one_seat.run(WHO, "detect", dinner)
    stuck.go_on.set()
    assert [each.error_code for each in records] == ["vision_busy", None, "deadline_exceeded"]


async def test_a_call_given_up_is_recorded_as_cancelled(
    one_seat: VisionService, dinner: bytes, records: list[Invocation], stuck: Stuck
) -> None:
    call = asyncio.create_task(one_seat.run(WHO, "detect", dinner))
    await soon(stuck.begun.is_set)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [(each.status, each.error_code) for each in records] == [("client_disconnect", None)]
    stuck.go_on.set()


async def test_many_at_once_give_what_one_gives(vision: VisionService, images: Path) -> None:
    pictures = [path.read_bytes() for path in sorted(images.glob("detect_voc/*.jpg"))[:6]]
    alone = [await vision.run(WHO, "detect", picture) for picture in pictures]
    together = await asyncio.gather(
        *(vision.run(replace(WHO, project_id="prj_2"), "detect", picture) for picture in pictures)
    )
    assert [each.results for each in together] == [each.results for each in alone]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"meta": {}}, ModelNotRunnable),
        ({"meta": {"labels": "coco80"}}, ModelNotRunnable),
        ({"decoder": {"name": "absent"}}, ModelNotRunnable),
        ({"decoder": {"name": "softmax"}}, ModelNotRunnable),
        ({"labels": "absent"}, ModelNotRunnable),
        ({"labels": "../../x"}, ModelNotRunnable),
        ({"files": {}}, ModelNotRunnable),
        ({"files": {"model": Path("x.tflite")}}, ModelNotRunnable),
        ({"files": {"model": Path("absent.onnx")}}, ModelBroken),
        ({"input": {"size": 320}}, ModelBroken),
        ({"decoder": {"name": "centernet"}}, ModelBroken),
        ({"decoder": {"name": "yolox", "params": {"output": "absent"}}}, ModelBroken),
    ],
)
async def test_a_model_that_does_not_fit_its_description_is_refused(
    pool: ModelPool,
    ledger: Ledger,
    yolox: ModelVersion,
    catalogue: Any,
    dinner: bytes,
    change: dict[str, Any],
    error: type[NexusError],
) -> None:
    whole = change if set(change) <= {"meta", "files"} else {"meta": {**yolox.meta, **change}}
    version = replace(yolox, model=f"wrong-{abs(hash(str(change)))}", **whole)
    service = VisionService(
        settings=VisionSettings(), catalog=type(catalogue)([version]), pool=pool, ledger=ledger, device="cpu"
    )
    with pytest.raises(error) as caught:
        await service.run(WHO, "detect", dinner, {"model": version.model})
    assert (caught.value.status, caught.value.field) in ((422, "model"), (503, None))
    assert ".onnx" not in caught.value.message
    await service.stop()


async def test_a_drawn_picture_is_a_png_of_the_same_size(vision: VisionService, dinner: bytes) -> None:
    result = await vision.run(WHO, "detect", dinner)
    drawn = await vision.draw(dinner, result)
    assert drawn[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(drawn[16:20], "big"), int.from_bytes(drawn[20:24], "big")) == (500, 375)


async def test_a_reduced_decode_changes_no_coordinates(vision: VisionService, dinner: bytes) -> None:
    """A photograph three times as large gives the same boxes, times three, although it is decoded at a half."""
    from PIL import Image as Pillow

    from nexus.vision.images import decode

    small = decode(dinner, VisionSettings())
    large = Pillow.fromarray(small.pixels).resize((small.width * 3, small.height * 3), Pillow.Resampling.BICUBIC)
    one = await vision.run(WHO, "detect", encoded(small.pixels, "JPEG", quality=97), {"threshold": 0.6})
    three = await vision.run(WHO, "detect", encoded(large, "JPEG", quality=97), {"threshold": 0.6})
    assert three.image.width == 3 * one.image.width
    assert [each.label for each in three.results[:3]] == [each.label for each in one.results[:3]]
    for a, b in zip(one.results[:3], three.results[:3], strict=True):
        assert a.box is not None
        assert b.box is not None
        assert [value / 3 for value in b.box] == pytest.approx(a.box, abs=12)
