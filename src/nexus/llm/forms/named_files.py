"""Files of ours that a request names by id, and the request with what they hold in their place. No I/O.

Each form has a `Naming`, which says where it names files. What names none of ours keeps its very bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from nexus.core.ids import is_id
from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.types import Call, ChatRequest, Media, Need, Text, ToolResult

# Ids begin with the time, whose first letter stays the same until the year 3084.
_MARK: Final = b"file_0"
_FEW: Final = 32
# A multiple of three, so that the pieces' base64 is that of the whole.
_PIECE: Final = 3 * 2**17
_MEDIA: Final[frozenset[Need]] = frozenset(("images", "audio", "documents"))
_KINDS: Final[dict[str, Any]] = {"image": "image", "audio": "audio", "video": "video"}
_WORDS: Final = frozenset(
    f"application/{kind}"
    for kind in ("json", "x-ndjson", "jsonl", "xml", "yaml", "x-yaml", "toml", "sql", "javascript", "x-sh", "csv")
)
_MARKUP: Final = ("+json", "+xml", "+yaml")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class NamedFile(NamedTuple):
    """What a file holds, and what it is called."""

    name: str
    media_type: str
    content: bytes

    @property
    def kind(self) -> str:
        """Return image, audio, video or document."""
        return str(_KINDS.get(self.media_type.partition("/")[0], "document"))

    @property
    def is_words(self) -> bool:
        """Tell whether it is a document of words, which every model can read."""
        kind = self.media_type
        return (
            kind.startswith("text/") or kind in _WORDS or (kind.startswith("application/") and kind.endswith(_MARKUP))
        )

    def words(self, field: str) -> str:
        """Return what a document of words says. Raises `InvalidRequest` naming `field` where that is no UTF-8."""
        try:
            text = self.content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InvalidRequest(f"{field}: the text of this file is not in UTF-8.", field=field) from None
        if "\0" in text:
            raise InvalidRequest(f"{field}: the text of this file has NUL characters.", field=field)
        return text

    @property
    def data(self) -> str:
        """Return the content in base64, made in pieces: other threads get their turn between them."""
        view = memoryview(self.content)
        pieces = (view[at : at + _PIECE] for at in range(0, len(view), _PIECE))
        return b"".join(map(base64.b64encode, pieces)).decode()

    def part(self, field: str, name: str | None = None) -> Text | Media:
        """Return it as a part of a message: words under their name, anything else as it is."""
        name = name or self.name
        if self.is_words:
            return Text(text=f"{name}\n{self.words(field)}")
        return Media(kind=_KINDS.get(self.kind, "document"), media_type=self.media_type, data=self.data, name=name)


class Spot(NamedTuple):
    """Where a request names a file of ours: in `parts[key]`, for which `put` writes one that holds the file."""

    file_id: str
    field: str
    parts: Any
    key: int | str
    put: Callable[[dict[str, Any], NamedFile, str], dict[str, Any]]


class Naming(NamedTuple):
    """How a form names files: `spots` finds them in one turn, whose place it is told.

    `fields` are those of a request that hold turns, with the names that errors give them; `inside` are fields
    that hold a whole request.
    """

    fields: Mapping[str, str]
    spots: Callable[[Any, str], Iterator[Spot]]
    inside: tuple[str, ...] = ()


class Opened:
    """A request opened as far as it may name files of ours: `spots` are where it does."""

    def __init__(self, body: bytes, naming: Naming) -> None:
        """Open a body whose form has been checked."""
        self.spots: list[Spot] = []
        self._naming = naming
        try:
            self._told = self._open(body)
        except (msgspec.MsgspecError, RecursionError):
            self.spots.clear()  # something else is wrong with it, and who reads it will say so

    def filled(self, files: Mapping[str, NamedFile]) -> bytes:
        """Return the body with files, by id, in their places. Raises an error that names a field that takes no such."""
        for spot in self.spots:
            spot.parts[spot.key] = spot.put(spot.parts[spot.key], files[spot.file_id], spot.field)
        return _encode(self._told)

    def _open(self, body: bytes | msgspec.Raw) -> dict[str, Any]:
        told: dict[str, Any] = _fields.decode(body)
        for name, label in self._naming.fields.items():
            if (raw := told.get(name)) is None or not _has_mark(raw):
                continue
            if bytes(raw).startswith(b"["):
                told[name] = [self._turn(turn, f"{label}.{i}") for i, turn in enumerate(_list.decode(raw))]
            else:
                told[name] = self._turn(raw, label)
        for name in self._naming.inside:
            if (raw := told.get(name)) is not None and _has_mark(raw):
                told[name] = self._open(raw)
        return told

    def _turn(self, raw: msgspec.Raw, place: str) -> Any:
        """Return a turn decoded where it names a file, else as it is."""
        if not _has_mark(raw):
            return raw
        turn = _any.decode(raw)
        found = list(self._naming.spots(turn, place))
        self.spots += found
        return turn if found else raw


def may_name_files(call: Call) -> bool:
    """Tell, at next to no cost, whether a request may name files of ours: it needs what files are for."""
    return bool(call.needs) and not call.needs.isdisjoint(_MEDIA) and has_mark(call.body)


def has_mark(body: bytes) -> bool:
    """Tell whether a body may name files of ours.

    Where media are at hand that is megabytes of base64, which has no underscore: one byte is found thirty times faster
    than several.
    """
    at = -1
    for _ in range(_FEW):
        at = body.find(b"_", at + 1)
        if at < 0:
            return False
        if body.startswith(_MARK, max(0, at - 4)):
            return True
    return body.find(_MARK, at) >= 0


def refuse_ours(given: Any, field: str) -> None:
    """Raise `Unsupported`, naming `field`, for an id of ours, or a list with one, where only a provider's will do."""
    listed = isinstance(given, list)
    for i, one in enumerate(given if listed else (given,)):
        if isinstance(one, str) and is_id(one, "file"):
            place = f"{field}.{i}" if listed else field
            raise Unsupported(
                f"{place} names a file of this server, which the model's provider does not have. Give the file where "
                "contents of messages may name one, or upload it at the provider.",
                field=place,
            )


def refuse_ours_in(request: ChatRequest) -> ChatRequest:
    """Return a request of this process. Raises `Unsupported` where one of its media is an id of ours."""
    for i, message in enumerate(request.messages):
        for j, part in enumerate(message.parts):
            if isinstance(part, Media):
                refuse_ours(part.file_id, f"messages.{i}.parts.{j}.file_id")
            elif isinstance(part, ToolResult):
                for k, shown in enumerate(part.content):
                    if isinstance(shown, Media):
                        refuse_ours(shown.file_id, f"messages.{i}.parts.{j}.content.{k}.file_id")
    return request


def spot_of(
    given: Any,
    field: str,
    parts: Any,
    key: int | str,
    put: Callable[[dict[str, Any], NamedFile, str], dict[str, Any]],
) -> Iterator[Spot]:
    """Yield the spot where `given` is an id of ours, nothing where it is another's."""
    if isinstance(given, str) and is_id(given, "file"):
        yield Spot(given, field, parts, key, put)


def parts_of(holder: Any, name: str) -> Iterator[tuple[int, dict[str, Any], list[Any]]]:
    """Yield the parts in a list of a decoded turn, with their places and the list."""
    found = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(found, list):
        for j, part in enumerate(found):
            if isinstance(part, dict):
                yield j, part, found


def _has_mark(raw: msgspec.Raw) -> bool:
    return has_mark(bytes(raw))
