"""Pictures and other media that a model made, for models that take such things from a user only. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nexus.llm.types import Media, Message


def told_by_user(messages: Sequence[Message]) -> Sequence[Message]:
    """Return messages in which the user shows what the model made, in the turn after it and its tools' results."""
    if not any(_made(message) for message in messages):
        return messages
    out: list[Message] = []
    shown: tuple[Media, ...] = ()
    for message in messages:
        if message.role == "user" and shown:
            message, shown = msgspec.structs.replace(message, parts=shown + message.parts), ()
        elif message.role == "assistant" and shown:
            out.append(Message(role="user", parts=shown))
            shown = ()
        made = _made(message)
        rest = tuple(part for part in message.parts if part not in made) if made else message.parts
        shown += made
        if rest or not made:
            out.append(msgspec.structs.replace(message, parts=rest))
    return [*out, Message(role="user", parts=shown)] if shown else out


def _made(message: Message) -> tuple[Media, ...]:
    if message.role != "assistant":
        return ()
    return tuple(part for part in message.parts if isinstance(part, Media))
