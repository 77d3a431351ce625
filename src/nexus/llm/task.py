"""The contract of a text task: what it takes, and how it gets its result out of a chat model.

A task is one file in `tasks/` with a public `plug`. It asks the model only through the `Model` it is
given, which knows who asks, which model is meant, how long its context is, and records every call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from pydantic import BaseModel

from nexus.llm.types import Completion, Message, Need, ResponseFormat, Text

P = TypeVar("P", bound=BaseModel)


class Model(Protocol):
    """A chat model ready to be asked."""

    @property
    def name(self) -> str:
        """Return the name that was asked for."""
        ...

    @property
    def input_characters(self) -> int:
        """Return how many characters of text one question may safely carry."""
        ...

    def lacks(self, need: Need) -> bool:
        """Tell whether no deployment of the model can do this."""
        ...

    async def ask(
        self, messages: tuple[Message, ...], *, max_tokens: int, response_format: ResponseFormat | None = None
    ) -> Completion:
        """Ask one question."""
        ...


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a task made: its text, and further fields of its own."""

    text: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


class TextTask(ABC, Generic[P]):
    """One text task. `parameters` is the model of its input; the text fields among them are the caller's data."""

    summary: str
    parameters: type[P]

    @abstractmethod
    async def run(self, model: Model, given: P) -> TaskResult:
        """Do the task. Raises what asking the model raises."""


def asking(text: str) -> tuple[Message, ...]:
    """Return one message of the user."""
    return (Message(role="user", parts=(Text(text=text),)),)
