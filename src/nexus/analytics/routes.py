"""`/api/v1/forecasts`, `/datasets`, `/training-runs`, `/models/{name}/predict` and the lists of methods."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.analytics.asking import read_anomalies, read_forecast
from nexus.analytics.dataset_service import DatasetService
from nexus.analytics.detector import DETECTORS
from nexus.analytics.forecaster import FORECASTERS
from nexus.analytics.predictor import PREDICTORS
from nexus.analytics.schemas import AnomaliesIn, DatasetOut, ForecastIn, MethodOut, PredictIn, TrainingIn, dataset_out
from nexus.analytics.service import AnalyticsService
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of
from nexus.http.uploads import MEGABYTE, read_upload
from nexus.runs.routes import accepted

router = APIRouter(prefix="/api/v1", tags=["analytics"])

Analytics = Annotated[AnalyticsService, service(AnalyticsService)]
Datasets = Annotated[DatasetService, service(DatasetService)]
Reader = Annotated[Principal, requires(Scope.ANALYTICS_READ)]
Asker = Annotated[Principal, requires(Scope.ANALYTICS_PREDICT)]
Trainer = Annotated[Principal, requires(Scope.ANALYTICS_TRAIN)]
IdempotencyKey = Annotated[str | None, Header(max_length=255)]
_FILE = {"type": "string", "format": "binary"}
_DATASET_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": _FILE, "name": {"type": "string", "maxLength": 255}},
                }
            }
        },
    }
}
_FORECAST_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "horizon"],
                    "properties": {
                        "file": _FILE,
                        "horizon": {"type": "integer", "minimum": 1},
                        "level": {"type": "string", "default": "80,95"},
                        "model": {"type": "string", "default": "auto"},
                        "frequency": {"type": "string"},
                    },
                }
            },
            "application/json": {"schema": ForecastIn.model_json_schema()},
        },
    }
}

_ANOMALY_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": _FILE,
                        "model": {"type": "string", "default": "auto"},
                        "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                    },
                }
            },
            "application/json": {"schema": AnomaliesIn.model_json_schema()},
        },
    }
}


@router.post("/forecasts", operation_id="forecasts.create", openapi_extra=_FORECAST_FORM)
async def forecast(request: Request, who: Asker, analytics: Analytics) -> Response:
    """Forecast the series of a CSV or Parquet file, of rows in JSON, or of a data set."""
    source, spec = await read_forecast(request, analytics.settings)
    body = await analytics.forecast(who, source, spec, request_id=request.scope.get("request_id"))
    return _json(body)


@router.post("/anomalies", operation_id="anomalies.create", openapi_extra=_ANOMALY_FORM)
async def anomalies(request: Request, who: Asker, analytics: Analytics) -> Response:
    """Find odd moments of series or odd rows of a table: a CSV or Parquet file, JSON, or a data set."""
    source, spec = await read_anomalies(request, analytics.settings)
    body = await analytics.find_anomalies(who, source, spec, request_id=request.scope.get("request_id"))
    return _json(body)


@router.get("/detectors", operation_id="detectors.list")
async def detectors(who: Reader) -> dict[str, list[MethodOut]]:
    """List the detectors that `model` may name."""
    plugs = DETECTORS.all().items()
    return {"data": [MethodOut(name=name, title=plug.title, source=plug.source) for name, plug in plugs]}


@router.get("/forecasters", operation_id="forecasters.list")
async def forecasters(who: Reader) -> dict[str, list[MethodOut]]:
    """List the forecasters that `model` may name."""
    plugs = FORECASTERS.all().items()
    return {"data": [MethodOut(name=name, title=plug.title, source=plug.source) for name, plug in plugs]}


@router.get("/predictors", operation_id="predictors.list")
async def predictors(who: Reader) -> dict[str, list[MethodOut]]:
    """List the predictors that a training may name."""
    plugs = PREDICTORS.all().items()
    return {"data": [MethodOut(name=name, title=plug.title, source=plug.source) for name, plug in plugs]}


@router.post("/datasets", status_code=201, operation_id="datasets.create", openapi_extra=_DATASET_FORM)
async def add_dataset(request: Request, response: Response, who: Trainer, datasets: Datasets) -> DatasetOut:
    """Keep a CSV or Parquet file as a data set."""
    upload = await read_upload(request, "file", limit=datasets.settings.max_upload_mb * MEGABYTE)
    name = upload.fields.get("name", "").strip()[:255] or None
    dataset = await datasets.add(who, upload.chunks(), filename=upload.filename, name=name)
    response.headers["location"] = f"/api/v1/datasets/{dataset.id}"
    return DatasetOut.model_validate(dataset_out(dataset))


@router.get("/datasets", operation_id="datasets.list")
async def list_datasets(who: Reader, page: Paged, datasets: Datasets) -> dict[str, Any]:
    """List the data sets of the project."""
    rows = await datasets.list(who, after=page.after_id, limit=page.fetch, descending=page.descending)
    return page_of(rows, page, render=dataset_out)


@router.get("/datasets/{dataset_id}", operation_id="datasets.get")
async def get_dataset(dataset_id: str, who: Reader, datasets: Datasets) -> DatasetOut:
    """Show a data set with its schema."""
    return DatasetOut.model_validate(dataset_out(await datasets.get(who, dataset_id)))


@router.get("/datasets/{dataset_id}/preview", operation_id="datasets.preview")
async def preview_dataset(
    dataset_id: str, who: Reader, datasets: Datasets, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> dict[str, list[dict[str, Any]]]:
    """Show the first rows of a data set."""
    return {"data": await datasets.preview(who, dataset_id, limit)}


@router.delete("/datasets/{dataset_id}", status_code=204, operation_id="datasets.delete")
async def delete_dataset(dataset_id: str, who: Trainer, datasets: Datasets) -> None:
    """Forget a data set. Models trained on it stay."""
    await datasets.remove(who, dataset_id)


@router.post("/training-runs", status_code=202, operation_id="training_runs.create")
async def train(
    body: TrainingIn,
    request: Request,
    who: Trainer,
    analytics: Analytics,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Start the training of a model on a data set: 202 with its place, or its end when `Prefer: wait=N` allows."""
    run = await analytics.train(who, body.dataset_id, body.name, body.spec(), idempotency_key=idempotency_key)
    return await accepted(run, request)


@router.post("/models/{name}/predict", operation_id="models.predict")
async def predict(name: str, body: PredictIn, request: Request, who: Asker, analytics: Analytics) -> Response:
    """Ask a trained model about rows."""
    answer = await analytics.predict(
        who, name, body.rows, alias=body.alias, version=body.version, request_id=request.scope.get("request_id")
    )
    return _json(answer)


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
