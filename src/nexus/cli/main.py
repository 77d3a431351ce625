"""The list of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from nexus import __version__
from nexus.cli import checks, fakes, first_run, look, money, numbers, serve, talk
from nexus.cli.measure import bench
from nexus.cli.models import models
from nexus.cli.work import runs, schedules, triggers, workflows

app = typer.Typer(
    name="nexus",
    help="AI in your own hands: language models, vision, forecasting and automation behind one API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """AI in your own hands: language models, vision, forecasting and automation behind one API."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


for command in (
    serve.run, serve.serve, serve.api, serve.engine, serve.scheduler, serve.migrate, first_run.setup,
    checks.smoke, checks.doctor, talk.chat, talk.embed, look.vision,
    numbers.train, numbers.predict, numbers.forecast, numbers.anomalies, money.usage, bench,
    fakes.fake_upstream, fakes.replay,
):  # fmt: skip
    app.command()(command)
app.add_typer(serve.admin, name="admin")
app.add_typer(money.keys, name="keys")
app.add_typer(models, name="models")
app.add_typer(workflows, name="workflows")
app.add_typer(schedules, name="schedules")
app.add_typer(triggers, name="triggers")
app.add_typer(runs, name="runs")
