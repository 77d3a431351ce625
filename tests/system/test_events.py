"""Who sees which loaded models in the stream."""

from __future__ import annotations

import pytest

from nexus.access.types import Principal
from nexus.core.errors import InvalidInput
from nexus.system.events import EventHub, _is_open_to


@pytest.mark.parametrize(
    ("key", "seen"),
    [("yolox-nano@1", True), ("yolox-nano@1/detect", True), ("prj_a/churn@3", True), ("prj_b/churn@3/detect", False)],
)
def test_private_models_are_seen_by_their_own_project_only(key: str, seen: bool) -> None:
    assert _is_open_to(Principal("key", "key_1", "prj_a"), key) is seen


def test_topics_are_taken_once_and_none_is_all() -> None:
    hub = EventHub(sampler=None, runs=None, pool=None)  # type: ignore[arg-type]
    assert hub.chosen("runs,runs, runs") == ["runs"]
    assert hub.chosen(",") == hub.chosen(None) == ["system", "runs", "models"]
    with pytest.raises(InvalidInput, match="weather"):
        hub.chosen("weather")
