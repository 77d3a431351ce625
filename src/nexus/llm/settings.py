"""What an operator may set about language models: `NEXUS_LLM__*`, and `llm:` in the YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from nexus.core.secrets import Secret
from nexus.llm.types import Price, PriceTier

_ROUTE_NAME = re.compile(r"^[!-~]{1,256}$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$")


class Surroundings(NamedTuple):
    """What a cloud's own tools find around this process: variables of the environment, and the home folder."""

    variables: Mapping[str, str]
    home: Path


def surroundings(prefix: str) -> Surroundings:
    """Return the variables whose names begin with `prefix`, read now."""
    return Surroundings(
        {name: value for name, value in os.environ.items() if name.startswith(prefix) and value}, Path.home()
    )


class TimeoutSettings(BaseModel):
    """Seconds for each phase of an upstream call."""

    model_config = ConfigDict(extra="forbid")

    connect: float = Field(5.0, gt=0, description="Seconds to connect, TLS included.")
    first_token: float = Field(30.0, gt=0, description="Seconds until the first byte of a stream.")
    between_tokens: float = Field(20.0, gt=0, description="Seconds between two pieces of a stream.")
    total: float = Field(300.0, gt=0, description="Seconds for the whole call, all its attempts together.")
    attempt: float | None = Field(
        None,
        gt=0,
        description="Seconds for one attempt of a call that is not streamed. Unset: all that is left, "
        "or six tenths of it while there is another deployment to try.",
    )


class CapabilitySettings(BaseModel):
    """What a model can do, where it differs from what its provider kind assumes."""

    model_config = ConfigDict(extra="forbid")

    tools: bool | None = None
    images: bool | None = None
    audio: bool | None = None
    documents: bool | None = None
    json_schema: bool | None = None
    reasoning: bool | None = None
    choices: bool | None = None
    logprobs: bool | None = None
    context_tokens: int | None = Field(None, gt=0)


class PriceSettings(BaseModel):
    """US dollars for a million tokens; `request` and `web_search` are dollars for each one."""

    model_config = ConfigDict(extra="forbid")

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(0.0, ge=0, allow_inf_nan=False)
    cache_read: float | None = Field(None, ge=0, allow_inf_nan=False)
    cache_write: float | None = Field(None, ge=0, allow_inf_nan=False)
    cache_write_1h: float | None = Field(None, ge=0, allow_inf_nan=False)
    audio_input: float | None = Field(None, ge=0, allow_inf_nan=False)
    audio_output: float | None = Field(None, ge=0, allow_inf_nan=False)
    audio_cache_read: float | None = Field(None, ge=0, allow_inf_nan=False)
    image_output: float | None = Field(None, ge=0, allow_inf_nan=False)
    reasoning: float | None = Field(None, ge=0, allow_inf_nan=False)
    request: float = Field(0.0, ge=0, allow_inf_nan=False)
    web_search: float = Field(0.0, ge=0, allow_inf_nan=False)
    tiers: list[PriceTierSettings] = []

    def price(self) -> Price:
        """Return it as calls are priced by it."""
        given = self.model_dump(include=set(PriceSettings.model_fields) - {"tiers"})
        tiers = tuple(PriceTier(above=tier.above, price=tier.price()) for tier in self.tiers)
        return Price(**given, tiers=tuple(sorted(tiers, key=lambda tier: tier.above)))


class PriceTierSettings(PriceSettings):
    """The price of calls that read more than `above` tokens."""

    above: int = Field(gt=0)


class ModelPriceSettings(PriceSettings):
    """What models of a provider cost: `provider` is its name or kind; `*` in `model` stands for anything."""

    provider: str
    model: str


