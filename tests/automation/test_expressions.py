"""The expression language: what it says, and what it refuses."""

from __future__ import annotations

import contextlib
import fnmatch
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clock import no_runaway

from nexus.automation.errors import ExpressionError
from nexus.automation.expressions import evaluate, holds, references
from nexus.automation.templates import render, template_references

SCOPE: dict[str, Any] = {
    "inputs": {
        "amount": 3,
        "name": "Ada",
        "webhook": None,
        "flag": True,
        "tags": ["a", "b"],
        "len": 4,
        "many": [""] * 500,
        "glue": "x" * 100_000,
    },
    "steps": {"read": {"status": "succeeded", "output": {"text": "a long receipt text", "lines": [{"t": "x"}]}}},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3 - 4 / 2", 5),
        ("7 % 4", 3),
        ("-inputs.amount", -3),
        ("'a' + inputs.name", "aAda"),
        ("len(steps.read.output.text) > 10", True),
        ("steps['read']['output'].lines[0].t", "x"),
        ("inputs.tags[-1]", "b"),
        ("inputs.tags[0:1]", ["a"]),
        ("inputs.name[:2]", "Ad"),
        ("inputs.webhook == null", True),
        ("inputs.webhook is None", True),
        ("1 < inputs.amount <= 3", True),
        ("'b' in inputs.tags and not ('z' in inputs.tags)", True),
        ("'yes' if inputs.flag else 'no'", "yes"),
        ("exists(inputs.nothing.deeper)", False),
        ("exists(inputs.webhook)", False),
        ("exists(inputs.name)", True),
        ("coalesce(inputs.nothing, inputs.webhook, 'other')", "other"),
        ("lower(upper(trim('  Mixed ')))", "mixed"),
        ("startswith(inputs.name, 'A') and endswith(inputs.name, 'a')", True),
        ("matches('receipt-2026.png', 'receipt-*.p?g')", True),
        ("matches('receipt.gif', '*.png')", False),
        ("number('12') + number('0.5')", 12.5),
        ("round(2.345, 2)", 2.35),
        ("min(3, 1, 2) + max([1, 5])", 6),
        ("sum([1, 2, 3])", 6),
        ("first(inputs.tags) + last(inputs.tags)", "ab"),
        ("join(inputs.tags, '-')", "a-b"),
        ("text(12) + text(true)", "12true"),
        ("{'a': inputs.amount}", {"a": 3}),
        ("inputs.len", 4),
        ("true or inputs.nothing", True),
    ],
)
def test_says(expression: str, value: Any) -> None:
    assert evaluate(expression, SCOPE) == value


HOSTILE = [
    "__import__('os').system('id')",
    "().__class__.__mro__[1].__subclasses__()",
    "inputs.__class__",
    "inputs['__class__'].x",
    "open('/etc/passwd')",
    "eval('1')",
    "exec('1')",
    "lambda: 1",
    "[x for x in inputs.tags]",
    "{x: 1 for x in inputs.tags}",
    "(x for x in inputs.tags)",
    "f'{inputs.name}'",
    "2 ** 999999999",
    "9**9**9**9",
    "'a' * 1000000000",
    "[1] * 1000000000",
    "1 << 999999",
    "~1",
    "1 if 2 else 3",
    "(y := 3)",
    "inputs.name.upper()",
    "len.__call__",
    "len(*inputs.tags)",
    "len(x=1)",
    "await inputs",
    "yield 1",
    "inputs.name; 1",
    "import os",
    "...",
    "b'bytes'",
    "1j",
    "1e400",
    "10**20",
    "1" * 3000,
    "99999999999999999999",
    "1000000000000000 * 1000000000000000",
    "1/0",
    "1%0",
    "(" * 500 + "1" + ")" * 500,
    "[" * 10_000,
    "-" * 1_990 + "1",
    "not " * 490 + "true",
    "+".join(["1"] * 990),
    "a" * 2_001,
    "inputs.nothing",
    "nothing",
    "inputs.tags[9]",
    "inputs.amount.x",
    "'1' + 1",
    "true + 1",
    "'a' < 1",
    "1 and 2",
    "not 1",
    "{**inputs}",
    "[*inputs.tags]",
    "inputs.tags[::2]",
    "matches('a', '*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*')",
    "number('abc')",
    "number('nan')",
    "number('1e999')",
    "round('x')",
    "min([])",
    "join(inputs.many, inputs.glue)",
    "",
    "   ",
    "\x00",
    "\ud800",
    "{{ 1 }}",
    "print(1)",
    "type(1)",
    "getattr(inputs, 'name')",
    "globals()",
    "inputs._private",
]


