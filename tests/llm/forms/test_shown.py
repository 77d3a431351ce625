"""What a model made is shown by the user to models that take pictures from users only."""

from __future__ import annotations

from typing import Any

import pytest
from tests.llm.forms.test_unsaid import sent_items

from nexus.llm.forms.shown import told_by_user
from nexus.llm.types import Media, Message, Text, ToolCall, ToolResult

PICTURE = Media(kind="image", media_type="image/png", data="QUJD")


def said(role: Any, *parts: Any) -> Message:
    return Message(role=role, parts=parts)


ASK, CALL, RESULT = Text(text="draw"), ToolCall(id="c", name="f", arguments="{}"), ToolResult(id="c")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([said("user", ASK)], [said("user", ASK)]),
        ([said("user", PICTURE)], [said("user", PICTURE)]),
        (
            [said("assistant", ASK, PICTURE), said("user", ASK)],
            [said("assistant", ASK), said("user", PICTURE, ASK)],
        ),
        ([said("assistant", PICTURE)], [said("user", PICTURE)]),
        (
            [said("assistant", PICTURE, CALL), said("tool", RESULT), said("assistant", ASK)],
            [said("assistant", CALL), said("tool", RESULT), said("user", PICTURE), said("assistant", ASK)],
        ),
    ],
)
def test_pictures_of_a_model_stand_in_the_next_turn_of_the_user(before: list[Message], after: list[Message]) -> None:
    assert list(told_by_user(before)) == after


@pytest.mark.parametrize("provider", ["openai", "anthropic", "bedrock"])
def test_a_made_picture_reaches_every_form(provider: str) -> None:
    made = {"type": "image_generation_call", "id": "ig", "status": "completed", "result": "iVBORw0KGgo="}
    ask = {"role": "user", "content": "draw"}
    told = sent_items(provider, [ask, made, {"role": "user", "content": "redder"}])["messages"]
    assert [message["role"] for message in told if "iVBORw0KGgo=" in str(message)] == ["user"]
