"""`nexus bench NAME`: the figures we claim, measured again."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from nexus import __version__
from nexus.bench.bench import BENCHES, Figure
from nexus.cli.output import AsJson, console, fail, print_json, print_table


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark; `list` names them.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure, print each figure beside its target, exit 1 when a target falls short."""
    if name == "list":
        for known, found in BENCHES.all().items():
            console.print(f"{known:12} {found.summary}")
        return
    if name not in BENCHES:
        fail(f"there is no benchmark {name}; there are {', '.join(BENCHES.names())}", 2)
    figures = BENCHES.get(name).run(quick=quick)
    met = [figure.met for figure in figures]
    short = met.count(False)
    line = f"bench {name}: {met.count(True)} of {len(met) - met.count(None)} targets met, {len(met)} figures"
    machine = f"{platform.processor() or platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    if as_json:
        print_json({"machine": machine, "version": __version__, "figures": [f.data() for f in figures], "line": line})
    else:
        print_table(
            ("figure", "value", "target", "peer", "met"), map(_row, figures), title=f"nexus {__version__} on {machine}"
        )
        console.print(line)
    raise typer.Exit(1 if short else 0)


def _row(figure: Figure) -> tuple[str, str, str | None, str | None, str]:
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    target = None if figure.target is None else f"{'<=' if figure.lower_is_better else '>='} {figure.target:g}"
    return figure.name, f"{figure.value:.4g} {figure.unit}", target, figure.peer, met
