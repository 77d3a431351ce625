"""A real server with the language slice behind real HTTP, and a fake provider in front of it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from tests.apps import app_with
from tests.clock import until

from nexus.access.types import Principal, Scope
from nexus.core.services import Services
from nexus.http.dispatch import Dispatch
from nexus.http.edge import build_edge
from nexus.http.lifecycle import Lifecycle
from nexus.http.server import make_server
from nexus.http.settings import HTTPSettings
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.llm.hot import hot_routes
from nexus.llm.routes import router
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.text import TextTasks
from nexus.storage.db import Database
from nexus.testing.upstream import FakeUpstream

WHO = Principal("key", "key_1", "prj_1", frozenset({Scope.LLM_INVOKE, Scope.ADMIN}), key_id="key_1")


@dataclass
class Gateway:
    """A running server: its address, its service, and every row that its ledger was given."""

    url: str
    llm: LLMService
    rows: list[Invocation]

    def row(self) -> Invocation:
        """Return the single row that must come to be there."""
        until(lambda: self.rows)
        time.sleep(0.005)
        assert len(self.rows) == 1, self.rows
        return self.rows[0]


PATIENT = {"connect": 30, "first_token": 30, "between_tokens": 30, "total": 60}
"""Timeouts for tests where none is late on purpose: a machine that has other things to do fails none."""
QUICK = {"connect": 5, "first_token": 0.5, "between_tokens": 0.5, "total": 5}
"""Timeouts for tests that wait for one."""


def fast(**more: Any) -> dict[str, Any]:
    """Settings that suit a test."""
    return {
        "timeouts": dict(PATIENT),
        "local": {"enabled": False},
        "embeddings": {"enabled": False},
    } | more


@contextmanager
def serving(
    llm: LLMService, ledger: Ledger, principal: Principal = WHO, *more: Any, routers: Sequence[APIRouter] = ()
) -> Iterator[Gateway]:
    """Serve the slice, and `more` services, started with it, with our server in a thread; `routers` are others'."""
    services = Services()
    for one in (llm, ledger, TextTasks(llm=llm), *more):
        services.put(one)
    api = app_with(services, router, *routers)
    inner = Dispatch(api, services=services, hot=hot_routes())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(more, receive, send)
            return
        await edge(scope, receive, send)

    async def known(scope: Any, receive: Any, send: Any) -> None:
        scope["principal"] = principal
        await inner(scope, receive, send)

    http, lifecycle = HTTPSettings(), Lifecycle()
    edge = build_edge(known, settings=http, lifecycle=lifecycle)

    rows: list[Invocation] = []
    ledger.on_record(rows.append)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = make_server(app, http, lifecycle, log_level="warning")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", llm, rows)
    finally:
        server.should_exit = True
        thread.join(0.1)
        server.force_exit = True
        thread.join(5)
        listener.close()


async def _live(services: tuple[Any, ...], receive: Any, send: Any) -> None:
    """Start what can be started with the server, and stop it with it."""
    await receive()
    for one in services:
        if hasattr(one, "start"):
            await one.start()
    await send({"type": "lifespan.startup.complete"})
    with suppress(asyncio.CancelledError):
        await receive()
    for one in services:
        if hasattr(one, "stop"):
            await one.stop()
    await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as server:
        yield server


@pytest.fixture
def ledger(database: Database, tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(database=database, folder=tmp_path / "ledger")
    yield ledger
    ledger.flush_now()


@pytest.fixture
def make_gateway(upstream: FakeUpstream, ledger: Ledger) -> Iterator[Callable[..., Gateway]]:
    """Return a function that serves the slice; its provider `up` is the fake, its settings may be changed."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Gateway:
            provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}
            settings = LLMSettings(**fast(**{"providers": [provider]} | changes))
            llm = LLMService(settings=settings, record=ledger.record)
            return stack.enter_context(serving(llm, ledger))

        yield make


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway()
