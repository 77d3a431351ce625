"""Reads what a forecast is asked about: a form with a file, or JSON."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import ValidationError

from nexus.analytics.schemas import ForecastIn, ForecastOptions, rows_of, split_form
from nexus.analytics.settings import AnalyticsSettings
from nexus.analytics.types import ForecastSpec, Source
from nexus.core.errors import MalformedBody, UnsupportedMedia
from nexus.http.body import json_body
from nexus.http.handlers import issues_of
from nexus.http.problem import ValidationFailed
from nexus.http.uploads import MEGABYTE, read_upload


async def read_forecast(request: Request, settings: AnalyticsSettings) -> tuple[Source | str, ForecastSpec]:
    """Return the table (or the id of a data set) and what to do with it.

    Raises `UnsupportedMedia`, `TooLarge`, `MalformedBody`, and `ValidationFailed` naming each wrong field.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    limit = settings.max_inline_mb * MEGABYTE
    try:
        if media == "multipart/form-data":
            upload = await read_upload(request, "file", limit=limit)
            options = ForecastOptions.model_validate(split_form(upload.repeated))
            return Source(content=await upload.read()), options.spec()
        if media == "application/json" or media.endswith("+json"):
            return _asked(ForecastIn.model_validate(_members(await json_body(request, limit)), strict=True))
    except ValidationError as error:
        raise ValidationFailed(issues_of(error.errors())) from None
    raise UnsupportedMedia("Send multipart/form-data or application/json.", field="content-type")


def _members(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise MalformedBody("The body must be a JSON object.")
    return body


def _asked(wanted: ForecastIn) -> tuple[Source | str, ForecastSpec]:
    if wanted.dataset_id is not None:
        return wanted.dataset_id, wanted.spec()
    rows, columns = rows_of(wanted.series or [])
    return Source(rows=rows), wanted.spec(columns)
