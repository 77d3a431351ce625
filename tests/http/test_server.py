from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Serve

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
AT_ONCE = 20  # seconds: less than the grace of a child


class Child:
    def __init__(self, grace: int) -> None:
        command = [sys.executable, str(HERE / "served.py"), str(grace)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.port = int(self.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def signal(self, number: int = signal.SIGTERM) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    async def at_work(self) -> None:
        """Wait until a request is being worked on."""
        assert await asyncio.to_thread(self.stdout.readline) == "at work\n"

    async def listens_no_more(self) -> None:
        with pytest.raises(ConnectionRefusedError):
            await self._connect_again_and_again()

    async def _connect_again_and_again(self) -> None:
        while True:
            # What the closing listener has in its queue is reset, not refused.
            with suppress(ConnectionResetError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.transport.abort()
            await asyncio.sleep(0.01)


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    started = Child(getattr(request, "param", 25))
    yield started
    started.process.kill()
    started.process.communicate()


async def wait(child: Child) -> int:
    return await asyncio.to_thread(child.process.wait, 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_at_once_with_0(child: Child, number: int) -> None:
    began = child.signal(number)
    assert await wait(child) == 0
    assert time.monotonic() - began < AT_ONCE
    assert "lifespan ended" in child.process.stdout.read()


async def test_an_open_event_stream_ends_with_an_event(child: Child) -> None:
    lines: list[str] = []
    async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", child.url + "/api/v1/events") as answer:
        began = 0.0
        async for line in answer.aiter_lines():
            lines.append(line)
            if line.startswith("id: 3"):
                began = child.signal()
    assert await wait(child) == 0
    assert time.monotonic() - began < AT_ONCE
    at = lines.index("event: error")
    problem = json.loads(lines[at + 1].removeprefix("data: "))
    assert (problem["code"], problem["retryable"]) == ("shutting_down", True)
    assert problem["request_id"].startswith("req_")


async def test_running_requests_end_properly_while_new_ones_are_refused(child: Child) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        running = asyncio.create_task(client.get(child.url + "/work"))
        await child.at_work()
        child.signal()
        await child.listens_no_more()
        assert not running.done()
        print(file=child.stdin, flush=True)
        assert (await running).text == "done"
    assert await wait(child) == 0


@pytest.mark.parametrize("child", [2], indirect=True)
async def test_what_takes_longer_than_the_grace_is_cut_off(child: Child) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        running = asyncio.create_task(client.get(child.url + "/work"))
        await child.at_work()
        began = child.signal()
        answer = await running
    assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
    assert await wait(child) == 0
    assert 1.5 < time.monotonic() - began < 20


async def test_half_sent_headers_do_not_hold_up_the_end(child: Child) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", child.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: loc")
    await asyncio.sleep(0.2)
    began = child.signal()
    assert await wait(child) == 0
    assert time.monotonic() - began < AT_ONCE
    writer.transport.abort()


async def test_a_second_signal_does_not_wait(child: Child) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        running = asyncio.create_task(client.get(child.url + "/work"))
        await child.at_work()
        began = child.signal()
        await child.listens_no_more()
        child.signal()
        assert (await running).status_code == 503
    assert await wait(child) == 0
    assert time.monotonic() - began < AT_ONCE
    assert "lifespan ended" in child.stdout.read()


def test_a_server_at_rest_pauses_neither_for_its_tick_nor_for_nobody(serve: Serve) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        """Is never asked."""

    def seconds_to_stop() -> float:
        running = serve(app)
        began = time.monotonic()
        running.stop()
        return time.monotonic() - began

    # Each of uvicorn's own ends takes a tenth of a second at least; of so many, one finds this machine idle.
    assert any(seconds_to_stop() < 0.1 for _ in range(50))
