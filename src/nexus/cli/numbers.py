"""`nexus forecast`, `anomalies`, `train`, `predict`: series and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nexus.cli.connection import connect
from nexus.cli.options import DataDir, Key, Url
from nexus.cli.output import AsJson, console, fail, print_json, print_table
from nexus.cli.waiting import follow

Csv = Annotated[Path, typer.Argument(help="A CSV file.", exists=True, dir_okay=False)]


def forecast(
    csv: Csv,
    horizon: Annotated[int, typer.Option(min=1, help="Steps to forecast.")],
    model: Annotated[str, typer.Option(help="auto or one of the forecasters.")] = "auto",
    frequency: Annotated[str | None, typer.Option(help="pandas alias such as MS; none: found out.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Forecast the series of a CSV file (columns: unique_id, ds, y)."""
    form = {"horizon": str(horizon), "model": model, **({"frequency": frequency} if frequency else {})}
    with connect(data_dir, url, key) as client:
        body = client.json("POST", "/api/v1/forecasts", files={"file": (csv.name, csv.read_bytes())}, data=form)
    if as_json:
        print_json(body)
        return
    for series in body["series"]:
        levels = [name for name in series if name.startswith(("lo-", "hi-"))]
        rows = [
            (when, *(f"{series[name][row]:.4g}" for name in ("forecast", *levels)))
            for row, when in enumerate(series["ds"])
        ]
        chosen = body["chosen"].get(series["unique_id"], body["model"])
        print_table(("ds", "forecast", *levels), rows, title=f"{series['unique_id']}: {chosen}")


def anomalies(
    csv: Csv,
    model: Annotated[str, typer.Option()] = "auto",
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Find what is odd in a CSV file."""
    with connect(data_dir, url, key) as client:
        files = {"file": (csv.name, csv.read_bytes())}
        body = client.json("POST", "/api/v1/anomalies", files=files, data={"model": model})
    if as_json:
        print_json(body)
        return
    rows = [(item["index"], item.get("ds"), f"{item['score']:.3f}", item.get("reason")) for item in body["anomalies"]]
    print_table(("row", "ds", "score", "why"), rows, title=f"{body['model']}, threshold {body['threshold']:.3f}")


def train(
    csv: Csv,
    target: Annotated[str, typer.Option(help="The column to predict.")],
    name: Annotated[str, typer.Option(help="The name of the model.")],
    algorithm: Annotated[str | None, typer.Option(help="One of the predictors; none: the default.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Train a model on a CSV file and keep it as a version."""
    with connect(data_dir, url, key) as client:
        files = {"file": (csv.name, csv.read_bytes())}
        dataset = client.json("POST", "/api/v1/datasets", files=files, data={"name": csv.stem})
        request = {"name": name, "dataset_id": dataset["id"], "target": target}
        if algorithm:
            request["algorithm"] = algorithm
        run = follow(client, client.json("POST", "/api/v1/training-runs", json=request)["id"])
    if as_json:
        print_json(run)
        return
    if run["status"] != "succeeded":
        fail(f"training {run['status']}: {(run['error'] or {}).get('message', '')}")
    console.print(_summary(run["result"]))


def _summary(result: dict[str, Any]) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in (result.get("metrics") or {}).items() if value)
    return f"{result.get('model')} version {result.get('version')}: {metrics}"


def predict(
    model: Annotated[str, typer.Argument(help="The name of a trained model.")],
    csv: Csv,
    alias: Annotated[str, typer.Option()] = "champion",
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Predict the rows of a CSV file."""
    import csv as csv_module

    with csv.open(newline="", encoding="utf-8-sig") as file:
        rows = [{name: _value(text) for name, text in row.items()} for row in csv_module.DictReader(file)]
    with connect(data_dir, url, key) as client:
        body = client.json("POST", f"/api/v1/models/{model}/predict", json={"rows": rows, "alias": alias})
    if as_json:
        print_json(body)
        return
    shown = [
        (index, item.get("label", item.get("value")), item.get("probabilities") or _interval(item))
        for index, item in enumerate(body["predictions"])
    ]
    print_table(("row", "prediction", "details"), shown, title=f"{body['model']} version {body['version']}")


def _interval(item: dict[str, Any]) -> str | None:
    return f"{item['lo-90']:.4g} .. {item['hi-90']:.4g}" if "lo-90" in item else None


def _value(text: str | None) -> Any:
    if text is None or text == "":
        return None
    try:
        return float(text) if any(letter in text for letter in ".eE") else int(text)
    except ValueError:
        return text
