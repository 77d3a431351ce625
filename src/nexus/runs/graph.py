"""Whether the description of a run makes sense: keys, needs, no circle, sane numbers. No I/O."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection
from typing import Any, Final

import orjson

from nexus.runs.errors import InvalidRunSpec
from nexus.runs.types import RunSpec, StepSpec

_KEY: Final = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
_USES: Final = re.compile(r"^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*$")
_KIND: Final = re.compile(r"^[a-z][a-z0-9_.-]{0,63}$")
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS


def check(spec: RunSpec, *, queues: Collection[str], step_limit: int) -> None:
    """Raise `InvalidRunSpec`, naming the field, unless a run can be made of `spec`."""
    if not _KIND.match(spec.kind):
        raise InvalidRunSpec("The kind must be a short lower-case word.", field="kind")
    if not 1 <= len(spec.name) <= 200:
        raise InvalidRunSpec("The name must have 1 to 200 characters.", field="name")
    if spec.idempotency_key is not None and not 1 <= len(spec.idempotency_key) <= 255:
        raise InvalidRunSpec("An idempotency key must have 1 to 255 characters.", field="idempotency_key")
    if spec.deadline is not None and not (math.isfinite(spec.deadline) and spec.deadline > 0):
        raise InvalidRunSpec("The deadline must be a positive number of seconds.", field="deadline")
    if not 1 <= len(spec.steps) <= step_limit:
        raise InvalidRunSpec(f"A run must have 1 to {step_limit} steps.", field="steps")
    keys = Counter(step.key for step in spec.steps)
    for place, step in enumerate(spec.steps):
        _check_step(f"steps.{place}", step, keys, queues)
    _check_acyclic(spec.steps)


def _check_step(field: str, step: StepSpec, keys: Counter[str], queues: Collection[str]) -> None:
    if not _KEY.match(step.key):
        raise InvalidRunSpec(
            "A key has letters, digits, _ and -, begins with a letter, at most 64.", field=f"{field}.key"
        )
    if keys[step.key] > 1:
        raise InvalidRunSpec("Two steps have the same key.", field=f"{field}.key")
    if len(step.uses) > 100 or not _USES.match(step.uses):
        raise InvalidRunSpec("`uses` must be the dotted name of a kind of step.", field=f"{field}.uses")
    if len(set(step.needs)) != len(step.needs) or not all(need in keys for need in step.needs):
        raise InvalidRunSpec("`needs` must name other steps of the run, each once.", field=f"{field}.needs")
    if step.timeout is not None and not (math.isfinite(step.timeout) and step.timeout > 0):
        raise InvalidRunSpec("The timeout must be a positive number of seconds.", field=f"{field}.timeout")
    if step.queue not in queues:
        raise InvalidRunSpec(f"The queue must be one of {', '.join(queues)}.", field=f"{field}.queue")
    policy = step.retries
    numbers_fit = 0 <= policy.max <= 100 and 0 <= policy.base <= 86_400 and 0 <= policy.cap <= 86_400
    if not numbers_fit or policy.backoff not in ("exponential", "linear", "fixed"):
        raise InvalidRunSpec("The retry policy is out of range.", field=f"{field}.retries")


def _check_acyclic(steps: list[StepSpec]) -> None:
    left = {step.key: len(step.needs) for step in steps}
    after = needed_by(steps)
    free = [key for key, count in left.items() if count == 0]
    while free:
        for key in after[free.pop()]:
            left[key] -= 1
            if left[key] == 0:
                free.append(key)
    if any(left.values()):
        place = next(n for n, step in enumerate(steps) if left[step.key])
        raise InvalidRunSpec("The steps need each other in a circle.", field=f"steps.{place}.needs")


def needed_by(steps: list[StepSpec]) -> dict[str, list[str]]:
    """Return, for each step, the keys of the steps that need it."""
    after: dict[str, list[str]] = {step.key: [] for step in steps}
    for step in steps:
        for need in step.needs:
            after[need].append(step.key)
    return after


def fingerprint(spec: RunSpec) -> str:
    """Return a digest of all that is asked for. Raises `InvalidRunSpec` for values that are not JSON."""
    return hashlib.sha256(encoded(spec, "inputs")).hexdigest()


def encoded(value: Any, field: str) -> bytes:
    """Return `value` as JSON. Raises `InvalidRunSpec`, naming `field`, for what JSON cannot hold."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except (TypeError, ValueError):
        raise InvalidRunSpec("The values must be JSON.", field=field) from None