class ProviderSettings(BaseModel):
    """One account at one provider. Fields beyond these (region, project ...) are options of its kind."""

    model_config = ConfigDict(extra="allow")

    name: str
    kind: str
    api_key: SecretStr | None = None
    base_url: str | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.match(value):
            raise ValueError("a provider's name has letters, digits, dots, colons and dashes, at most 63")
        return value

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"^https?://[^\s/?#@\\]+(/[^\s?#\\]*)?$", value):
            raise ValueError("a base_url is http(s)://host[:port][/path], without user, query or fragment")
        return value.rstrip("/") if value else None

    def secret(self, environment_name: str | None = None) -> Secret | None:
        """Return the key: as given, else from the environment under the usual name of its kind."""
        given = self.api_key.get_secret_value() if self.api_key is not None else ""
        if not given and environment_name:
            given = os.environ.get(environment_name, "")
        return Secret(given) if given else None

    def options(self) -> dict[str, Any]:
        """Return the fields that only this kind knows."""
        return dict(self.model_extra or {})


class DeploymentSettings(BaseModel):
    """One place where a route's calls may go."""

    model_config = ConfigDict(extra="forbid")

    provider: str
    model: str
    weight: float = Field(1.0, ge=0)
    rpm: int | None = Field(None, gt=0)
    tpm: int | None = Field(None, gt=0)
    capabilities: CapabilitySettings | None = None
    price: PriceSettings | None = None


class SemanticSettings(BaseModel):
    """Serving a kept answer to a question that means the same. Off by default: read the guards in the docs first."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    threshold: float = Field(0.97, ge=0.5, le=1)
    entries: int = Field(10_000, ge=1, le=100_000)


class CacheSettings(BaseModel):
    """Which answers of a route are kept. With `exact`, those to the same request of the same project.

    `keys` has other seconds for the requests of some API keys, by their ids; 0 turns the cache off for them.
    """

    model_config = ConfigDict(extra="forbid")

    exact: bool = False
    ttl: float = Field(3600.0, gt=0)
    keys: dict[str, Annotated[float, Field(ge=0)]] = {}
    stale: float = Field(0.0, ge=0)
    any_temperature: bool = False
    tools: bool = False
    semantic: SemanticSettings = SemanticSettings()


class HealthSettings(BaseModel):
    """Checking a route's deployments now and then, by their provider's list of models or by a call for one token."""

    model_config = ConfigDict(extra="forbid")

    interval: float = Field(30.0, ge=1, le=3600)
    by_call: bool = False


Droppable = Literal[
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
]


class RouteSettings(BaseModel):
    """A public model name and where its calls go.

    `drop_unsupported` names fields that are left out, instead of a 400, for a model that does not take them.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    deployments: list[DeploymentSettings] = Field(min_length=1)
    strategy: Literal["weighted", "least_busy", "lowest_latency", "lowest_cost"] = "weighted"
    fallbacks: list[str] = []
    timeouts: TimeoutSettings | None = None
    task: Literal["chat", "embedding"] = "chat"
    cache: CacheSettings = CacheSettings()
    continuation: bool = False
    drop_unsupported: list[Droppable] = []
    health: HealthSettings | None = None

    @model_validator(mode="after")
    def _chats_have_meaning(self) -> RouteSettings:
        if self.task == "embedding" and self.cache.semantic.enabled:
            raise ValueError("cache.semantic is for routes of chats: embeddings are kept by their very input")
        return self

    @field_validator("name")
    @classmethod
    def _printable_name(cls, value: str) -> str:
        if not _ROUTE_NAME.match(value):
            raise ValueError("a route's name has visible ASCII characters, at most 256")
        return value