DUNDERS = ["__class__", "__mro__", "__globals__", "__builtins__", "__subclasses__", "__init__", "__dict__", "_x"]
BUILTINS = [
    "eval", "exec", "compile", "open", "input", "vars", "dir", "id", "hash", "iter", "next", "map", "filter", "zip",
    "range", "list", "dict", "set", "str", "int", "bytes", "super", "object", "setattr", "delattr", "breakpoint",
    "memoryview", "help", "format", "repr", "sorted", "pow", "divmod", "chr", "ord", "__import__", "exit", "quit",
]  # fmt: skip
METHODS = ["format", "join", "encode", "replace", "zfill", "ljust", "center", "translate", "split", "upper", "mro"]
HOSTILE += [
    *(f"{value}.{name}" for value in ("inputs", "'a'", "[]", "(1)", "len", "{}", "true", "now()") for name in DUNDERS),
    *(f"inputs['x']['{name}']" for name in DUNDERS),
    *(f"{name}('1')" for name in BUILTINS),
    *(f"'a'.{name}(10)" for name in METHODS),
    *(f"inputs.name.{name}(*inputs.tags)" for name in METHODS),
    *(f"{template}" for n in (1, 5, 9, 50) for template in (f"9**{n}", f"2 << {n}", f"'a' * {n}", f"[1] * {n}")),
    *(f"{operator}1" for operator in ("~", "await ", "yield ", "*", "**", "lambda: ", "print ")),
    *(f"1 {operator} 2" for operator in ("**", "//", "@", "<<", ">>", "|", "&", "^", ":=", "=", ";", "if", "for")),
    *(f"[x for x in {source}]" for source in ("inputs.many", "range(9)", "'abc'", "[1]")),
    *(f"{open_ * n}{close * n}" for n in (21, 100, 900) for open_, close in ("()", "[]", "{}")),
    *(f"{word * n}" for n in (250, 900) for word in ("-", "not ", "1+", "a.", "a[0]", "len(", "'a'+")),
    *(f"f'{{{name}}}'" for name in ("inputs", "inputs.name!r", "1:>99999999", "'a'")),
    *(f"matches({text}, {pattern})" for text in ("1", "null", "[]") for pattern in ("'a'", "1")),
    *(f"number('{text}')" for text in ("inf", "-inf", "nan", "1e308", "0x10", "1" * 41, "", " ", "1j")),
    *(f"{name}()" for name in ("len", "lower", "contains", "matches", "number", "join", "pluck", "round", "first")),
    *(f"{name}(1, 2, 3, 4)" for name in ("len", "lower", "startswith", "number", "join", "pluck", "round", "abs")),
    *(f"pluck({value}, 'x')" for value in ("1", "'a'", "inputs", "null")),
    "matches('a', inputs.glue)",
    "matches(inputs.glue, '*')" if len(str(SCOPE["inputs"].get("glue", ""))) > 65_536 else "matches(1, '*')",
]


def test_there_are_at_least_300_of_them() -> None:
    assert len(set(HOSTILE)) >= 300


@pytest.mark.parametrize("expression", HOSTILE, ids=range(len(HOSTILE)))
def test_refuses_in_no_time(expression: str) -> None:
    with no_runaway(), pytest.raises(ExpressionError):
        evaluate(expression, SCOPE)


@settings(max_examples=300)
@given(st.text(alphabet="()[]{}'\"abcdefilnop.,+-*/%<>=! 0129_:\\\n", max_size=200))
def test_any_text_is_a_value_or_an_expression_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        evaluate(text, SCOPE)


