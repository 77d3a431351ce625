"""`nexus models ...`: the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nexus.cli.connection import connect
from nexus.cli.options import DataDir, Key, Url
from nexus.cli.output import AsJson, console, fail, print_json, print_table
from nexus.cli.waiting import follow

models = typer.Typer(help="Models: list, show, pull, import, load, unload, rm.", no_args_is_help=True)


@models.command("list")
def list_models(
    every: Annotated[bool, typer.Option("--all", help="Also those that are not here yet.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """List the models of every kind."""
    found, cursor = [], None
    with connect(data_dir, url, key) as client:
        while True:
            params = {"limit": "100", **({"cursor": cursor} if cursor else {})}
            body = client.json("GET", "/api/v1/models", params=params)
            found += body["data"]
            cursor = body.get("next_cursor")
            if not cursor:
                break
    if not every:
        found = [item for item in found if item.get("state") != "available"]
    if as_json:
        print_json(found)
        return
    rows = [(item["name"], item["kind"], item["task"], item["state"], item.get("licence")) for item in found]
    print_table(("name", "kind", "task", "state", "licence"), rows)


@models.command("show")
def show_model(name: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Show a model with its versions and aliases."""
    with connect(data_dir, url, key) as client:
        print_json(client.json("GET", f"/api/v1/models/{name}"))


@models.command("pull")
def pull_model(name: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Fetch a model of the catalogue, verify it and convert it where needed."""
    with connect(data_dir, url, key) as client:
        run = follow(client, client.json("POST", f"/api/v1/models/{name}/pull")["id"])
    if run["status"] != "succeeded":
        fail(f"the pull {run['status']}: {(run['error'] or {}).get('message', '')}")
    console.print(f"{name} is here")


@models.command("import")
def import_model(
    name: Annotated[str, typer.Argument(help="The name it will have.")],
    file: Annotated[Path, typer.Argument(help="An ONNX or GGUF file.", exists=True, dir_okay=False)],
    task: Annotated[str | None, typer.Option(help="classify, detect, chat ...")] = None,
    licence: Annotated[str | None, typer.Option()] = None,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Take in a model file of your own."""
    options = {"name": name, "task": task, "licence": licence}
    form = {field: value for field, value in options.items() if value}
    with connect(data_dir, url, key) as client, file.open("rb") as content:
        body = client.json("POST", "/api/v1/models/import", files={"file": (file.name, content)}, data=form)
    print_json(body)


@models.command("load")
def load_model(name: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Load a model into the serving process."""
    with connect(data_dir, url, key) as client:
        print_json(client.json("POST", f"/api/v1/models/{name}/load"))


@models.command("unload")
def unload_model(name: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Let a loaded model go."""
    with connect(data_dir, url, key) as client:
        print_json(client.json("POST", f"/api/v1/models/{name}/unload"))


@models.command("rm")
def remove_model(name: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Delete a model of your own, or the pulled files of one of the catalogue."""
    with connect(data_dir, url, key) as client:
        client.call("DELETE", f"/api/v1/models/{name}")
    console.print(f"{name} is gone")
