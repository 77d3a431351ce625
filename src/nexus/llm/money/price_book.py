"""Published prices without the memory that reading them takes: asked of a child, kept on disk for later starts."""

from __future__ import annotations

import logging
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from nexus.compute.settings import inherited_environment
from nexus.llm.money.pricing import Question
from nexus.llm.types import Price

_log = logging.getLogger("nexus.llm")
_PATIENCE = 30.0
_IDLE = 10.0
_ASK_AGAIN = 60.0
_MOST_KEPT = 4096
_FOREVER = float("inf")


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """An answer; `until` is None where nothing is known to change it."""

    question: Question
    price: Price | None
    until: float | None


class _Page(msgspec.Struct, frozen=True):
    """What the file holds: answers of one version of the data."""

    source: str
    entries: list[_Entry]


class PriceBook:
    """The `Published` of a server: `nexus.llm.money.published_prices` runs as a child that ends when nobody asks.

    What it said stands in `file` until it may have changed or other data is installed, so most starts need no
    child. Safe to call from any thread.
    """

    def __init__(self, file: Path) -> None:
        """Read nothing yet."""
        self._file = file
        self._entries: dict[Question, _Entry] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._rest: threading.Timer | None = None
        self._mutex = threading.Lock()

    def find_all(self, questions: Sequence[Question]) -> list[tuple[Price | None, float]]:
        """Return for each the price now and until when it holds; for what cannot be read now, None for a minute."""
        with self._mutex:
            if self._entries is None:
                self._entries = self._read()
            now = time.time()
            kept = {item: self._entries[item] for item in questions if item in self._entries}
            kept = {item: entry for item, entry in kept.items() if entry.until is None or entry.until > now}
            missing = [item for item in dict.fromkeys(questions) if item not in kept]
            if missing:
                kept |= self._learn(missing, now)
        return [_told(kept[item]) for item in questions]

    def close(self) -> None:
        """End the child, if there is one."""
        with self._mutex:
            self._end()

    def _learn(self, missing: list[Question], now: float) -> dict[Question, _Entry]:
        assert self._entries is not None
        try:
            answers = self._ask(missing)
        except (OSError, ValueError) as error:
            _log.warning("published prices could not be read: %s", error)
            return {item: _Entry(item, None, now + _ASK_AGAIN) for item in missing}
        learnt = {item: _Entry(item, *answer) for item, answer in zip(missing, answers, strict=True)}
        if len(self._entries) + len(learnt) > _MOST_KEPT:
            self._entries.clear()
        self._entries |= learnt
        self._write()
        return learnt

    def _ask(self, missing: list[Question]) -> list[tuple[Price | None, float | None]]:
        """Ask the child, starting it where there is none. Raises OSError or ValueError when it does not answer."""
        if self._rest is not None:
            self._rest.cancel()
        try:
            if self._child is None or self._child.poll() is not None:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "nexus.llm.money.published_prices"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    env=inherited_environment(),
                )  # fmt: skip
            child = self._child
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(msgspec.json.encode(missing) + b"\n")
            child.stdin.flush()
            if not select.select([child.stdout], [], [], _PATIENCE)[0]:
                raise TimeoutError("no answer in time")
            return msgspec.json.decode(child.stdout.readline(), type=list[tuple[Price | None, float | None]])
        except (OSError, ValueError):
            self._end()
            raise
        finally:
            self._rest = threading.Timer(_IDLE, self.close)
            self._rest.daemon = True
            self._rest.start()

    def _end(self) -> None:
        child, self._child = self._child, None
        if self._rest is not None:
            self._rest.cancel()
        if child is not None:
            child.kill()
            child.communicate()

    def _read(self) -> dict[Question, _Entry]:
        try:
            page = msgspec.json.decode(self._file.read_bytes(), type=_Page)
        except (OSError, ValueError):
            return {}
        return {entry.question: entry for entry in page.entries} if page.source == _source() else {}

    def _write(self) -> None:
        assert self._entries is not None
        temporary = self._file.with_name(f".{self._file.name}.{threading.get_native_id()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(_Page(_source(), list(self._entries.values()))))
            temporary.replace(self._file)
        except OSError as error:
            _log.warning("published prices could not be kept: %s", error.strerror)


def _told(entry: _Entry) -> tuple[Price | None, float]:
    return entry.price, _FOREVER if entry.until is None else entry.until


def _source() -> str:
    return f"genai-prices {version('genai-prices')}"
