"""What the fake upstream is told to do in tests: fail, say, be slow, in the wire format of each request."""

from __future__ import annotations

import json
from dataclasses import replace

from nexus.testing.faults import FAULTS, play
from nexus.testing.said import Said
from nexus.testing.scenes import Scene, scene_of
from nexus.testing.script import Answering, Script, Seen, streamed
from nexus.testing.upstream import WIRES


def scene(seen: Seen, said: Said | None = None) -> Scene:
    """The request in its wire format, with other words where given."""
    for wire in WIRES.all().values():
        if (asked := wire.asked(seen)) is not None:
            found = scene_of(wire, asked)
            return found.saying(said) if said is not None else found
    raise AssertionError(f"no wire format has {seen.path}")


def events(seen: Seen, text: str) -> list[bytes]:
    """The events that say `text`, without an end mark."""
    return scene(seen, Said(text=text)).events


def failing(name: str) -> Answering:
    """What goes wrong with every request."""
    return lambda seen: FAULTS[name](scene(seen))


def slowly(text: str, *, gap: float, wait: float) -> Answering:
    """Say `text` with `gap` seconds between the events of a stream, and after `wait` seconds as a whole."""

    def answering(seen: Seen) -> Script:
        found = scene(seen, Said(text=text))
        return play(replace(found, gap=gap if found.streamed else wait))

    return answering


def waiting(seconds: float, script: Script) -> Script:
    """The same after so many seconds."""
    return replace(script, pieces=(seconds, *script.pieces))


def whole(seen: Seen, **changes: object) -> dict[str, object]:
    """A whole answer of the chat-completions form, with fields of its choice changed."""
    body = json.loads(scene(seen).body)
    body["choices"][0] |= changes
    return body  # type: ignore[no-any-return]


def stream_of(seen: Seen, pieces: list[bytes]) -> Script:
    """A stream of these events, in the request's wire format."""
    return streamed(pieces, kind=scene(seen).kind)
