"""The shapes of ASGI, by name (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler: TypeAlias = App
"""A raw ASGI handler of one route: `async def handler(scope, receive, send) -> None`."""

PUSH: Final = "nexus.push"
"""Where a scope has a `Push`, if its server has one."""
Push: TypeAlias = Callable[[bytes, bool], bool]
"""Sends a piece of an answer's body at once, with no coroutine, and tells whether more comes.

False where it has to go by `send`, which waits.
"""

FINISH: Final = "nexus.finish"
"""Where a scope has a `Finish`, if its server has one."""
Finish: TypeAlias = Callable[[int, bytes, bytes], bool]
"""Sends a whole answer at once, with no coroutine: its status, finished lines of headers, and its body.

The server adds the lines that frame the body. False where the answer has to go by `send`, which waits.
"""

WHOLE: Final = "nexus.whole"
"""Where a scope has a `Whole`, if its server has one."""
Whole: TypeAlias = Callable[[], bytes | None]
"""Returns the request's body where all of it has come, as `receive` would; None where that has to be asked."""

LEAVING: Final = "nexus.leaving"
"""Where a scope has a `Leaving`, if its server has one."""
Leaving: TypeAlias = Callable[[Callable[[], None] | None], asyncio.Task[None]]
"""Takes whom to tell when the client leaves before its answer is complete, None for nobody any more.

Returns the task that the app answers in.
"""

SHORT_WAYS: Final = (PUSH, FINISH, LEAVING, WHOLE)

KNOWN: Final = "nexus.known"
"""Where a scope has the one that it was copied from, if its server knows its head from the same connection.

What a layer puts there stands in the scopes of all later requests with this head, but for its length: each layer keeps
under a name of its own what it found out of the head, and what depends on nothing but that and the connection.
"""

LENGTH: Final = "nexus.length"
"""Where a scope has the length of the body, if its head is known: nothing else says where the body ends."""


def close_short_ways(scope: Scope) -> None:
    """Leave `receive` and `send` as the only ways, for a layer that has to see what goes by."""
    for name in (PUSH, FINISH, WHOLE):
        scope.pop(name, None)


RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


def read_lines(lines: bytes) -> RawHeaders:
    """Return the headers in finished lines."""
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return [(name, value) for name, _, value in pairs]


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Return the request headers by name (lower case), of repeated ones the last; not to be changed."""
    found: dict[bytes, bytes] | None = scope.get("nexus.headers")
    if found is None:
        found = scope["nexus.headers"] = dict(scope["headers"])
    return found


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the last value of the request header `name` (lower case), or None."""
    return headers_of(scope).get(name)


def path_of(scope: Scope) -> str:
    """Return the path below the root path: what decides dialect and route. Servers put both into `path`."""
    known: str | None = scope.get("nexus.path")
    if known is not None:
        return known
    path: str = scope["path"]
    root: str | None = scope.get("root_path")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path
