"""The story of a prediction, in a compute child that keeps the models it has loaded."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nexus.analytics.encoding import Encoder
from nexus.analytics.errors import ModelFilesBroken
from nexus.analytics.predictor import PREDICTORS, Fitted
from nexus.analytics.training import FORMAT

_KEPT: Final = 32


@dataclass(frozen=True, slots=True)
class Loaded:
    """A trained model ready to be asked."""

    fitted: Fitted
    encoder: Encoder
    target: str
    labels: list[str] | None
    half_widths: dict[str, float]


_LOADED: OrderedDict[str, Loaded] = OrderedDict()


def load_model(files: Mapping[str, Path]) -> Loaded:
    """Read a model's files. Raises `ModelFilesBroken`."""
    try:
        plan = json.loads(files["preprocessing"].read_text(encoding="utf-8"))
        if plan["format"] != FORMAT:
            raise ModelFilesBroken("The model was written by another version of NEXUS; train it again.")
        labels: list[str] | None = plan["labels"]
        fitted = PREDICTORS.get(plan["predictor"]).load(files, task=plan["task"], classes=len(labels or ()))
        return Loaded(fitted, Encoder.from_json(plan["features"]), plan["target"], labels, plan["half_widths"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFilesBroken from None


def predict_rows(digest: str, files: Mapping[str, Path], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `{"label", "probabilities"}` or `{"value", "lo-90", "hi-90"}` for each row.

    `digest` names the content of `files`: a model is read once for each. Raises `InvalidValue`.
    """
    model = _LOADED.get(digest)
    if model is None:
        model = _LOADED[digest] = load_model(files)
        if len(_LOADED) > _KEPT:
            _LOADED.popitem(last=False)
    _LOADED.move_to_end(digest)
    answers = model.fitted.predict(model.encoder.encode_rows(rows, target=model.target))
    if not np.isfinite(answers).all():
        raise ModelFilesBroken("The model answers with numbers that are none; train it again.")
    if model.labels is None:
        return [_value(float(answer), model.half_widths) for answer in answers]
    return [_class(answer, model.labels) for answer in answers.tolist()]


def _value(value: float, half_widths: Mapping[str, float]) -> dict[str, Any]:
    answer = {"value": value}
    for level, half in half_widths.items():
        answer[f"lo-{level}"], answer[f"hi-{level}"] = value - half, value + half
    return answer


def _class(probabilities: Sequence[float], labels: Sequence[str]) -> dict[str, Any]:
    best = max(range(len(labels)), key=lambda number: probabilities[number])
    shares = {label: round(share, 8) for label, share in zip(labels, probabilities, strict=True)}
    return {"label": labels[best], "probabilities": shares}
