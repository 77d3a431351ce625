"""`nexus usage`, `nexus keys ...`: what was used, and by which key."""

from __future__ import annotations

from typing import Annotated

import typer

from nexus.cli.connection import connect
from nexus.cli.options import DataDir, Key, Url
from nexus.cli.output import AsJson, console, print_items, print_json, print_table

keys = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)


def usage(
    by: Annotated[str, typer.Option("--by", help="model, key, day, kind or project.")] = "model",
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show calls, tokens and cost."""
    with connect(data_dir, url, key) as client:
        body = client.json("GET", "/api/v1/usage", params={"group_by": by})
    if as_json:
        print_json(body)
        return
    rows = [
        (item.get(by), item["calls"], item.get("input_tokens"), item.get("output_tokens"), item.get("cost_usd"))
        for item in body["data"]
    ]
    print_table((by, "calls", "tokens in", "tokens out", "cost USD"), rows)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scopes: Annotated[list[str] | None, typer.Option("--scope", help="A right; none: all of yours.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make an API key. It is shown once."""
    request = {"name": name, **({"scopes": scopes} if scopes else {})}
    with connect(data_dir, url, key) as client:
        body = client.json("POST", "/api/v1/keys", json=request)
    if as_json:
        print_json(body)
        return
    typer.echo(body["key"])


@keys.command("list")
def list_keys(as_json: AsJson = False, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """List the keys of the project."""
    with connect(data_dir, url, key) as client:
        body = client.json("GET", "/api/v1/keys", params={"limit": 100})
    print_items(
        body["data"],
        as_json,
        ("id", "name", "created", "last used"),
        lambda item: (item["id"], item["name"], item.get("created_at"), item.get("last_used_at")),
    )


@keys.command("revoke")
def revoke_key(key_id: str, data_dir: DataDir = None, url: Url = None, key: Key = None) -> None:
    """Revoke a key at once."""
    with connect(data_dir, url, key) as client:
        client.call("DELETE", f"/api/v1/keys/{key_id}")
    console.print(f"{key_id} is revoked")
