"""Strict reading of what clients send, with errors that name the field in dotted form.

Every dialect decodes its requests here, so that NUL, invalid UTF-8, endless nesting and wrong types are
refused in the same way at every door.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from nexus.core.errors import MalformedBody, NexusError
from nexus.llm.errors import InvalidRequest, MissingParameter, WrongType

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def decode_checked(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Decode a request body strictly. Raises `MalformedBody`, or `InvalidRequest` naming the field."""
    if body.find(b"\\u0000") >= 0 and _NUL.search(body):
        raise MalformedBody("The body must not contain the NUL character.")
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _out_of_range(str(error), decoder.type) or wrong_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody("The body is not valid JSON.") from None


def _out_of_range(text: str, shape: type) -> NexusError | None:
    """Return an error that names both bounds of a number of `shape` which is beyond one of them."""
    found = re.fullmatch(r"Expected `(?:int|float)` [<>]=? \S+ - at `\$\.(\w+)`", text)
    if found is None:
        return None
    name = found.group(1)
    hint = next(field.type for field in msgspec.structs.fields(shape) if field.encode_name == name)
    bounds = [item for item in _metas(hint) if item.ge is not None]
    low, high = bounds[0].ge, bounds[0].le
    return InvalidRequest(f"{name} must be between {low} and {high}.", field=name)


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    """Yield the bounds in a type hint."""
    yield from (item for item in getattr(hint, "__metadata__", ()) if isinstance(item, msgspec.Meta))
    for part in get_args(hint):
        yield from _metas(part)


def wrong_field(text: str, prefix: str = "") -> NexusError:
    """Turn msgspec's own words (`Expected X, got Y - at $.path`) into an error that names the field."""
    what, _, path = text.partition(" - at `$")
    field = (prefix + re.sub(r"\[(\d+)\]", r".\1", path.rstrip("`").replace("[...]", ""))).lstrip(".")
    if found := re.search(r"missing required field `(\w+)`", what):
        field = f"{field}.{found.group(1)}" if field else found.group(1)
        return MissingParameter(f"The parameter {field} is required.", field=field)
    if not field:
        return MalformedBody("The body must be a JSON object.")
    return WrongType(f"{field}: {what.replace('`', '')}.", field=field)
