"""Conditions and templates of workflows: a small, total language.

    len(steps.read.output.text) > 20 and inputs.webhook != null
    Receipt of {{ coalesce(steps.read.output.shop, "an unknown shop") }}

The text is parsed as a Python expression and only a white list of nodes is walked, so nothing can be
called, imported or reached that is not listed here. There is no loop, no power, no repetition of
strings and no user-made function: the cost is linear in the expression and in the data it names,
and needs no timeout (research: automation section 5). Attributes are keys of dictionaries.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from nexus.automation.errors import ExpressionError

MAX_LENGTH: Final = 2_000
MAX_NODES: Final = 200
MAX_DEPTH: Final = 20
MAX_NUMBER: Final = 10**15
MAX_TEXT: Final = 65_536
MAX_PATTERN: Final = 256
MAX_RENDERED: Final = 4 * 2**20

_CONSTANTS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None, "none": None}
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, box: _contains(box, item),
    ast.NotIn: lambda item, box: not _contains(box, item),
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


class _Missing(ExpressionError):
    """A name leads nowhere; `exists` and `coalesce` catch this."""


def evaluate(expression: str, scope: Mapping[str, Any]) -> Any:
    """Return the value of `expression`, its names looked up in `scope`. Raises `ExpressionError`."""
    return _walk(parse(expression), scope)


def holds(condition: str, scope: Mapping[str, Any]) -> bool:
    """Tell whether `condition` is true. Raises `ExpressionError`, also for a value that is no yes or no."""
    value = evaluate(condition, scope)
    if not isinstance(value, bool):
        raise ExpressionError("A condition must be true or false; compare the value with something.")
    return value


@lru_cache(maxsize=1024)
def parse(expression: str) -> ast.expr:
    """Check the form of `expression` and return its tree. Raises `ExpressionError`."""
    if len(expression) > MAX_LENGTH:
        raise ExpressionError(f"An expression has at most {MAX_LENGTH} characters.")
    if _nesting(expression) > MAX_DEPTH:
        raise ExpressionError(f"An expression nests at most {MAX_DEPTH} levels.")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError("The expression cannot be read.") from None
    _check(tree)
    return tree


def references(expression: str) -> set[str]:
    """Return the paths that `expression` names, such as `steps.read.output.text`."""
    found: set[str] = set()
    _collect(parse(expression), found)
    return found


def _nesting(text: str) -> int:
    # Brackets are counted before Python's parser sees them; ones inside strings only make this stricter.
    depth = deepest = 0
    for letter in text:
        if letter in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in ")]}":
            depth -= 1
    return deepest


def _check(tree: ast.expr) -> None:
    level: list[ast.AST] = [tree]
    count = depth = 0
    while level:
        depth += 1
        count += len(level)
        if depth > MAX_DEPTH + 10 or count > MAX_NODES:
            raise ExpressionError("The expression is too long; split it over several steps.")
        for node in level:
            _check_node(node)
        level = [child for node in level for child in ast.iter_child_nodes(node) if not isinstance(child, _IGNORED)]


_IGNORED = (ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)
_ALLOWED = (
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Compare, ast.BoolOp,
    ast.UnaryOp, ast.BinOp, ast.IfExp, ast.List, ast.Tuple, ast.Dict, ast.Call,
)  # fmt: skip


def _check_node(node: ast.AST) -> None:
    if not isinstance(node, _ALLOWED):
        raise ExpressionError(f"{_said(node)} is not possible in an expression.")
    match node:
        case ast.Constant(value=value) if not isinstance(value, str | int | float | bool | None):
            raise ExpressionError("Only text, numbers, true, false and null can be written in an expression.")
        case ast.Constant(value=int() | float() as value) if abs(value) > MAX_NUMBER:
            raise ExpressionError("A number in the expression is too large.")
        case ast.Attribute(attr=name) | ast.Name(id=name) if name.startswith("_"):
            raise ExpressionError("Names that begin with an underscore cannot be used.")
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS or name in _LAZY:
            return
        case ast.Call():
            raise ExpressionError(f"Only these functions can be called: {', '.join(sorted({*_FUNCTIONS, *_LAZY}))}.")
        case ast.BinOp(op=op) if type(op) not in _ARITHMETIC:
            raise ExpressionError("Only + - * / and % can be used to calculate.")
        case ast.UnaryOp(op=op) if not isinstance(op, ast.Not | ast.USub | ast.UAdd):
            raise ExpressionError("Only `not`, `-` and `+` can stand before a value.")
        case ast.Dict(keys=keys) if None in keys:
            raise ExpressionError("`**` is not possible in an expression.")


def _said(node: ast.AST) -> str:
    return type(node).__name__.lower()


def _walk(node: ast.AST, scope: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _name(name, scope)
        case ast.Attribute(value=inner, attr=key):
            return _member(_walk(inner, scope), key)
        case ast.Subscript(value=inner, slice=ast.Slice(lower=low, upper=high, step=None)):
            return _slice(_walk(inner, scope), *(None if end is None else _walk(end, scope) for end in (low, high)))
        case ast.Subscript(value=inner, slice=key):
            return _member(_walk(inner, scope), _walk(key, scope))
        case ast.Compare():
            return _compare(node, scope)
        case ast.BoolOp(op=op, values=values):
            return _boolean(op, values, scope)
        case ast.UnaryOp(op=op, operand=operand):
            return _unary(op, _walk(operand, scope))
        case ast.BinOp(left=left, op=op, right=right):
            return _calculate(op, _walk(left, scope), _walk(right, scope))
        case ast.IfExp(test=test, body=body, orelse=other):
            return _walk(body if _truth(_walk(test, scope)) else other, scope)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_walk(item, scope) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {str(_walk(key, scope)): _walk(value, scope) for key, value in zip(keys, values, strict=True) if key}
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _call(name, arguments, scope)
    raise ExpressionError(f"{_said(node)} is not possible in an expression.")


def _name(name: str, scope: Mapping[str, Any]) -> Any:
    if name in scope:
        return scope[name]
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    raise _Missing(f"There is no {name[:80]}.")


def _member(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(key, str):
        if key in value:
            return value[key]
        raise _Missing(f"There is no {key[:80]}.")
    if isinstance(value, list | str) and isinstance(key, int) and not isinstance(key, bool):
        if -len(value) <= key < len(value):
            return value[key]
        raise _Missing(f"There is no item {key}.")
    raise _Missing(f"{str(key)[:80]} cannot be looked up in this value.")


def _slice(value: Any, low: Any, high: Any) -> Any:
    if not isinstance(value, list | str) or not all(end is None or type(end) is int for end in (low, high)):
        raise ExpressionError("Only lists and text can be cut, by whole numbers.")
    return value[low:high]


def _compare(node: ast.Compare, scope: Mapping[str, Any]) -> bool:
    left = _walk(node.left, scope)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _walk(right_node, scope)
        try:
            outcome = _COMPARE[type(op)](left, right)
        except (TypeError, RecursionError):
            raise ExpressionError("These two values cannot be compared.") from None
        if not outcome:
            return False
        left = right
    return True


def _boolean(op: ast.boolop, values: list[ast.expr], scope: Mapping[str, Any]) -> bool:
    wanted = isinstance(op, ast.Or)
    return wanted if any(_truth(_walk(value, scope)) is wanted for value in values) else not wanted


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError("`and`, `or`, `not` and `if` need values that are true or false.")
    return value


def _unary(op: ast.unaryop, value: Any) -> Any:
    if isinstance(op, ast.Not):
        return not _truth(value)
    number = _number(value)
    return -number if isinstance(op, ast.USub) else number


def _calculate(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str):
        if len(left) + len(right) > MAX_TEXT:
            raise ExpressionError("The text is too long.")
        return left + right
    try:
        return _capped(_ARITHMETIC[type(op)](_number(left), _number(right)))
    except (ZeroDivisionError, OverflowError):
        raise ExpressionError("The calculation has no finite result.") from None


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError("Only numbers can be calculated with.")
    return _capped(value)


def _capped(value: float) -> int | float:
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise ExpressionError("A number is too large.")
    return value


def _contains(box: Any, item: Any) -> bool:
    if isinstance(box, str) and isinstance(item, str):
        return item in box
    if isinstance(box, list | Mapping):
        return bool(item in box)
    raise ExpressionError("Only text, lists and objects can contain something.")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ExpressionError("This function needs text.")
    return value


def _sized(value: Any) -> int:
    if not isinstance(value, str | list | Mapping):
        raise ExpressionError("Only text, lists and objects have a length.")
    return len(value)


def _to_number(value: Any) -> int | float:
    if isinstance(value, str) and len(value) <= 40:
        try:
            return _capped(int(value) if value.strip().lstrip("+-").isdecimal() else float(value))
        except ValueError:
            pass
    elif not isinstance(value, str):
        return _number(value)
    raise ExpressionError("This text is not a number.")


def _matches(text: Any, pattern: Any) -> bool:
    """Match a whole text against a pattern of `*` (anything) and `?` (one letter).

    Each piece between two stars is looked for once, as far left as it can be: time grows with text times pattern,
    both of which are bounded, and never with how the stars could share the text.
    """
    text, pattern = _text(text), _text(pattern)
    if len(text) > MAX_TEXT or len(pattern) > MAX_PATTERN or pattern.count("*") > 16:
        raise ExpressionError(f"A pattern has at most {MAX_PATTERN} letters and 16 stars, its text {MAX_TEXT} letters.")
    first, *others = (_piece(part) for part in pattern.split("*"))
    if not others:
        return first.fullmatch(text) is not None
    found = first.match(text)
    *middle, last = others
    for piece in middle:
        found = None if found is None else piece.search(text, found.end())
    size = len(pattern.rpartition("*")[2])
    return found is not None and len(text) - size >= found.end() and last.fullmatch(text, len(text) - size) is not None


def _piece(part: str) -> re.Pattern[str]:
    return re.compile("".join("." if letter == "?" else re.escape(letter) for letter in part), re.DOTALL)


def _edge(position: int) -> Callable[[Any], Any]:
    return lambda items: _member(items, position)


def _join(items: Any, glue: Any = ", ") -> str:
    if not isinstance(items, list):
        raise ExpressionError("Only a list can be joined.")
    glue = _text(glue)
    if len(glue) * max(0, len(items) - 1) > MAX_RENDERED:
        raise ExpressionError("The text is too long.")
    text: str = glue.join(as_text(item) for item in items)
    if len(text) > MAX_RENDERED:
        raise ExpressionError("The text is too long.")
    return text


def _extreme(choose: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def pick(*values: Any) -> Any:
        items = values[0] if len(values) == 1 and isinstance(values[0], list) else list(values)
        if not items:
            raise ExpressionError("There is nothing to choose from.")
        return choose([_number(item) for item in items])

    return pick


def _pluck(items: Any, key: Any) -> list[Any]:
    """Return the value of `key` in each item of a list, null where an item has none."""
    if not isinstance(items, list) or not isinstance(key, str):
        raise ExpressionError("pluck needs a list and the name of a key.")
    return [item.get(key) if isinstance(item, Mapping) else None for item in items]


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "len": _sized,
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "trim": lambda text: _text(text).strip(),
    "contains": _contains,
    "startswith": lambda text, start: _text(text).startswith(_text(start)),
    "endswith": lambda text, end: _text(text).endswith(_text(end)),
    "matches": _matches,
    "number": _to_number,
    "text": lambda value: as_text(value),
    "round": lambda value, digits=0: round(_number(value), int(max(0, min(12, _number(digits))))),
    "abs": lambda value: abs(_number(value)),
    "min": _extreme(min),
    "max": _extreme(max),
    "sum": _extreme(lambda items: _capped(sum(items))),
    "first": _edge(0),
    "last": _edge(-1),
    "join": _join,
    "pluck": _pluck,
    "now": lambda: datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
}
_LAZY: Final = frozenset({"exists", "coalesce", "default"})


def _call(name: str, arguments: list[ast.expr], scope: Mapping[str, Any]) -> Any:
    if name in _LAZY:
        return _lazily(name, arguments, scope)
    try:
        return _FUNCTIONS[name](*(_walk(argument, scope) for argument in arguments))
    except (TypeError, RecursionError):
        raise ExpressionError(f"{name} cannot be used with these values.") from None


def _lazily(name: str, arguments: list[ast.expr], scope: Mapping[str, Any]) -> Any:
    for argument in arguments:
        try:
            value = _walk(argument, scope)
        except _Missing:
            continue
        if value is not None:
            return True if name == "exists" else value
    return False if name == "exists" else None


def _collect(node: ast.AST, found: set[str]) -> str | None:
    if isinstance(node, ast.Name):
        if node.id not in _CONSTANTS:
            found.add(node.id)
            return node.id
        return None
    if isinstance(node, ast.Attribute | ast.Subscript):
        inner = _collect(node.value, found)
        key = node.attr if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Subscript):
            key = (
                node.slice.value if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else None
            )
            _collect(node.slice, found)
        if inner is None or key is None:
            return None
        found.discard(inner)
        found.add(f"{inner}.{key}")
        return f"{inner}.{key}"
    children = node.args if isinstance(node, ast.Call) else list(ast.iter_child_nodes(node))
    for child in children:
        _collect(child, found)
    return None


def as_text(value: Any) -> str:
    """Return a value as it reads inside a text: text as it is, null as nothing, the rest as JSON."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else orjson.dumps(value, default=str).decode()
    except (TypeError, RecursionError):
        raise ExpressionError("This value cannot be written as text.") from None
