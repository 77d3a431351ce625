"""From parallel arrays to records, and from records to the COCO format. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from nexus.vision.masks import Rle, to_rle
from nexus.vision.opencv import opencv
from nexus.vision.types import Finding, Findings, Floats, Image, Keypoint, Result


def records(found: Findings, image: Image) -> list[Finding]:
    """Return one record for each finding, in pixels of the picture as it was sent (upright)."""
    scale = np.array(image.scale, np.float32)
    boxes = _rounded(found.boxes.reshape(-1, 2, 2) * scale).reshape(-1, 4) if found.boxes is not None else None
    quads = _rounded(found.quads * scale) if found.quads is not None else None
    points = found.keypoints
    if points is not None:
        points = np.concatenate([_rounded(points[..., :2] * scale), points[..., 2:3]], axis=-1)
    return [_record(found, image, row, boxes, quads, points) for row in range(len(found))]


def _record(
    found: Findings, image: Image, row: int, boxes: Floats | None, quads: Floats | None, points: Floats | None
) -> Finding:
    return Finding(
        score=round(float(found.scores[row]), 4),
        label=found.labels[row] if found.labels else None,
        class_id=int(found.class_ids[row]) if found.class_ids is not None else None,
        box=_plain(boxes[row]) if boxes is not None else None,
        quad=_plain(quads[row]) if quads is not None else None,
        mask={"rle": _mask(found, image, row)} if found.masks is not None else None,
        keypoints=_keypoints(points[row], found.keypoint_names) if points is not None else None,
        track_id=int(found.track_ids[row]) if found.track_ids is not None else None,
        embedding=[float(value) for value in found.embeddings[row]] if found.embeddings is not None else None,
        text=found.texts[row] if found.texts else None,
    )


def _mask(found: Findings, image: Image, row: int) -> Rle:
    assert found.masks is not None
    mask = found.masks[row]
    if mask.shape != (image.height, image.width):
        cv2 = opencv()
        mask = cv2.resize(mask.astype(np.uint8), (image.width, image.height), interpolation=cv2.INTER_NEAREST) > 0
    return to_rle(mask)


def _keypoints(points: Floats, names: tuple[str, ...]) -> list[Keypoint]:
    rows = zip(names, points.tolist(), strict=True)
    return [Keypoint(name, round(x, 2), round(y, 2), round(score, 4)) for name, (x, y, score) in rows]


def _rounded(values: Floats) -> Floats:
    return np.round(values, 2)


def _plain(values: Floats) -> Any:
    """Return nested lists of numbers that print as short as they are exact (a float32 1.1 is 1.10000002...)."""
    return np.round(values.astype(np.float64), 2).tolist()


def coco(result: Result) -> dict[str, Any]:
    """Return the result in the layout of COCO's `instances` and `results` files.

    Boxes become x, y, width, height; masks are `segmentation` in compressed runs; key points are a
    flat list of x, y, visibility, 2 where the model is at least half sure. Ids are within the answer.
    """
    named = {each.class_id: each.label for each in result.results if each.class_id is not None}
    annotations = []
    for number, each in enumerate(result.results, start=1):
        row: dict[str, Any] = {"id": number, "image_id": 1, "score": each.score, "iscrowd": 0}
        if each.class_id is not None:
            row["category_id"] = each.class_id
        if each.box is not None:
            x1, y1, x2, y2 = each.box
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            row |= {"bbox": [x1, y1, width, height], "area": round(width * height, 2)}
        if each.mask is not None:
            row["segmentation"] = each.mask["rle"]
        elif each.quad is not None:
            row["segmentation"] = [[number for point in each.quad for number in point]]
        if each.keypoints is not None:
            row["keypoints"] = [v for p in each.keypoints for v in (p.x, p.y, 2 if p.score >= 0.5 else 1)]
            row["num_keypoints"] = len(each.keypoints)
        if each.text is not None:
            row["text"] = each.text
        annotations.append(row)
    return {
        "info": {"description": result.task, "model": result.model, "version": result.version},
        "images": [{"id": 1, "width": result.image.width, "height": result.image.height}],
        "categories": [{"id": key, "name": name or str(key)} for key, name in sorted(named.items())],
        "annotations": annotations,
    }
