"""Settings of analytics (`NEXUS_ANALYTICS__*`)."""

from __future__ import annotations

from pydantic import BaseModel, Field


class AnalyticsSettings(BaseModel):
    """How large data may be and how long work on them may take."""

    max_rows: int = Field(5_000_000, ge=1, description="rows of one table")
    max_columns: int = Field(2000, ge=1, description="columns of one table")
    max_cells: int = Field(100_000_000, ge=1, description="rows x columns of one table")
    max_cell_bytes: int = Field(1_048_576, ge=1, description="bytes of one cell")
    max_upload_mb: int = Field(512, ge=1, description="size of an uploaded data set in MB")
    max_inline_mb: int = Field(
        64, ge=1, description="size of a file sent with a forecast; larger ones become data sets"
    )
    max_series: int = Field(5000, ge=1, description="series of one forecast")
    max_horizon: int = Field(1000, ge=1, description="steps ahead of one forecast")
    max_history: int = Field(2500, ge=50, description="newest observations of a series that forecasters see")
    max_predict_rows: int = Field(10_000, ge=1, description="rows of one predict call")
    backtest_windows: int = Field(3, ge=1, description="rolling origins that choose the model of a series")
    backtest_seconds: float = Field(60.0, gt=0, description="after so long the rest of the series take the best so far")
    forecast_timeout: float = Field(300.0, gt=0, description="seconds one forecast may take")
    anomaly_timeout: float = Field(120.0, gt=0, description="seconds one search for anomalies may take")
    predict_timeout: float = Field(60.0, gt=0, description="seconds one predict call may take")
    train_timeout: float = Field(3600.0, gt=0, description="seconds one training may take")
