"""The fields of the official SDKs' types, one by one, and what becomes of each with every kind of provider.

A table has a row for each field: a value, the place in a whole request where it goes, and its fate. A field that
a new version of an SDK brings has no row, and its test fails until somebody has decided.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from typing_extensions import is_typeddict

from nexus.core.errors import NexusError
from nexus.core.plugins import PluginFolder
from nexus.core.secrets import Secret
from nexus.llm.account import Account, Endpoint
from nexus.llm.cache.key import digest_of
from nexus.llm.dialect import Dialect
from nexus.llm.provider import Provider
from nexus.llm.routing.abilities import able_as
from nexus.llm.routing.fitting import unfit
from nexus.llm.types import Call, Deployment, Route

PROVIDERS: PluginFolder[Provider] = PluginFolder("nexus.llm.providers", Provider, noun="kind")  # type: ignore[type-abstract]
Fate = str  # "said", "refused", or "left: why"
# What others than its own kind are asked by: a kind of provider, a model, options of the account.
TARGETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": ("openai", "gpt-5", {}),
    "responses": ("openai_responses", "gpt-5", {}),
    "messages": ("anthropic", "claude-sonnet-4-5", {}),
    "gemini": ("google", "gemini-2.5-flash", {}),
    "claude": ("bedrock", "anthropic.claude-sonnet-4-5-v1:0", {"api": "converse"}),
    "nova": ("bedrock", "amazon.nova-2-pro-v1:0", {}),
}


class Row(NamedTuple):
    """A field's value, its fate, and where its fate is another one.

    `other` names targets (see `TARGETS`), or values of a choice as `=value`.
    """

    value: Any
    fate: Fate
    other: Mapping[str, Fate] = MappingProxyType({})


# The types of the SDKs.


def short(name: str) -> str:
    """Return a type's name without what tells its forms apart."""
    return re.sub(r"(Param)+$", "", name.removeprefix("Beta").removeprefix("Request"))


def union(hint: Any) -> list[Any]:
    """Return the members of a hint, whatever it is wrapped in."""
    origin = get_origin(hint)
    if origin is not None and getattr(origin, "_name", str(origin)) in ("Required", "NotRequired", "ReadOnly"):
        return union(get_args(hint)[0])
    if origin is typing.Annotated:
        return union(get_args(hint)[0])
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        return [member for inner in get_args(hint) for member in union(inner)]
    if origin in (list, dict) or getattr(origin, "__module__", "") == "collections.abc":
        return [member for inner in get_args(hint) for member in union(inner)]
    return [hint]


def fields_of(shape: type, whole: frozenset[str] | set[str], seen: set[str]) -> Iterator[str]:
    """Yield `Type` and `Type.field` for all below a type, `Type.field=value` where there is a choice.

    Types and fields in `whole` are not looked into.
    The kind in a `type` that is always the same is no choice.
    """
    name = short(shape.__name__)
    if name in seen:
        return
    seen.add(name)
    yield name
    if name in whole:
        return
    for field, hint in hints_of(shape).items():
        told = union(hint) if f"{name}.{field}" not in whole else []
        choices = [value for member in told for value in choices_of(member)]
        if field == "type" and len(choices) == 1:
            pass
        elif len(choices) > 1 and field not in ("model",):
            yield from (f"{name}.{field}={value}" for value in choices)
        else:
            yield f"{name}.{field}"
        for member in told:
            if isinstance(member, type) and (is_typeddict(member) or hasattr(member, "model_fields")):
                yield from fields_of(member, whole, seen)


