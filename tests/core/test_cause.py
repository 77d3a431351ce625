"""Which run is behind what is done: by a step itself, and by a call that a step has made."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from nexus.core.cause import behind, run_behind, run_of_key
from nexus.core.services import Services
from nexus.http.dispatch import Dispatch

RUN = "run_01ja8w3xk5v0m2c7tqz9r4h6ye"


@pytest.mark.parametrize(
    ("key", "run_id"),
    [
        (f"{RUN}.tell", RUN),
        (f"{RUN}.tell.7".encode(), RUN),
        (RUN, None),
        (f"x{RUN}.tell", None),
        (f"{RUN.replace('run', 'alr')}.tell", None),
        ("run_short.tell", None),
        (b"\xff.tell", None),
        ("", None),
        (None, None),
    ],
)
def test_keys_of_steps_name_their_run(key: str | bytes | None, run_id: str | None) -> None:
    assert run_of_key(key) == run_id


async def test_it_holds_for_a_block_and_the_tasks_begun_in_it() -> None:
    async def ask() -> str | None:
        await asyncio.sleep(0)
        return run_behind()

    with behind(RUN):
        task = asyncio.create_task(ask())
    assert run_behind() is None
    assert await task == RUN


@pytest.mark.parametrize(("path", "seen"), [("/api/v1/models", RUN), ("/runs", None)])
async def test_a_call_of_a_step_is_known_by_its_key(path: str, seen: str | None) -> None:
    heard = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        heard.append(run_behind())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx2.ASGITransport(app=Dispatch(app, services=Services(), hot={}))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.get(path, headers={"idempotency-key": f"{RUN}.tell"})
        await client.get(path)
    assert heard == [seen, None]
