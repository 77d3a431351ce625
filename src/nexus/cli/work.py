"""`nexus workflows ...`, `nexus schedules ...`, `nexus triggers ...`, `nexus runs ...`: durable work."""

from __future__ import annotations

import json
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from nexus.cli.connection import connect
from nexus.cli.options import DataDir, Key, Url
from nexus.cli.output import AsJson, console, fail, print_items, print_json, print_table
from nexus.cli.waiting import follow

workflows = typer.Typer(help="Workflows: apply, run, list.", no_args_is_help=True)
schedules = typer.Typer(help="Schedules: list, next, pause, resume.", no_args_is_help=True)
triggers = typer.Typer(help="Triggers: list.", no_args_is_help=True)
runs = typer.Typer(help="Runs: list, show, logs, cancel, pause, resume, retry.", no_args_is_help=True)


@workflows.command("apply")
def apply_workflow(
    file: Annotated[Path, typer.Argument(help="A YAML or JSON definition.", exists=True, dir_okay=False)],
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Keep a definition as the newest version of its name."""
    with connect(data_dir, url, key) as client:
        headers = {"content-type": "application/yaml"}
        body = client.json("POST", "/api/v1/workflows", content=file.read_bytes(), headers=headers)
    console.print(f"{body['name']} version {body['version']} ({body['id']})")


@workflows.command("run")
def run_workflow(
    name: Annotated[str, typer.Argument(help="Name or id of the workflow.")],
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="name=value; name=@file uploads.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Start a run of a workflow."""
    with connect(data_dir, url, key) as client:
        values: dict[str, Any] = {}
        for item in inputs or []:
            field, separator, text = item.partition("=")
            if not separator:
                fail(f"{item} is no name=value", 2)
            if text.startswith("@"):
                path = Path(text[1:])
                if not path.is_file():
                    fail(f"there is no file {path}", 2)
                upload = client.json(
                    "POST", "/v1/files", files={"file": (path.name, path.read_bytes())}, data={"purpose": "workflow"}
                )
                values[field] = upload["id"]
            else:
                values[field] = _value(text)
        run = client.json("POST", f"/api/v1/workflows/{name}/runs", json={"inputs": values})
        if wait:
            run = follow(client, run["id"])
    _show_run(run, as_json)
    if wait and run["status"] != "succeeded":
        raise typer.Exit(1)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@workflows.command("list")
def list_workflows(as_json: AsJson = False, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """List the workflows."""
    with connect(data_dir, url, key) as client:
        body = client.json("GET", "/api/v1/workflows", params={"limit": 100})
    fields = ("name", "version", "updated_at", "id")
    print_items(body["data"], as_json, ("name", "version", "updated", "id"), itemgetter(*fields))


@schedules.command("list")
def list_schedules(as_json: AsJson = False, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """List the schedules, when they fire next, and what went wrong last."""
    with connect(data_dir, url, key) as client:
        body = client.json("GET", "/api/v1/schedules", params={"limit": 100})
    print_items(body["data"], as_json, ("name", "cron", "zone", "next", "fired", "trouble"), _schedule)


def _schedule(item: dict[str, Any]) -> tuple[Any, ...]:
    due = item["next_fire_at"] or "paused"
    return item["name"], item["cron"], item["timezone"], due, item["fired"], _trouble(item)


@schedules.command("next")
def show_next(
    schedule: Annotated[str, typer.Argument(help="Name or id of the schedule.")],
    count: Annotated[int, typer.Option(min=1, max=100)] = 10,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show when a schedule fires next, in its own zone."""
    with connect(data_dir, url, key) as client:
        body = client.json("GET", f"/api/v1/schedules/{schedule}/next", params={"count": str(count)})
    for fire in body["data"]:
        console.print(fire["local"], markup=False)


@schedules.command("pause")
def pause_schedule(schedule: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Let a schedule rest."""
    with connect(data_dir, url, key) as client:
        client.json("POST", f"/api/v1/schedules/{schedule}/pause")


@schedules.command("resume")
def resume_schedule(schedule: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Let a schedule that rests go on from now; print when it fires next."""
    with connect(data_dir, url, key) as client:
        console.print(client.json("POST", f"/api/v1/schedules/{schedule}/resume")["next_fire_at"])


@triggers.command("list")
def list_triggers(as_json: AsJson = False, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """List the triggers and what went wrong last."""
    with connect(data_dir, url, key) as client:
        body = client.json("GET", "/api/v1/triggers", params={"limit": 100})
    print_items(body["data"], as_json, ("name", "kind", "state", "fired", "trouble"), _trigger)


def _trigger(item: dict[str, Any]) -> tuple[Any, ...]:
    return item["name"], item["kind"], "on" if item["enabled"] else "off", item["fired"], _trouble(item)


def _trouble(item: dict[str, Any]) -> str:
    return str((item["last_error"] or {}).get("message", ""))


@runs.command("list")
def list_runs(
    status: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """List the newest runs."""
    params = {"limit": str(limit), **({"status": status} if status else {})}
    with connect(data_dir, url, key) as client:
        body = client.json("GET", "/api/v1/runs", params=params)
    fields = ("id", "kind", "name", "status", "created_at")
    print_items(body["data"], as_json, ("id", "kind", "name", "status", "created"), itemgetter(*fields))


@runs.command("show")
def show_run(run_id: str, as_json: AsJson = False, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Show a run and its steps."""
    with connect(data_dir, url, key) as client:
        _show_run(client.json("GET", f"/api/v1/runs/{run_id}"), as_json)


def _show_run(run: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(run)
        return
    rows = [(step["key"], step["uses"], step["status"], step["attempts"]) for step in run.get("steps", [])]
    print_table(("step", "uses", "status", "attempts"), rows, title=f"{run['name']} {run['status']} ({run['id']})")
    if run.get("error"):
        console.print(f"error: {run['error'].get('message')}", markup=False)
    elif run.get("result"):
        print_json(run["result"])


@runs.command("logs")
def show_logs(run_id: str, as_json: AsJson = False, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Show what the steps of a run have logged."""
    with connect(data_dir, url, key) as client:
        body = client.json("GET", f"/api/v1/runs/{run_id}/logs", params={"limit": 100})
    if as_json:
        print_json(body["data"])
        return
    for line in body["data"]:
        console.print(f"{line['at']} {line['step']} {line['level']}: {line['message']}", markup=False)


@runs.command("cancel")
def cancel_run(run_id: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Cancel a run."""
    with connect(data_dir, url, key) as client:
        console.print(client.json("POST", f"/api/v1/runs/{run_id}/cancel")["status"])


@runs.command("retry")
def retry_run(
    run_id: str,
    begin: Annotated[str | None, typer.Option("--from", help="A step to execute again, and all behind it.")] = None,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Try the failed steps of a run again."""
    with connect(data_dir, url, key) as client:
        console.print(client.json("POST", f"/api/v1/runs/{run_id}/retry", json={"from": begin})["status"])


@runs.command("pause")
def pause_run(run_id: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Begin no further step of a run."""
    with connect(data_dir, url, key) as client:
        console.print(client.json("POST", f"/api/v1/runs/{run_id}/pause")["status"])


@runs.command("resume")
def resume_run(run_id: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Let a paused run, or one that waits, go on."""
    with connect(data_dir, url, key) as client:
        console.print(client.json("POST", f"/api/v1/runs/{run_id}/resume")["status"])
