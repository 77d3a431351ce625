"""Every field that an official SDK's request types know, each in a small valid request of its own.

A `Case` is a request with the field and the same request without it: what differs between their translations is what
becomes of the field. Members of unions and values of Literals are cases too. Nothing here belongs to one dialect.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import typing_extensions as te

Body = dict[str, Any]
Put = Callable[[Any], Body]
_WRAPS = (typing.Required, typing.NotRequired, te.Required, te.NotRequired, typing.Annotated)
# Values: of a table by its label, of a field in one (`label.field`), or of a field anywhere; `ALONE` names fields that
# are told of by themselves, since they say in several ways the same.
Samples = Mapping[str, Any]
ALONE = "alone"
_DEEPEST = 9


class Case(NamedTuple):
    """One field, member or value: where it stands, and the request with and without it.

    `idle` is a table that says nothing by itself, since none of its fields is required.
    """

    path: str
    given: Body
    bare: Body
    idle: bool = False


def members(hint: Any) -> list[Any]:
    """Return what a type hint allows, None aside."""
    while get_origin(hint) in _WRAPS:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        return [member for inner in get_args(hint) for member in members(inner)]
    return [] if hint is type(None) else [hint]


def fields_of(shape: Any) -> dict[str, Any]:
    """Return the fields of a TypedDict and their hints."""
    return te.get_type_hints(shape, include_extras=True)


def required(shape: Any) -> set[str]:
    """Return the fields that a TypedDict must have; its own note of them does not see through postponed annotations."""
    total = getattr(shape, "__total__", True)
    told = {name: get_origin(hint) for name, hint in fields_of(shape).items()}
    must, may = (typing.Required, te.Required), (typing.NotRequired, te.NotRequired)
    return {name for name, origin in told.items() if origin in must or (total and origin not in may)}


def label(shape: Any) -> str:
    """Return what a member of a union is called on the wire: its `type` or `role`, else its class."""
    hints = fields_of(shape)
    for name in ("type", "role"):
        if name in hints and get_origin(found := members(hints[name])[0]) is Literal:
            return str(get_args(found)[0])
    return str(shape.__name__)


def minimal(shape: Any, samples: Samples) -> Body:
    """Return the least that is valid of a TypedDict, or the sample of its label."""
    whole = samples.get(label(shape))
    return whole if isinstance(whole, dict) else _required(shape, samples)


def _required(shape: Any, samples: Samples) -> Body:
    hints = fields_of(shape)
    wanted = required(shape) | {name for name in ("type", "role") if name in hints}
    return {
        name: sample(members(hint)[0], f"{label(shape)}.{name}", samples)
        for name, hint in hints.items()
        if name in wanted
    }


def sample(hint: Any, name: str, samples: Samples) -> Any:
    """Return a value of a type; `name` is that of its field, behind the label of what it stands in."""
    origin = get_origin(hint)
    if origin is Literal:
        return get_args(hint)[0]
    if origin not in (None, dict, Mapping):
        return [sample(members(get_args(hint)[0])[0], name, samples)]
    if te.is_typeddict(hint):
        return minimal(hint, samples)
    for known in (name, name.rpartition(".")[2]):
        if known in samples:
            return samples[known]
    return {str: "x", int: 1, float: 0.5, bool: True}.get(hint, {"a": "b"})


def cases(shape: Any, samples: Samples, put: Put, path: str = "", depth: int = 0) -> Iterator[Case]:
    """Yield a case for every field of a TypedDict; `put` makes a request of a value of it."""
    usual, alone = minimal(shape, samples), _required(shape, samples)
    for name, hint in fields_of(shape).items():
        least = alone if name in samples[ALONE] else usual
        here = f"{path}.{name}" if path else name
        bare = {key: value for key, value in least.items() if key != name}

        def into(value: Any, name: str = name, least: Body = least) -> Body:
            return put(least | {name: value})

        if name in ("type", "role") and name in least:
            continue
        without = put(least) if name in required(shape) else put(bare)
        for case in _values(hint, here, f"{label(shape)}.{name}", samples, into, without, depth):
            if case.given != case.bare:
                yield case


def _values(hint: Any, path: str, name: str, samples: Samples, into: Put, without: Body, depth: int) -> Iterator[Case]:
    """Yield a case for every value of a field that its type tells apart."""
    known = members(hint)
    several = len(known) > 1
    for member in known:
        origin = get_origin(member)
        if origin is Literal:
            yield from (Case(f"{path}={value}", into(value), without) for value in get_args(member))
        elif te.is_typeddict(member):
            here = f"{path}[{label(member)}]" if several else path
            yield Case(here, into(minimal(member, samples)), without, _is_idle(minimal(member, samples)))
            if depth < _DEEPEST:
                yield from cases(member, samples, into, here, depth + 1)
        elif origin is not None and origin not in (dict, Mapping):
            yield from _items(get_args(member)[0], path, name, samples, into, depth)
        else:
            here = f"{path}:{getattr(member, '__name__', 'dict')}" if several else path
            yield Case(here, into(sample(member, name, samples)), without)


def _items(inner: Any, path: str, name: str, samples: Samples, into: Put, depth: int) -> Iterator[Case]:
    """Yield a case for every kind of item of a list; the list without it is empty."""
    for item in members(inner):
        if te.is_typeddict(item):
            here = f"{path}[{label(item)}]"
            yield Case(here, into([minimal(item, samples)]), into([]), _is_idle(minimal(item, samples)))
            if depth < _DEEPEST:
                yield from cases(item, samples, lambda value: into([value]), here, depth + 1)
        elif get_origin(item) is Literal:
            yield from (Case(f"{path}=[{value}]", into([value]), into([])) for value in get_args(item))
        else:
            kind = get_origin(item) or item
            yield Case(f"{path}[{kind.__name__}]", into([sample(item, name, samples)]), into([]))


def _is_idle(value: Body) -> bool:
    inner = [told for name, told in value.items() if name not in ("type", "role")]
    return all(isinstance(told, dict) and _is_idle(told) for told in inner)


def under(path: str, parents: Iterable[str]) -> bool:
    """Tell whether a path lies below one of these."""
    return any(path.startswith((f"{parent}.", f"{parent}[", f"{parent}=")) for parent in parents)
