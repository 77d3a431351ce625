"""The story of a training, in a compute child: read, decide the task, cross-validate, fit on all, save.

What it reports is honest: every score comes from rows that the scoring model had not seen, and stands
beside that of the baseline that always says the most usual thing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nexus.analytics import metrics
from nexus.analytics.encoding import Encoder, describe, learn_features
from nexus.analytics.errors import CannotLearn, UnknownMethod, shown
from nexus.analytics.predictor import PREDICTORS, Lesson, Predictor
from nexus.analytics.reading import Table, read_table
from nexus.analytics.types import Floats, Limits, Source, Task, Trained, TrainSpec
from nexus.analytics.values import looks_numeric, numbers, texts

FORMAT: Final = 1
LEVEL: Final = 90
_MIN_ROWS: Final = 20
_MAX_CLASSES: Final = 200
_FOLDS: Final = 5
_MANY_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Target:
    """The column to learn: values, or class numbers and the label of each. NaN and -1 mark missing rows."""

    task: Task
    y: NDArray[Any]
    labels: list[str] | None

    @property
    def present(self) -> NDArray[np.bool_]:
        """Tell which rows have a target."""
        return ~np.isnan(self.y) if self.task == "regression" else self.y >= 0


def train_table(source: Source, spec: TrainSpec, limits: Limits, folder: Path) -> Trained:
    """Train and write the model's files below `folder`.

    Raises `ColumnNotFound`, `InvalidValue`, `UnknownMethod` or `CannotLearn`.
    """
    if spec.predictor not in PREDICTORS:
        raise UnknownMethod(
            f"There is no such predictor; known are {', '.join(PREDICTORS.names())}.", field="predictor"
        )
    predictor = PREDICTORS.get(spec.predictor)
    table = read_table(source, limits)
    target = read_target(table, spec)
    if target.task not in predictor.tasks:
        raise CannotLearn(f"This predictor cannot do {target.task}.", field="task")
    names = spec.features if spec.features is not None else [name for name in table.columns if name != spec.target]
    wanted = {name: table.column(name) for name in names if name != spec.target}
    known, ignored = learn_features(table, describe(Table(wanted, table.rows, table.decimal_comma)))
    if not known:
        raise CannotLearn("No column is left to learn from.", field="features", ignored=ignored)
    encoder = Encoder(known)
    keep = target.present
    lesson = Lesson(
        x=encoder.encode_table(table)[keep],
        y=target.y[keep],
        task=target.task,
        categorical=encoder.categorical,
        classes=len(target.labels or ()),
        seed=spec.seed,
    )
    scores, baseline, half_width = validate(predictor, lesson)
    files = predictor.fit(lesson).save(folder)
    if "preprocessing" in files:
        raise AssertionError("the role `preprocessing` is taken")
    files["preprocessing"] = folder / "preprocessing.json"
    files["preprocessing"].write_text(
        json.dumps(
            {
                "format": FORMAT,
                "predictor": spec.predictor,
                "task": target.task,
                "target": spec.target,
                "labels": target.labels,
                "features": encoder.to_json(),
                "half_widths": {str(LEVEL): half_width} if half_width is not None else {},
            }
        ),
        encoding="utf-8",
    )
    return Trained(
        task=target.task,
        files=files,
        metrics=scores,
        baseline=baseline,
        features=[{"name": one.name, "kind": one.kind} for one in known],
        ignored=ignored,
        rows=int(keep.sum()),
        labels=target.labels,
    )


def read_target(table: Table, spec: TrainSpec) -> Target:
    """Return the target. Without a task, numbers of many values are regression, all else classification."""
    column = table.column(spec.target)
    numeric = looks_numeric(column, decimal_comma=table.decimal_comma)
    task = spec.task
    if task is None:
        values = numbers(column, spec.target, decimal_comma=table.decimal_comma) if numeric else np.empty(0)
        there = values[~np.isnan(values)]
        whole = bool((there == np.round(there)).all())
        task = "regression" if numeric and (not whole or len(np.unique(there)) > 20) else "classification"
    target = _values(table, spec.target) if task == "regression" else _classes(texts(column))
    if int(target.present.sum()) < _MIN_ROWS:
        raise CannotLearn(f"At least {_MIN_ROWS} rows with a target are needed.", field=shown(spec.target))
    if target.task == "regression" and len(np.unique(target.y[target.present])) < 2:
        raise CannotLearn("The target always has the same value.", field=shown(spec.target))
    if target.labels is not None and not 2 <= len(target.labels) <= _MAX_CLASSES:
        raise CannotLearn(
            f"The target has {len(target.labels)} classes; 2 to {_MAX_CLASSES} can be learned.",
            field=shown(spec.target),
        )
    return target


def _values(table: Table, name: str) -> Target:
    return Target("regression", numbers(table.column(name), name, decimal_comma=table.decimal_comma), None)


def _classes(cells: list[str | None]) -> Target:
    labels = sorted({cell for cell in cells if cell is not None})
    codes = {label: code for code, label in enumerate(labels)}
    y = np.array([-1 if cell is None else codes[cell] for cell in cells], dtype=np.int64)
    return Target("classification", y, labels)


def folds(lesson: Lesson) -> list[NDArray[np.int64]]:
    """Return the test rows of each fold: five of them, classes spread evenly; one for very many rows."""
    rng = np.random.default_rng(lesson.seed)
    order = rng.permutation(len(lesson.y))
    if lesson.task == "classification":
        order = order[np.argsort(lesson.y[order], kind="stable")]
    parts = [order[start::_FOLDS] for start in range(_FOLDS)]
    return parts[:1] if len(order) > _MANY_ROWS else parts


def validate(predictor: Predictor, lesson: Lesson) -> tuple[dict[str, float], dict[str, float], float | None]:
    """Return scores on unseen rows, the baseline's, and for regression half the width of the 90 % interval.

    The width is the conformal quantile of the unseen rows' absolute errors (Vovk, Gammerman & Shafer 2005):
    nine of ten new rows of the same kind fall within.
    """
    seen: list[NDArray[np.int64]] = []
    predicted, usual = [], []
    for test in folds(lesson):
        train = np.setdiff1d(np.arange(len(lesson.y)), test)
        part = Lesson(lesson.x[train], lesson.y[train], lesson.task, lesson.categorical, lesson.classes, lesson.seed)
        predicted.append(predictor.fit(part).predict(lesson.x[test]))
        usual.append(_baseline(part, len(test)))
        seen.append(test)
    rows = np.concatenate(seen)
    actual, guess, plain = lesson.y[rows], np.concatenate(predicted), np.concatenate(usual)
    if lesson.task == "classification":
        return _class_scores(actual, guess), _class_scores(actual, plain), None
    errors = np.sort(np.abs(actual - guess))
    place = min(len(errors), int(np.ceil((len(errors) + 1) * LEVEL / 100))) - 1
    return _value_scores(actual, guess), _value_scores(actual, plain), float(errors[place])


def _baseline(part: Lesson, rows: int) -> Floats:
    """Return what somebody who sees no feature would say: the mean, or the share of every class."""
    if part.task == "regression":
        return np.full(rows, float(part.y.mean()))
    shares = np.bincount(part.y, minlength=part.classes) / len(part.y)
    return np.tile(shares, (rows, 1))


def _class_scores(actual: NDArray[np.int64], probabilities: Floats) -> dict[str, float]:
    scores = {
        "accuracy": metrics.accuracy(actual, probabilities),
        "log_loss": metrics.log_loss(actual, probabilities),
    }
    if probabilities.shape[1] == 2:
        scores["auc"] = metrics.auc(actual == 1, probabilities[:, 1])
    return {name: round(score, 6) for name, score in scores.items() if np.isfinite(score)}


def _value_scores(actual: Floats, predicted: Floats) -> dict[str, float]:
    scores = {
        "rmse": metrics.rmse(actual, predicted),
        "mae": metrics.mae(actual, predicted),
        "r2": metrics.r2(actual, predicted),
    }
    return {name: float(f"{score:.8g}") for name, score in scores.items()}
