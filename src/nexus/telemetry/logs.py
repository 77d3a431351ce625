"""Logs on standard error: JSON lines for machines, plain lines on a terminal, secrets in neither.

Everything goes through the standard `logging` module; `configure` is called once by each process. What a
record carries in `extra=` becomes members of the JSON line. Redaction works on the finished line, so that
it covers arguments, exception texts and tracebacks alike.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec
import orjson

from nexus.telemetry.context import current, here, ids
from nexus.telemetry.redact import Redactor, redactor
from nexus.telemetry.settings import TelemetrySettings
from nexus.telemetry.traceparent import Entered

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_NOISY: Final = (
    "uvicorn.access",
    "httpx",
    "httpcore",
    "asyncio",
    "multipart",
    "python_multipart",
    "h11",
    "PIL",
    "kombu",
)
_LONGEST: Final = 16_384
_LATEST: Final = 0.25
_AT_ONCE: Final = 200
_encode: Final = msgspec.json.Encoder().encode

Served = tuple[float, Entered, str, str, int, float, str | None]
"""A request that was served: when, which, method, path, status, milliseconds, the client's address."""


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, ids, extras, error."""

    def __init__(self, redact: Redactor = redactor) -> None:
        """Mask with `redact`."""
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST],
            **current(),
        }
        line.update(_extras(record))
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = {"type": record.exc_info[0].__name__, "trace": _trace(record)}
        encoded = orjson.dumps(_clean(line), default=str, option=orjson.OPT_NON_STR_KEYS)
        return self._redact(encoded.decode())


class TextFormatter(logging.Formatter):
    """`07:14:05 INFO  nexus.http  message  key=value` for people."""

    def __init__(self, redact: Redactor = redactor, *, colour: bool = False) -> None:
        """Mask with `redact`."""
        super().__init__()
        self._redact = redact
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it."""
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname:<7}"
        if self._colour:
            level = f"{_COLOURS.get(record.levelno, '')}{level}\x1b[0m"
        text = f"{moment} {level} {record.name}  {record.getMessage()[:_LONGEST]}"
        if record.levelno >= logging.WARNING and "request_id" in (ids := current()):
            text += f"  [{ids['request_id']}]"
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + _trace(record)
        # A terminal obeys control characters, and some of the text comes from strangers.
        return self._redact(_printable(text, keep_escapes=self._colour))


class BufferedHandler(logging.StreamHandler[TextIO]):
    """Writes lines together, a quarter of a second late at the most; warnings and worse at once.

    A system call for each line would cost a busy process more than what the line tells of.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        super().__init__(stream)
        self._waiting: deque[str | Served] = deque()
        self._something = threading.Event()
        self._writer: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        try:
            self.put(self.format(record))
        except Exception:  # noqa: BLE001  as in `logging`: a line that cannot be written must not stop what it tells of
            self.handleError(record)
        if record.levelno >= logging.WARNING:
            self.flush()

    def put(self, line: str | Served) -> None:
        """Take one line, finished or to be made of a request."""
        self._waiting.append(line)
        if not self._something.is_set():
            self._something.set()
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="log", daemon=True)
                self._writer.start()

    def flush(self) -> None:
        """Write what waits."""
        while self._write_some():
            pass

    def _write_some(self) -> bool:
        """Write a lot of what waits; tell whether there was any."""
        self.acquire()
        try:
            lines = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
            if lines:
                self.stream.write("\n".join(line if isinstance(line, str) else _text(line) for line in lines) + "\n")
            super().flush()
        except (OSError, ValueError):
            self._waiting.clear()  # nobody reads any more
            return False
        else:
            return bool(lines)
        finally:
            self.release()

    def _write(self) -> None:
        while True:
            self._something.wait()
            time.sleep(_LATEST)
            self._something.clear()
            while self._write_some():
                time.sleep(0)  # whoever serves has the next turn


def write_access(
    request_id: str, method: str, path: str, route: str, status: int, ms: float, client: str | None
) -> bool:
    """Write the line of one request (`nexus.http.access_log`), in JSON, by a shorter way than a log record's.

    Returns False where lines are not written that way; then it is for `logging`.
    """
    handler = _JSONLines.handler
    if handler is None or handler not in logging.root.handlers:
        return False
    request = here()
    # Of a route's own name and an id of ours nothing is secret.
    known = path == route and request_id.startswith("req_")
    if known and isinstance(request, Entered):
        handler.put((time.time(), request, method, path, status, ms, client))
        return True
    line = {"time": _rfc3339(time.time()), "level": "info", "logger": "nexus.access", "message": "request"}
    told = {"request_id": request_id, "method": method, "path": path, "route": route, "status": status, "ms": ms}
    try:
        text = orjson.dumps({**line, **ids(), **told, "client": client}).decode()
    except (TypeError, ValueError):
        return False
    handler.put(text if known else redactor(text))
    return True


class _Line(msgspec.Struct, gc=False):
    """The line of a request at its route's own path."""

    time: str
    level: str
    logger: str
    message: str
    request_id: str
    trace_id: str
    span_id: str
    method: str
    path: str
    route: str
    status: int
    ms: float
    client: str | None


def _text(served: Served) -> str:
    """Return the line of one request; for the thread that writes it, not for the one that serves."""
    moment, request, method, path, status, ms, client = served
    trace_id, span_id, _ = request.place()
    names = ("info", "nexus.access", "request", request.request_id, trace_id, span_id)
    return _encode(_Line(_rfc3339(moment), *names, method, path, path, status, ms, client)).decode()


class _JSONLines:
    """Who writes the lines of this process, if they are JSON."""

    handler: BufferedHandler | None = None


def _rfc3339(moment: float) -> str:
    second = int(moment)
    if second != _second.value:
        _second.value, _second.text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_second.text}.{int((moment - second) * 1000):03d}Z"


class _Second:
    """The last whole second written out; most lines of a busy process share it."""

    value = -1
    text = ""


_second: Final = _Second()


_COLOURS: Final = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


def configure(settings: TelemetrySettings, *, stream: TextIO | None = None) -> None:
    """Send the logs of the whole process to `stream` (standard error)."""
    target = stream or sys.stderr
    terminal = target.isatty()
    plain = settings.log_format == "text" or (settings.log_format == "auto" and terminal)
    handler = BufferedHandler(target)
    handler.setFormatter(TextFormatter(colour=terminal) if plain else JSONFormatter())
    _JSONLines.handler = None if plain else handler
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery"):
        # These bring handlers of their own, which would not redact.
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and value is not None}


def _trace(record: logging.LogRecord) -> str:
    assert record.exc_info is not None
    text = "".join(traceback.format_exception(*record.exc_info, limit=-30)).rstrip()
    return text[-_LONGEST:]


def _clean(value: Any) -> Any:
    """Replace lone surrogates, which JSON cannot carry."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def _printable(text: str, *, keep_escapes: bool) -> str:
    body = text.encode("utf-8", "replace").decode()
    if keep_escapes:
        head, reset, rest = body.partition("\x1b[0m")
        return head + reset + _printable(rest, keep_escapes=False)
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in body)
