"""The contract of vision tasks, over the whole folder."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from nexus.vision.question import ask
from nexus.vision.settings import VisionSettings
from nexus.vision.task import TASKS, Parameters


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_keeps_the_contract(name: str) -> None:
    task = TASKS.get(name)
    assert task.name == name
    assert task.title.endswith(".")
    assert issubclass(task.parameters, Parameters)
    assert issubclass(task.parameters, BaseModel)
    assert task.parameters.model_config["extra"] == "forbid"
    assert set(task.companions) <= set(TASKS.names())
    assert task.runtime(VisionSettings(), "cpu").threads >= 1
    question = ask(name, {})
    assert question.parameters == task.parameters()
    assert not {"model", "version", "alias", "annotate", "format", "image", "url", "file_id", "base64"} & set(
        task.parameters.model_fields
    )
