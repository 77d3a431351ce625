"""How much the process says. Environment: `NEXUS_TELEMETRY__<NAME>`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class TelemetrySettings(BaseModel):
    """Logs, samples and traces."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    sample_seconds: float = Field(1.0, ge=0.1, le=60)
    sample_history: float = Field(600.0, ge=10, le=86_400)
    otlp_endpoint: str | None = None
    trace_ratio: float = Field(0.1, ge=0, le=1)
    max_series: int = Field(200, ge=10)
