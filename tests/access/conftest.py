"""The access slice behind its real layers, and people of every role."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI, Request
from starlette.datastructures import State
from tests.clock import MovedClock

from nexus.access.asgi import Authentication
from nexus.access.guard import requires
from nexus.access.idempotency import Idempotency
from nexus.access.routes import router
from nexus.access.service import AccessService
from nexus.access.settings import AccessSettings
from nexus.access.types import Principal, Scope
from nexus.core.clock import Clock
from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.http.handlers import install
from nexus.storage.caches.memory import MemoryCache
from nexus.storage.db import Database

KEYRING = Keyring(b"k" * 32)
PASSWORD = "a plain but long sentence"
ORIGIN = "http://localhost:8000"


def make_access(database: Database, clock: Clock | None = None, **settings: Any) -> AccessService:
    service = AccessService(
        database=database, keyring=KEYRING, cache=MemoryCache(), settings=AccessSettings(**settings), clock=clock
    )
    # As strong as they are outside, hashes of passwords take half the time of these tests; `test_passwords` has those.
    service._passwords._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    return service


@pytest.fixture
async def access(database: Database) -> AsyncIterator[AccessService]:
    service = make_access(database)
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def any_access(any_database: Database, clock: MovedClock) -> AsyncIterator[AccessService]:
    service = make_access(any_database, clock)
    await service.start()
    yield service
    await service.stop()


def make_app(access: AccessService, database: Database) -> Any:
    app = copy(routed())
    app.state = State({"services": Services(), "made": []})
    app.state.services.put(access)
    return Authentication(Idempotency(app, database=database), access=access)


@cache
def routed() -> FastAPI:
    """An app with every route, which is understood once; each test has a copy with a state of its own."""
    app = FastAPI(openapi_url=None)
    install(app)
    app.include_router(router)

    @app.post("/api/v1/things", status_code=201)
    async def make_thing(
        request: Request, who: Annotated[Principal, requires(Scope.FILES_WRITE)], body: dict[str, Any]
    ) -> dict[str, int]:
        request.app.state.made.append(1)
        return {"number": len(request.app.state.made)}

    for scope in Scope:
        add_probe(app, scope)

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE", "PATCH"])
    async def anything(path: str) -> str:
        return "reached"

    return app


def add_probe(app: FastAPI, scope: Scope) -> None:
    guard = requires(scope)

    @app.get(f"/api/v1/probe/{scope.value.replace(':', '.')}")
    async def probe(who: Principal = guard) -> str:
        return who.id


@dataclass
class Browser:
    """A signed-in person's HTTP client."""

    client: httpx.AsyncClient
    me: dict[str, Any] = field(default_factory=dict)

    async def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        return self.taken(await self.client.post("/api/v1/auth/login", json={"email": email, "password": password}))

    def taken(self, response: httpx.Response) -> httpx.Response:
        if response.status_code in (200, 201):
            self.me = response.json()
            self.client.headers["x-csrf-token"] = self.me["csrf_token"]
        return response


NewBrowser = Callable[..., Browser]


@asynccontextmanager
async def browsers(app: Any) -> AsyncIterator[NewBrowser]:
    opened: list[httpx.AsyncClient] = []

    def make(client: tuple[str, int] = ("203.0.113.5", 1), **headers: str) -> Browser:
        transport = httpx.ASGITransport(app=app, client=client)
        made = httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"origin": ORIGIN} | headers)
        opened.append(made)
        return Browser(made)

    yield make
    for client in opened:
        await client.aclose()


@pytest.fixture
async def browser(access: AccessService, database: Database) -> AsyncIterator[NewBrowser]:
    async with browsers(make_app(access, database)) as make:
        yield make


@pytest.fixture
async def root(access: AccessService, browser: NewBrowser) -> Browser:
    """The first administrator, signed in."""
    await access.accounts.create_admin("root@example.com", PASSWORD)
    made = browser()
    assert (await made.sign_in("root@example.com")).status_code == 200
    return made


@pytest.fixture
def person(root: Browser, browser: NewBrowser) -> Any:
    """Make a user with a role in a project (the default one) and sign them in."""

    async def make(role: str, name: str = "", project_id: str | None = None) -> Browser:
        email = f"{name or role}@example.com"
        made = await root.client.post("/api/v1/users", json={"email": email, "password": PASSWORD})
        assert made.status_code == 201, made.text
        url = f"/api/v1/projects/{project_id or root.me['project_id']}/members"
        joined = await root.client.post(url, json={"email": email, "role": role})
        assert joined.status_code == 201, joined.text
        own = browser()
        assert (await own.sign_in(email)).status_code == 200
        return own

    return make