def choices_of(hint: Any) -> list[Any]:
    """Return the values of a choice, none for what is none."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [member.value for member in hint]
    return list(get_args(hint)) if get_origin(hint) is Literal else []


def hints_of(shape: type) -> dict[str, Any]:
    if hasattr(shape, "model_fields"):
        return {field.alias or name: field.annotation for name, field in shape.model_fields.items()}
    return get_type_hints(shape, include_extras=True)


# What becomes of them.


def put(body: Any, place: str, value: Any) -> Any:
    """Return a request with a value in its place."""
    body = copy.deepcopy(body)
    *way, last = place.split(".")
    around = body
    for name in way:
        around = around[int(name)] if isinstance(around, list) else around.setdefault(name, {})
    if isinstance(around, list):
        around[int(last) : int(last) + 1] = [value]
    else:
        around[last] = value
    return body


class Table(NamedTuple):
    """What a client of one dialect may send: a whole request, and the rows for the types and fields of its SDK.

    `shapes` says where one of each type stands (after the name of another type: within that one), and what it is at
    least; `inside` where it lies deeper than the place that it is put in. `lists` are fields whose choice is a list.
    """

    dialect: Dialect
    path: str
    base: dict[str, Any]
    shapes: dict[str, tuple[str, Row]]
    fields: dict[str, Row]
    inside: Mapping[str, str] = MappingProxyType({})
    lists: tuple[str, ...] = ()

    def pair(self, name: str) -> tuple[dict[str, Any], dict[str, Any], Row, str]:
        """Return two requests that differ by what is named, its row, and the place of the difference."""
        kind, _, field = name.partition(".")
        assert kind in self.shapes, f"a new type: decide what becomes of {kind}"
        place, row = self.shapes[kind]
        before = self.base
        if place.partition(".")[0] in self.shapes:
            around, _, rest = place.partition(".")
            place = f"{self.shapes[around][0]}.{rest}"
            before = put(before, self.shapes[around][0], self.shapes[around][1].value)
        if not field:
            return before, put(before, place, row.value), row, place
        before = put(before, place, row.value) if place else before
        told, _, value = field.partition("=")
        place = ".".join(part for part in (place, self.inside.get(kind), told) if part)
        found = self.fields.get(name) or self.fields.get(f"{kind}.{told}")
        assert found is not None, f"a new field: decide what becomes of {name}"
        row = found
        if value:
            row = row._replace(value=[value] if told in self.lists else value)
        return before, put(before, place, row.value), row, place

    def wrong(self, names: list[str], target: str) -> list[str]:
        """Return what does not have its fate with a target."""
        found = []
        for name in names:
            before, after, row, place = self.pair(name)
            wanted = row.other.get(target, row.fate)
            got = self._fate(before, after, target)
            field = got.removeprefix("refused ")
            refused = field != got and (place.startswith(field) or field.startswith(place))
            if not (refused if wanted == "refused" else got == wanted.partition(":")[0]):
                found.append(f"{name} ({place}): {got}, not {wanted}")
        return found

    def _fate(self, before: dict[str, Any], after: dict[str, Any], target: str) -> Fate:
        """Return what becomes of a difference: "said" (also what can be said only now), "left", or "refused FIELD"."""
        try:
            sent = self.write(after, target)
        except NexusError as error:
            return f"refused {error.field}" if error.status == 400 else f"{error.status}"
        try:
            return "left" if sent == self.write(before, target) else "said"
        except NexusError:
            return "said"

    def write(self, body: dict[str, Any], target: str) -> dict[str, Any]:
        """Return what a provider of this kind is sent. Raises the error that the client gets."""
        kind, model, options = TARGETS[target]
        call = self.dialect.parse(msgspec.json.encode(body), path=self.path)
        account = Account(name="a", kind=kind, base_url="https://host.example/v1", secret=Secret("s"), options=options)
        at = Endpoint(base_url=account.base_url, secret=account.secret, options={"region": "us-east-1"} | options)
        provider = PROVIDERS.get(kind)
        able = able_as(model, provider.capabilities)
        if error := unfit(call, Deployment(provider="a", model=model, capabilities=able)):
            raise error
        try:
            request = provider.serving(account, model, call).chat(at, model, call)
        except NexusError as refused:
            raise self.dialect.naming(refused) from None
        sent: dict[str, Any] = msgspec.json.decode(request.body)
        return sent

    def same_answer(self, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """Tell whether the cache takes two requests for the same one."""
        return self._digest(before) == self._digest(after)

    def _digest(self, body: dict[str, Any]) -> object:
        call: Call = self.dialect.parse(msgspec.json.encode(body), path=self.path)
        route = Route(name="r", deployments=(Deployment(provider="a", model="m"),))
        try:
            return digest_of(call.parse(), call, route, "p")
        except NexusError:
            return object()