def test_a_condition_must_be_a_yes_or_a_no() -> None:
    assert holds("inputs.flag", SCOPE)
    with pytest.raises(ExpressionError, match="true or false"):
        holds("inputs.name", SCOPE)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ inputs.tags }}", ["a", "b"]),
        ("{{ inputs.amount }} of {{ inputs.name }}", "3 of Ada"),
        ("{{ '}}' }}", "}}"),
        ("tags: {{ inputs.tags }}, none: {{ inputs.webhook }}", 'tags: ["a","b"], none: '),
        ({"a": ["{{ {'k': 1} }}"], "n": 5}, {"a": [{"k": 1}], "n": 5}),
        ("no template { } }}", "no template { } }}"),
    ],
)
def test_templates(template: Any, value: Any) -> None:
    assert render(template, SCOPE) == value


def test_a_template_without_an_end_is_refused() -> None:
    with pytest.raises(ExpressionError, match="closing"):
        render("{{ inputs.name", SCOPE)


def test_names_what_it_reads() -> None:
    assert references("coalesce(steps.a.output.x, inputs['n']) > len(steps.b.status)") == {
        "steps.a.output.x", "inputs.n", "steps.b.status",
    }  # fmt: skip
    assert template_references({"x": ["{{ steps.a.output }} and {{ inputs.n }}"]}) == {"steps.a.output", "inputs.n"}


@pytest.mark.parametrize(
    ("text", "pattern", "fits"),
    [
        ("receipt.pdf", "*.pdf", True),
        ("receipt.pdf", "receipt.???", True),
        ("receipt.pdf", "*.png", False),
        ("abc", "abc", True),
        ("abc", "ab", False),
        ("aXbXc", "a*b*c", True),
        ("ab", "ab*b", False),
        ("abab", "*ab", True),
        ("a\nb", "a?b", True),
        ("a.c", "a.c", True),
        ("abc", "a.c", False),
        ("", "*", True),
        ("", "?", False),
        ("aa", "a*a*a", False),
        ("[x]", "[x]", True),
    ],
)
def test_patterns(text: str, pattern: str, fits: bool) -> None:
    assert evaluate(f"matches({text!r}, {pattern!r})", {}) is fits


@settings(max_examples=200)
@given(st.text("ab?*", max_size=8), st.text("ab", max_size=8))
def test_patterns_are_those_of_a_shell(pattern: str, text: str) -> None:
    assert evaluate("matches(t, p)", {"t": text, "p": pattern}) is fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize("pattern", ["*" + "a" * 250 + "b", "*a" * 16, "?" * 256, "*" + "?" * 250 + "b*"])
def test_no_pattern_takes_long(pattern: str) -> None:
    with no_runaway():
        evaluate("matches(t, p)", {"t": "a" * 65_536, "p": pattern})


OPERATORS = ["+", "-", "*", "/", "%", "==", "<", "in", "and", "or"]
FUNCTIONS = ["len", "lower", "number", "exists", "coalesce", "sum", "text", "first"]


@settings(max_examples=200)
@given(
    st.recursive(
        st.sampled_from(["1", "'a'", "inputs.name", "inputs.tags", "true", "null", "inputs.nothing", "0.5"]),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%", "==", "<", "in", "and", "or"]), inner).map(
                " ".join
            ),
            inner.map(lambda one: f"({one})"),
            inner.map(lambda one: f"[{one}]"),
            st.tuples(
                st.sampled_from(["len", "lower", "number", "exists", "coalesce", "sum", "text", "first"]), inner
            ).map(lambda pair: f"{pair[0]}({pair[1]})"),
            st.tuples(inner, inner, inner).map(lambda three: f"{three[0]} if {three[1]} else {three[2]}"),
        ),
        max_leaves=30,
    )
)
def test_any_expression_of_the_language_ends_soon(expression: str) -> None:
    with no_runaway(), contextlib.suppress(ExpressionError):
        evaluate(expression, SCOPE)
