"""Reads what is asked about: a form with a file, or JSON."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import ValidationError

from nexus.analytics.schemas import AnomaliesIn, AnomalyOptions, ForecastIn, ForecastOptions, rows_of, split_form
from nexus.analytics.settings import AnalyticsSettings
from nexus.analytics.types import AnomalySpec, ForecastSpec, Source
from nexus.core.errors import MalformedBody, UnsupportedMedia
from nexus.http.body import json_body
from nexus.http.handlers import issues_of
from nexus.http.problem import ValidationFailed
from nexus.http.uploads import MEGABYTE, read_upload


async def read_forecast(request: Request, settings: AnalyticsSettings) -> tuple[Source | str, ForecastSpec]:
    """Return the table (or the id of a data set) and how to forecast it.

    Raises `UnsupportedMedia`, `TooLarge`, `MalformedBody`, and `ValidationFailed` naming each wrong field.
    """
    form, body = await _read(request, settings)
    try:
        if form is not None:
            return Source(content=form), ForecastOptions.model_validate(body).spec()
        wanted = ForecastIn.model_validate(body, strict=True)
    except ValidationError as error:
        raise ValidationFailed(issues_of(error.errors())) from None
    if wanted.dataset_id is not None:
        return wanted.dataset_id, wanted.spec()
    rows, columns = rows_of(wanted.series or [])
    return Source(rows=rows), wanted.spec(columns)


async def read_anomalies(request: Request, settings: AnalyticsSettings) -> tuple[Source | str, AnomalySpec]:
    """Return the table (or the id of a data set) and how to look for anomalies in it. Raises as `read_forecast`."""
    form, body = await _read(request, settings)
    try:
        if form is not None:
            return Source(content=form), AnomalyOptions.model_validate(body).spec()
        # Not strict: a threshold may be written 1.
        wanted = AnomaliesIn.model_validate(body)
    except ValidationError as error:
        raise ValidationFailed(issues_of(error.errors())) from None
    if wanted.dataset_id is not None:
        return wanted.dataset_id, wanted.spec()
    if wanted.rows is not None:
        return Source(rows=wanted.rows), wanted.spec("table")
    rows, columns = rows_of(wanted.series if wanted.series is not None else [{"y": wanted.values}])
    return Source(rows=rows), wanted.spec("series", columns)


async def _read(request: Request, settings: AnalyticsSettings) -> tuple[bytes | None, dict[str, Any]]:
    """Return the file of a form and its fields, or None and the members of a JSON object."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    limit = settings.max_inline_mb * MEGABYTE
    if media == "multipart/form-data":
        upload = await read_upload(request, "file", limit=limit)
        return await upload.read(), split_form(upload.repeated)
    if media == "application/json" or media.endswith("+json"):
        return None, _members(await json_body(request, limit))
    raise UnsupportedMedia("Send multipart/form-data or application/json.", field="content-type")


def _members(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise MalformedBody("The body must be a JSON object.")
    return body
