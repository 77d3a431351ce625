"""Many streams at once through one worker of a real instance: no error, flat memory, every descriptor given back."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
from tests.cli.test_fakes import running
from tests.integration.test_survival import _child

from nexus.cli.instance import ALONE, Place, private

pytestmark = pytest.mark.slow

WORDS = 20
MODEL = f"slow-250+long-{WORDS}"  # five seconds for each stream
KINDS = {"openai": "/v1", "anthropic": "", "google": "/v1beta"}


@dataclass
class Load:
    """So many callers, each with one stream after another until `until`."""

    place: Place
    until: float
    counts: Counter[str] = field(default_factory=Counter)

    async def caller(self, number: int) -> None:
        """Ask for streams; every one must be whole."""
        address = urlsplit(self.place.url)
        kind = list(KINDS)[number % len(KINDS)]
        ask = {"model": f"{kind}/{MODEL}", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        body = json.dumps(ask).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
            f"authorization: Bearer {self.place.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        while time.monotonic() < self.until:
            try:
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                writer.write(head.encode() + body)
                answer = await asyncio.wait_for(reader.read(-1), 60)
                writer.close()
            except (OSError, TimeoutError) as error:
                self.counts[f"{type(error).__name__} {error}"] += 1
                continue
            said = all(f"word{index}".encode() in answer for index in range(WORDS))
            whole = answer.count(b"data: [DONE]") == 1 and b'"error"' not in answer
            self.counts["whole" if said and whole else answer[-300:].decode(errors="replace")] += 1


async def play(load: Load, streams: int, api: psutil.Process) -> list[tuple[float, int, int]]:
    """Run the load, and look at memory and file descriptors each second."""
    callers = [asyncio.create_task(load.caller(number)) for number in range(streams)]
    seen = []
    while not all(caller.done() for caller in callers):
        seen.append((time.monotonic(), api.memory_info().rss, api.num_fds()))
        await asyncio.sleep(1)
    await asyncio.gather(*callers)
    return seen


@pytest.mark.parametrize(
    ("streams", "seconds"), [(200, 15), pytest.param(1000, 300, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_many_streams_leave_nothing_behind(tmp_path: Path, streams: int, seconds: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    try:
        with running("fake-upstream") as (url, _):
            soak(tmp_path, url.removesuffix("/v1"), streams, seconds)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def soak(folder: Path, fake: str, streams: int, seconds: int) -> None:
    providers = [{"name": k, "kind": k, "base_url": fake + end, "api_key": "k"} for k, end in KINDS.items()]
    settings = ALONE | {
        "NEXUS_LLM__PROVIDERS": json.dumps(providers),
        "NEXUS_LLM__LOCAL__ENABLED": "false",
        "NEXUS_LLM__EMBEDDINGS__ENABLED": "false",
        "NEXUS_LLM__KEEPALIVE": "1",
    }
    with private(folder, settings=settings, log=folder / "log") as (place, process):
        api = _child(process.pid, "api")
        asyncio.run(play(warm := Load(place, time.monotonic() + 1), 20, api))
        assert set(warm.counts) == {"whole"}, warm.counts
        time.sleep(3)
        idle = api.num_fds()
        load = Load(place, time.monotonic() + seconds)
        seen = asyncio.run(play(load, streams, api))
        time.sleep(4)
        left = api.num_fds()
        rss = [memory for _, memory, _ in seen]
        full = rss[min(6, len(rss) - 1) :]  # all streams are open by now
        growth = max(full[len(full) // 2 :]) - max(full[: len(full) // 2 + 1])
        print(
            f"{streams} streams for {seconds} s: {load.counts['whole']} whole, memory {rss[0] / 1e6:.0f} to "
            f"{max(rss) / 1e6:.0f} MB, growth while full {growth / 1e6:.1f} MB, descriptors {idle} idle, "
            f"{max(fds for _, _, fds in seen)} at most, {left} left"
        )
        assert set(load.counts) == {"whole"}, load.counts
        assert load.counts["whole"] >= streams * (seconds // 8)
        assert max(fds for _, _, fds in seen) >= streams, "they were open at once"
        assert growth < 10e6 + streams * 5_000
        assert max(rss) < 250e6
        assert left <= idle + 5
        with httpx2.Client(base_url=place.url, headers={"authorization": f"Bearer {place.key}"}) as client:
            rows = recorded(client)
        assert rows == load.counts["whole"] + warm.counts["whole"]


def recorded(client: httpx2.Client) -> int:
    """Return how many chats are on record, all of them well."""
    count, cursor = 0, None
    while True:
        params = {"limit": "100", "kind": "chat", **({"cursor": cursor} if cursor else {})}
        body = client.get("/api/v1/invocations", params=params).json()
        assert all(row["status"] == "ok" for row in body["data"])
        count += len(body["data"])
        cursor = body["next_cursor"]
        if not cursor:
            return count
