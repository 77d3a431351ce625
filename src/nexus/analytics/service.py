"""What analytics does for a project: forecast series, train models, ask them.

All heavy work runs in a compute child; this process only checks, records and hands on. What works on numbers is
imported by the first call: a process that is asked for no analytics needs none of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nexus.access.types import Principal
from nexus.analytics.dataset_service import DatasetService
from nexus.analytics.errors import CannotLearn, ColumnNotFound, NotATabularModel, TableTooLarge, UnknownMethod, shown
from nexus.analytics.predictor import PREDICTORS
from nexus.analytics.recording import recorded
from nexus.analytics.settings import AnalyticsSettings
from nexus.analytics.types import AnomalySpec, ForecastSpec, Limits, Source, TrainSpec
from nexus.catalog.service import CatalogService
from nexus.catalog.types import ModelVersion
from nexus.compute.pool import ComputePool
from nexus.core.errors import InvalidInput, NotFound
from nexus.ledger.service import Ledger
from nexus.runs.service import RunService
from nexus.runs.types import Run, RunSpec, StepSpec

if TYPE_CHECKING:
    from nexus.analytics.forecasting import Budget

KIND: Final = "analytics"
TRAIN: Final = "analytics.train"


class AnalyticsService:
    """Forecasts, trainings and predictions, each recorded once."""

    def __init__(
        self,
        *,
        settings: AnalyticsSettings,
        pool: ComputePool,
        ledger: Ledger,
        catalog: CatalogService,
        runs: RunService,
        datasets: DatasetService,
    ) -> None:
        """Start nothing; compute children come up with the first call."""
        self.settings = settings
        self.datasets = datasets
        self._pool = pool
        self._ledger = ledger
        self._catalog = catalog
        self._runs = runs

    async def forecast(
        self, who: Principal, source: Source | str, spec: ForecastSpec, **origin: str | None
    ) -> dict[str, Any]:
        """Forecast every series of a table, or of the data set with this id.

        `origin` is request_id, or run_id and step_key. The answer has the shape of design/contract.md. Raises what
        is wrong with the table or the request (`InvalidInput` and below), `ComputeBusy`, `ComputeTimeout`.
        """
        from nexus.analytics.forecasting import check_model, forecast_table
        from nexus.analytics.frequency import canonical

        with recorded(self._ledger, who, "forecast", spec.model, **origin) as invocation:
            if spec.horizon > self.settings.max_horizon:
                raise InvalidInput(f"At most {self.settings.max_horizon} steps can be forecast.", field="horizon")
            check_model(spec.model)
            if spec.frequency is not None:
                canonical(spec.frequency)
            body = await self._pool.run(
                forecast_table,
                await self._source(who, source),
                spec,
                Limits.of(self.settings),
                self._budget,
                timeout=self.settings.forecast_timeout,
            )
            invocation.items = len(body["series"])
            invocation.details = {"horizon": spec.horizon, "frequency": body["frequency"]}
        return {"id": invocation.id, **body}

    @property
    def _budget(self) -> Budget:
        from nexus.analytics.forecasting import Budget

        settings = self.settings
        return Budget(settings.max_series, settings.max_history, settings.backtest_windows, settings.backtest_seconds)

    async def find_anomalies(
        self, who: Principal, source: Source | str, spec: AnomalySpec, **origin: str | None
    ) -> dict[str, Any]:
        """Score the moments of series or the rows of a table, and name the anomalies among them.

        The answer has the shape of design/contract.md. Raises as `forecast` does.
        """
        from nexus.analytics.anomalies import check_detector, detect_table

        with recorded(self._ledger, who, "anomalies", spec.model, **origin) as invocation:
            check_detector(spec.model)
            body = await self._pool.run(
                detect_table,
                await self._source(who, source),
                spec,
                Limits.of(self.settings),
                self.settings.max_series,
                timeout=self.settings.anomaly_timeout,
            )
            invocation.items = len(body["scores"])
            invocation.details = {"anomalies": len(body["anomalies"])}
        return {"id": invocation.id, **body}

    async def _source(self, who: Principal, source: Source | str) -> Source:
        return await self.datasets.source(who, source) if isinstance(source, str) else source

    async def train(
        self, who: Principal, dataset_id: str, name: str, spec: TrainSpec, *, idempotency_key: str | None = None
    ) -> Run:
        """Start a run that trains a model and keeps it as the next version of `name`, its champion.

        Raises `DatasetNotFound`, `ColumnNotFound`, `UnknownMethod`, and `ModelExists` for a catalogue name.
        """
        dataset = await self.datasets.get(who, dataset_id)
        if spec.predictor not in PREDICTORS:
            raise UnknownMethod(f"Known predictors are {', '.join(PREDICTORS.names())}.", field="predictor")
        known = [column.name for column in dataset.columns]
        for field, column in (("target", spec.target), *(("features", one) for one in spec.features or ())):
            if column not in known:
                raise ColumnNotFound(
                    f"The data set has no column {shown(column)}.", field=field, columns=[shown(one) for one in known]
                )
        if spec.features is not None and not set(spec.features) - {spec.target}:
            raise CannotLearn("Name at least one column other than the target.", field="features")
        inputs = {"dataset_id": dataset_id, "name": name, **asdict(spec)}
        step = StepSpec(key="train", uses=TRAIN, with_=inputs, timeout=self.settings.train_timeout)
        return await self._runs.start(
            who, RunSpec(kind="training", name=name, steps=[step], inputs=inputs, idempotency_key=idempotency_key)
        )

    async def train_now(
        self,
        who: Principal,
        dataset_id: str,
        name: str,
        spec: TrainSpec,
        *,
        run_id: str,
        step_key: str,
    ) -> dict[str, Any]:
        """Train, and keep the model. A second attempt of the same step finds what the first one kept."""
        from nexus.analytics.training import train_table

        if (kept := await self._kept(who, name, run_id)) is not None:
            return _training_result(kept)
        with recorded(self._ledger, who, "train", name, run_id=run_id, step_key=step_key) as invocation:
            with tempfile.TemporaryDirectory(prefix="nexus-training-") as folder:
                trained = await self._pool.run(
                    train_table,
                    await self.datasets.source(who, dataset_id),
                    spec,
                    Limits.of(self.settings),
                    Path(folder),
                    timeout=self.settings.train_timeout,
                )
                meta = asdict(trained)
                del meta["files"]
                meta |= {"predictor": spec.predictor, "target": spec.target, "dataset_id": dataset_id, "run_id": run_id}
                version = await self._catalog.add_version(
                    who, name, kind=KIND, task=trained.task, files=trained.files, meta=meta
                )
            invocation.version, invocation.items = version.version, trained.rows
            invocation.details = {"metrics": trained.metrics, "baseline": trained.baseline}
        return _training_result(version)

    async def _kept(self, who: Principal, name: str, run_id: str) -> ModelVersion | None:
        try:
            newest = await self._catalog.find(name, principal=who)
        except NotFound:
            return None
        return newest if newest.meta.get("run_id") == run_id else None

    async def predict(
        self,
        who: Principal,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        alias: str | None = None,
        version: int | None = None,
        **origin: str | None,
    ) -> dict[str, Any]:
        """Ask a trained model about rows.

        The answer has the shape of design/contract.md. Raises `ModelNotFound`, `AliasNotFound`,
        `NotATabularModel`, and `InvalidValue` for a cell or a column that does not fit.
        """
        from nexus.analytics.predicting import predict_rows

        with recorded(self._ledger, who, "predict", name, **origin) as invocation:
            if len(rows) > self.settings.max_predict_rows:
                raise TableTooLarge(f"At most {self.settings.max_predict_rows} rows go into one call.", field="rows")
            found = await self._catalog.find(name, version=version, alias=alias, principal=who)
            invocation.version, invocation.items = found.version, len(rows)
            if found.kind != KIND or "preprocessing" not in found.files:
                raise NotATabularModel(field="model")
            predictions = await self._pool.run(
                predict_rows,
                f"{found.key}#{found.digest}",
                found.files,
                list(rows),
                timeout=self.settings.predict_timeout,
            )
        return {"id": invocation.id, "model": name, "version": found.version, "predictions": predictions}


def _training_result(version: ModelVersion) -> dict[str, Any]:
    """Return what a training run answers: the model and how good it is."""
    shown_meta = {key: version.meta.get(key) for key in ("task", "metrics", "baseline", "features", "ignored", "rows")}
    return {"model": version.model, "version": version.version, **shown_meta}
