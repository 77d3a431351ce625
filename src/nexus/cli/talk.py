"""`nexus chat`, `nexus embed`: the language models."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from nexus.cli.connection import connect
from nexus.cli.instance import Client, complaint
from nexus.cli.options import DataDir, Key, Url
from nexus.cli.output import AsJson, errors, fail, print_json


def chat(
    message: Annotated[str | None, typer.Argument(help="What to say; none: a conversation, or standard input.")] = None,
    model: Annotated[str, typer.Option(help="A route or provider/model.")] = "nexus-local",
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Talk with a language model."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    options = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    request = {name: value for name, value in options.items() if value is not None}
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read()
    with connect(data_dir, url, key) as client:
        if message is not None:
            messages.append({"role": "user", "content": message})
            if as_json:
                print_json(client.json("POST", "/v1/chat/completions", json={**request, "messages": messages}))
            else:
                _stream(client, {**request, "messages": messages})
            return
        errors.print(f"{model}; an empty line or Ctrl-D ends the conversation", style="dim")
        while words := _line():
            messages.append({"role": "user", "content": words})
            messages.append({"role": "assistant", "content": _stream(client, {**request, "messages": messages})})


def _line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _stream(client: Client, request: dict[str, Any]) -> str:
    pieces: list[str] = []
    with client.http.stream("POST", "/v1/chat/completions", json={**request, "stream": True}) as answer:
        if answer.status_code >= 400:
            answer.read()
            fail(complaint(answer))
        for line in answer.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                fail(chunk["error"].get("message", "the answer broke off"))
            for choice in chunk.get("choices", []):
                pieces.append(choice.get("delta", {}).get("content") or "")
                sys.stdout.write(pieces[-1])
                sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(pieces)


def embed(
    texts: Annotated[list[str], typer.Argument(help="Texts to embed.")],
    model: Annotated[str, typer.Option()] = "minilm-l6-v2",
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Turn texts into vectors."""
    with connect(data_dir, url, key) as client:
        body = client.json("POST", "/v1/embeddings", json={"model": model, "input": texts})
    if as_json:
        print_json(body)
        return
    for item in body["data"]:
        typer.echo(" ".join(f"{value:.6f}" for value in item["embedding"]))
