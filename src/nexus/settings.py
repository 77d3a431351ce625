"""Every setting of NEXUS, composed from the sections of the slices.

A value comes from the command line, else from the environment (`NEXUS_PORT`, `NEXUS_LLM__TIMEOUT`),
else from the YAML file (`--config`, default `<data dir>/nexus.yaml`; `${NAME}` in it reads the
environment), else it is the default. `docs/settings.md` lists them all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from nexus.access.settings import AccessSettings
from nexus.analytics.settings import AnalyticsSettings
from nexus.automation.settings import AutomationSettings
from nexus.catalog.settings import CatalogSettings
from nexus.compute.settings import ComputeSettings
from nexus.core.errors import NexusError
from nexus.files.settings import FilesSettings
from nexus.http.settings import HTTPSettings, Networks
from nexus.ledger.settings import LedgerSettings
from nexus.llm.settings import LLMSettings
from nexus.runs.settings import RunsSettings
from nexus.storage.settings import StorageSettings
from nexus.telemetry.settings import TelemetrySettings
from nexus.vision.settings import VisionSettings

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SEPARATOR = re.compile(r",|:(?!//)")


class SettingsInvalid(NexusError):
    """The settings are not valid."""

    code = "settings_invalid"


class Settings(BaseSettings):
    """The whole configuration of one installation."""

    model_config = SettingsConfigDict(env_prefix="NEXUS_", env_nested_delimiter="__", extra="forbid")

    data_dir: Path = Field(Path("data"), description="Everything NEXUS writes lies below it")
    host: str = Field("127.0.0.1", description="Address to serve on; a public one is refused until an admin exists")
    port: int = Field(8000, ge=0, le=65535, description="Port to serve on")
    database_url: str | None = Field(None, repr=False, description="postgresql://... at scale; none: SQLite")
    redis_url: str | None = Field(None, repr=False, description="redis://... at scale; none: in-process")
    model_sources: Annotated[list[str], NoDecode] = Field([], description="Folders tried before any download")
    offline: bool = Field(False, description="Never touch the network for models or prices")
    secret_key_file: Path | None = Field(None, description="Key that encrypts stored credentials; none: generated")
    admin_password_file: Path | None = Field(None, description="Password of the first admin, without the set-up page")
    public_url: str | None = Field(None, description="Where users reach NEXUS, for host allow-list and cookies")
    trusted_proxies: Annotated[Networks, NoDecode] = Field([], description="Networks whose X-Forwarded-For counts")
    fetch_allow: Annotated[Networks, NoDecode] = Field([], description="Private networks that user URLs may reach")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:N")

    http: HTTPSettings = HTTPSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    storage: StorageSettings = StorageSettings()
    compute: ComputeSettings = ComputeSettings()
    access: AccessSettings = AccessSettings()
    files: FilesSettings = FilesSettings()
    catalog: CatalogSettings = CatalogSettings()
    ledger: LedgerSettings = LedgerSettings()
    runs: RunsSettings = RunsSettings()
    llm: LLMSettings = LLMSettings()
    vision: VisionSettings = VisionSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    automation: AutomationSettings = AutomationSettings()

    @field_validator("model_sources", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Read `a:b` or `a,b` as a list; `file://a` stays whole."""
        return [part for part in _SEPARATOR.split(value) if part] if isinstance(value, str) else value

    @field_validator("database_url", "redis_url", "public_url", "secret_key_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: given values, environment, YAML file."""
        given = init_settings()
        folder = Path(given.get("data_dir") or os.environ.get("NEXUS_DATA_DIR") or "data")
        named = os.environ.get("NEXUS_CONFIG")
        return init_settings, env_settings, _YamlSource(settings_cls, Path(named) if named else folder / "nexus.yaml")

    @property
    def database(self) -> str:
        """Return the URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'nexus.db'}"

    @property
    def embedded(self) -> bool:
        """Tell whether everything runs on this machine, with no database or broker of its own."""
        return self.database_url is None and self.redis_url is None

    def sections(self) -> Settings:
        """Return a copy whose sections know the top-level values that they need."""
        http = {
            "host": self.host,
            "port": self.port,
            "public_url": self.public_url,
            "trusted_proxies": self.trusted_proxies,
            "fetch_allow": self.fetch_allow,
        }
        # Absolute: the programs that fetch models run in folders of their own.
        folder = self.data_dir.absolute()
        catalog = {"data_dir": folder, "model_sources": self.model_sources, "offline": self.offline}
        runs = {"data_dir": folder, "broker_url": self.redis_url}
        return self.model_copy(
            update={
                "data_dir": folder,
                # Validated again: these values come from the top level.
                "http": HTTPSettings.model_validate({**self.http.model_dump(), **http}),
                "catalog": self.catalog.model_copy(update=catalog),
                "runs": self.runs.model_copy(update=runs),
            }
        )


class _YamlSource(PydanticBaseSettingsSource):
    """The settings file."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        super().__init__(settings_cls)
        self._path = path

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Not used: the file is read as a whole."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        if not self._path.is_file():
            if os.environ.get("NEXUS_CONFIG"):
                raise SettingsInvalid(f"There is no settings file {self._path}.")
            return {}
        try:
            data = yaml.safe_load(self._path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            place = getattr(error, "problem_mark", None)
            where = f" (line {place.line + 1}, column {place.column + 1})" if place else ""
            raise SettingsInvalid(f"{self._path} is not valid YAML{where}.") from None
        if not isinstance(data, dict):
            raise SettingsInvalid(f"{self._path} must hold names and values.")
        return {str(key): _filled(value) for key, value in data.items()}


def _filled(value: Any) -> Any:
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: os.environ.get(found[1], ""), value)
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return value


def use_config(path: Path) -> None:
    """Read settings from this file from now on, in this process and its children."""
    os.environ["NEXUS_CONFIG"] = str(path.absolute())


def load_settings(**given: Any) -> Settings:
    """Return the settings, `given` before all else. Raises `SettingsInvalid` naming each wrong value."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None}).sections()
    except SettingsError:
        raise SettingsInvalid("A NEXUS_ variable with a list or an object must hold JSON.") from None
    except ValidationError as error:
        wrong = [f"{_name(problem['loc'])}: {problem['msg']}" for problem in error.errors(include_input=False)]
        raise SettingsInvalid("; ".join(wrong)) from None


def _name(location: tuple[int | str, ...]) -> str:
    return "NEXUS_" + "__".join(str(part) for part in location).upper()
