"""Idempotency-Key: a native POST that is sent twice is done once.

The first request with a key claims it, and its answer is kept for 24 hours and given again
(`Idempotent-Replayed: true`). A claim is bound to project, principal, method and path. The same
key with another body is a 422, one still being served a 409. Only answers that made something are
kept (2xx and 3xx): a refused or failed request may be mended and sent again under its key. Streams
and answers over 1 MB pass through unkept. Answers may hold a secret that is shown once (a new API
key), so they are kept encrypted; without a keyring those marked `no-store` are not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import Final

from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from nexus.access.errors import IdempotencyInFlight, IdempotencyMismatch
from nexus.access.tables import IdempotencyRow
from nexus.access.types import Principal
from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import InvalidInput, NexusError
from nexus.core.ids import new_id
from nexus.core.secrets import Keyring
from nexus.http.problem import send_error
from nexus.http.types import KNOWN, App, Message, Receive, Scope, Send, close_short_ways, header, path_of
from nexus.storage.db import Database

_KEPT_FOR: Final = timedelta(hours=24)
_LOCKED_FOR: Final = timedelta(minutes=5)
_LARGEST_ANSWER: Final = 1024 * 1024
_IN_MEMORY: Final = 1024 * 1024
_PIECE: Final = 256 * 1024
_BOUNDARY: Final = re.compile(rb'boundary="?([^";,\s]{1,70})', re.IGNORECASE)
_FORM: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_PASSES: Final = "idempotency.passes"
"""Where a scope has that the same head was let through before."""
_KEPT_HEADERS: Final = frozenset({b"content-type", b"location", b"etag", b"cache-control"})


class Idempotency:
    """The ASGI layer behind `Authentication`. Only POST below /api/v1 (but not /api/v1/auth) is looked at."""

    def __init__(
        self, app: App, *, database: Database, keyring: Keyring | None = None, clock: Clock | None = None
    ) -> None:
        """Stand before `app`. With a `keyring` kept answers are encrypted."""
        self._app = app
        self._database = database
        self._keyring = keyring
        self._clock = clock or SystemClock()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if _PASSES in scope:
            return self._app(scope, receive, send)
        if scope["type"] == "http" and scope["method"] == "POST" and _is_looked_at(path_of(scope)):
            key, principal = header(scope, b"idempotency-key"), scope.get("principal")
            if key is not None and isinstance(principal, Principal):
                return self._once(scope, receive, send, principal, key)
        elif KNOWN in scope:
            scope[KNOWN][_PASSES] = True
        return self._app(scope, receive, send)

    async def _once(self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: bytes) -> None:
        try:
            if not _FORM.fullmatch(key):
                raise InvalidInput("An Idempotency-Key has 1 to 255 visible ASCII characters.", field="idempotency-key")
            with SpooledTemporaryFile[bytes](max_size=_IN_MEMORY) as body:
                digest = await _read(receive, body, header(scope, b"content-type") or b"")
                await self._serve(scope, receive, send, _identity(scope, principal, key), digest, body)
        except NexusError as error:
            await send_error(scope, send, error)
        except ClientDisconnect:
            return

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        identity: str,
        digest: str,
        body: SpooledTemporaryFile[bytes],
    ) -> None:
        claim = new_id("idm")
        kept = await self._database.write(_claim, identity, claim, digest, self._clock.now())
        if kept is not None:
            await _replay(kept, digest, send, self._keyring)
            return
        close_short_ways(scope)
        recorder = _Recorder(send, keeps_secrets=self._keyring is not None)
        chunks = _chunks(body, receive)
        try:
            await self._app(scope, lambda: anext(chunks), recorder.send)
        finally:
            # Shielded: a client that leaves must not leave its key locked or its answer forgotten.
            await asyncio.shield(asyncio.ensure_future(self._settle(identity, claim, recorder)))

    async def _settle(self, identity: str, claim: str, recorder: _Recorder) -> None:
        if recorder.is_kept:
            body = bytes(recorder.body)
            if self._keyring is not None:
                body = self._keyring.encrypt(body.decode("latin-1"), _place(identity)).encode("ascii")
            await self._database.write(_keep, identity, claim, recorder.status, recorder.headers, body)
        else:
            await self._database.write(_release, identity, claim)


@dataclass
class _Recorder:
    """Passes an answer on and remembers it."""

    forward: Send
    keeps_secrets: bool = False
    status: int = 0
    headers: list[list[str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    unkeepable: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether the answer is whole and worth giving again."""
        return self.complete and not self.unkeepable and 200 <= self.status < 400

    async def send(self, message: Message) -> None:
        """Take one message of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = [(name.lower(), value) for name, value in message.get("headers", [])]
            kept = [(name, value) for name, value in given if name in _KEPT_HEADERS]
            self.headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in kept]
            is_secret = any(name == b"cache-control" and b"no-store" in value for name, value in given)
            is_stream = any(value.startswith(b"text/event-stream") for _, value in kept)
            self.unkeepable = is_stream or (is_secret and not self.keeps_secrets)
        elif message["type"] == "http.response.body" and not self.unkeepable:
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)
            if len(self.body) > _LARGEST_ANSWER:
                self.unkeepable = True
                self.body.clear()
        # A client that has left still gets its answer kept.
        with suppress(OSError):
            await self.forward(message)


def _is_looked_at(path: str) -> bool:
    return path.startswith("/api/v1/") and not path.startswith("/api/v1/auth/")


def _identity(scope: Scope, principal: Principal, key: bytes) -> str:
    parts = (principal.project_id, principal.kind, principal.id, scope["method"], path_of(scope), key.decode("ascii"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _place(identity: str) -> str:
    return f"idempotency_key|{identity}|body"


async def _read(receive: Receive, body: SpooledTemporaryFile[bytes], content_type: bytes) -> str:
    """Copy the request body and return its digest, which the random boundary of a form does not change."""
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        digest.update(chunk)
        if body.tell() + len(chunk) > _IN_MEMORY:
            await asyncio.to_thread(body.write, chunk)
        else:
            body.write(chunk)
        more = message.get("more_body", False)
    body.seek(0)
    if content_type.startswith(b"multipart/") and (found := _BOUNDARY.search(content_type)):
        return await asyncio.to_thread(_digest_without, body, found[1])
    return digest.hexdigest()


def _digest_without(body: SpooledTemporaryFile[bytes], boundary: bytes) -> str:
    digest, carried, overlap = hashlib.sha256(), b"", len(boundary) - 1
    while chunk := body.read(_PIECE):
        data = (carried + chunk).replace(boundary, b"")
        cut = max(0, len(data) - overlap)
        digest.update(data[:cut])
        carried = data[cut:]
    digest.update(carried)
    body.seek(0)
    return digest.hexdigest()


async def _chunks(body: SpooledTemporaryFile[bytes], receive: Receive) -> AsyncIterator[Message]:
    """Give the copied body out again, then whatever the connection says."""
    chunk = body.read(_PIECE)
    while True:
        following = await asyncio.to_thread(body.read, _PIECE) if len(chunk) == _PIECE else b""
        yield {"type": "http.request", "body": chunk, "more_body": bool(following)}
        if not following:
            break
        chunk = following
    while True:
        yield await receive()


async def _replay(kept: IdempotencyRow, digest: str, send: Send, keyring: Keyring | None) -> None:
    if kept.body_sha256 != digest:
        raise IdempotencyMismatch(field="idempotency-key")
    if kept.status is None:
        raise IdempotencyInFlight(retry_after=1)
    body = kept.body or b""
    if keyring is not None:
        body = keyring.decrypt(body.decode("ascii"), _place(kept.id)).reveal().encode("latin-1")
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept.headers]
    headers.append((b"idempotent-replayed", b"true"))
    # RFC 9110, section 8.6: a 204 and a 304 have no length.
    if kept.status not in (204, 304):
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": kept.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _claim(session: Session, identity: str, claim: str, digest: str, now: datetime) -> IdempotencyRow | None:
    """Claim the key, or return the row of who has: kept, or still being served."""
    # The row of a process that died while serving is free again once its lock has run out.
    gone = (IdempotencyRow.expires_at <= now) | (IdempotencyRow.status.is_(None) & (IdempotencyRow.locked_until <= now))
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.id == identity, gone))
    row = {
        "id": identity,
        "claim": claim,
        "body_sha256": digest,
        "locked_until": now + _LOCKED_FOR,
        "expires_at": now + _KEPT_FOR,
        "headers": [],
    }
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(insert(IdempotencyRow).values(row).on_conflict_do_nothing(index_elements=["id"]))
    found = session.get(IdempotencyRow, identity)
    if found is None:
        # Let go of between the two statements, by another connection.
        raise IdempotencyInFlight(retry_after=1)
    return None if found.claim == claim else found


def _keep(session: Session, identity: str, claim: str, status: int, headers: list[list[str]], body: bytes) -> None:
    mine = (IdempotencyRow.id == identity) & (IdempotencyRow.claim == claim)
    session.execute(update(IdempotencyRow).where(mine).values(status=status, headers=headers, body=body))


def _release(session: Session, identity: str, claim: str) -> None:
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.id == identity, IdempotencyRow.claim == claim))
