"""`nexus vision TASK IMAGE...`: what pictures show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nexus.cli.connection import connect
from nexus.cli.options import DataDir, Key, Url
from nexus.cli.output import AsJson, console, fail, print_json, print_table


def vision(
    task: Annotated[str, typer.Argument(help="classify, detect, ocr ...")],
    images: Annotated[list[Path], typer.Argument(help="Picture files.", exists=True, dir_okay=False)],
    model: Annotated[str | None, typer.Option(help="A model of the catalogue; none: the task's default.")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write an annotated PNG here.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Run a vision task on pictures."""
    if output is not None and len(images) > 1:
        fail("-o takes one picture at a time", 2)
    options = {"model": model, "threshold": threshold}
    form = {name: str(value) for name, value in options.items() if value is not None}
    answers = []
    with connect(data_dir, url, key) as client:
        for image in images:
            files = {"image": (image.name, image.read_bytes())}
            answers.append(client.json("POST", f"/api/v1/vision/{task}", files=files, data=form))
            if output is not None:
                picture = client.call(
                    "POST", f"/api/v1/vision/{task}", params={"annotate": "png"}, files=files, data=form
                )
                output.write_bytes(picture.content)
    if as_json:
        print_json(answers if len(answers) > 1 else answers[0])
        return
    for image, answer in zip(images, answers, strict=True):
        _show(str(image), answer)
    if output is not None:
        console.print(f"annotated picture in {output}")


def _show(name: str, answer: dict[str, Any]) -> None:
    milliseconds = sum(answer.get("timing_ms", {}).values())
    rows = [
        (
            found.get("label") or found.get("text"),
            f"{found['score']:.2f}" if found.get("score") is not None else None,
            ", ".join(f"{edge:.0f}" for edge in found["box"]) if found.get("box") else None,
        )
        for found in answer["results"]
    ]
    print_table(("what", "score", "box"), rows, title=f"{name}: {answer['model']}, {milliseconds:.0f} ms")
