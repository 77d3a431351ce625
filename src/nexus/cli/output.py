"""What commands print: tables and progress for people, JSON for machines, errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]

console = Console()
errors = Console(stderr=True)


def print_json(value: Any) -> None:
    """Print `value` as indented JSON."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str) + b"\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows under headings; a cell of None is shown as a dash."""
    if title is not None:
        console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    table = Table(*columns, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    console.print(table)


def print_items(items: list[Any], as_json: bool, columns: Sequence[str], row: Callable[[Any], Sequence[Any]]) -> None:
    """Print a list: as it came for a machine, else a line of `row`'s cells for each item."""
    if as_json:
        print_json(items)
        return
    print_table(columns, map(row, items))


def fail(message: str, code: int = 1) -> NoReturn:
    """Print one line to standard error and end the command."""
    errors.print(f"nexus: {message}", style="red", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(code)