class LocalSettings(BaseModel):
    """The built-in chat model, run by llama.cpp in a child process."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Offer the built-in demo model as `nexus-local`.")
    model: str = Field("smollm2-135m-instruct", description="Name in the model catalogue.")
    parallel: int = Field(4, ge=1, le=64, description="Requests worked on at once; more wait.")
    context: int = Field(2048, ge=256, description="Tokens of context for each request.")
    threads: int = Field(0, ge=0, description="Threads; 0 is what the machine lets this process use.")
    gpu_layers: int = Field(0, ge=-1, description="Layers on the GPU, with a CUDA build of xllamacpp; -1 is all.")
    start_timeout: float = Field(60.0, gt=0, description="Seconds that a request waits for the child to be ready.")
    children: int = Field(2, ge=1, le=64, description="Other local models that run at once; the idlest makes room.")
    idle: float = Field(900.0, ge=1, description="Seconds without work after which another local model ends.")
    longest_context: int = Field(4096, ge=256, description="Most tokens of a request to another local model.")


class EmbeddingSettings(BaseModel):
    """The built-in embedding model, run by ONNX Runtime in this process."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Offer the built-in embedding model.")
    model: str = Field("minilm-l6-v2", description="Name in the model catalogue, and the route's name.")
    threads: int = Field(2, ge=1, description="Threads of one run.")
    batch: int = Field(32, ge=1, le=512, description="Texts in one run.")
    max_inputs: int = Field(2048, ge=1, description="Texts in one request.")


class LLMSettings(BaseModel):
    """Providers, routes, limits and the built-in models."""

    model_config = ConfigDict(extra="forbid")

    providers: list[ProviderSettings] = []
    routes: list[RouteSettings] = []
    prices: list[ModelPriceSettings] = Field([], description="Prices that come before the published ones.")
    timeout: float | None = Field(None, gt=0, description="Seconds for a whole call; short for timeouts.total.")
    timeouts: TimeoutSettings = TimeoutSettings()
    write_timeout: float = Field(60.0, gt=0, description="Seconds that a client of a stream may take nothing.")
    retries: int = Field(1, ge=0, le=5, description="Further tries of a route's deployments before the first token.")
    retry_wait: float = Field(2.0, ge=0, description="Longest pause asked for by a provider that is waited for.")
    retry_budget: float = Field(0.2, ge=0, description="Further tries, as a share of a route's recent requests.")
    retry_floor: int = Field(10, ge=0, description="Further tries in ten seconds that are allowed in any case.")
    refresh_seconds: float = Field(5.0, gt=0, description="Seconds until a change over the API holds in all processes.")
    heartbeat: float = Field(15.0, gt=0, description="Seconds between signs of life before a stream's first token.")
    reserve_tokens: int = Field(
        1000, ge=1, description="Tokens of answer reserved of a limit for a call that sets no max_tokens."
    )
    max_body: int = Field(20_000_000, gt=0, description="Bytes of a request that carries media.")
    max_text_body: int = Field(4_000_000, gt=0, description="Bytes of a request that carries text only.")
    max_files: int = Field(
        20_000_000, gt=0, description="Bytes of the files that a request names by their ids, all together."
    )
    responses_days: int = Field(30, ge=1, description="Days that stored responses are kept.")
    max_answer: int = Field(128_000_000, gt=0, description="Bytes of one upstream answer.")
    connections: int = Field(2048, ge=1, description="Connections to one upstream address.")
    keepalive: float = Field(30.0, ge=0, description="Seconds that an unused upstream connection is kept.")
    ca_file: str | None = Field(None, description="PEM file of further authorities for upstream TLS.")
    local: LocalSettings = LocalSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()

    @model_validator(mode="after")
    def _names_fit(self) -> LLMSettings:
        names = [provider.name for provider in self.providers]
        routes = [route.name for route in self.routes]
        for kind, given in (("provider", names), ("route", routes)):
            if len(set(given)) != len(given):
                raise ValueError(f"two {kind}s have the same name")
        for route in self.routes:
            for deployment in route.deployments:
                if deployment.provider == "local" and deployment.model == "nexus-local":
                    raise ValueError(f"route {route.name}: nexus-local is a demo model, no deployment of a route")
                if deployment.provider not in names and (deployment.provider != "local" or not self.local.enabled):
                    raise ValueError(f"route {route.name}: there is no provider {deployment.provider}")
        return self
