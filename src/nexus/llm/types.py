"""The nouns of the language slice: one message form that every provider and dialect translates to and from.

Nothing here belongs to one provider. What the form has no word for is kept as `Foreign` parts and in
`extra`, so that nothing is lost on the way through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from nexus.core.errors import NexusError

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause", "failed", "other"]
Need = Literal["tools", "images", "audio", "documents", "json_schema", "reasoning", "choices", "logprobs"]
Strategy = Literal["weighted", "least_busy", "lowest_latency", "lowest_cost"]


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """One piece of a message.

    `cache` is the caller's cache mark ("5m", "1h") on it; `signature` a provider's seal that must come
    back unchanged with the piece (thinking, and Gemini's thought signatures on any part).
    """

    cache: str | None = None
    signature: str | None = None


class Text(Part, frozen=True, tag="text"):
    """Words."""

    text: str


class Media(Part, frozen=True, tag="media"):
    """A picture, sound, clip or document: base64 `data` with its `media_type`, a `url`, or a `file_id`."""

    kind: Literal["image", "audio", "video", "document"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    name: str | None = None


class Thinking(Part, frozen=True, tag="thinking"):
    """Reasoning shown by the model; `redacted` is its sealed form where the words are withheld."""

    text: str = ""
    redacted: str | None = None


class Refusal(Part, frozen=True, tag="refusal"):
    """The model's own refusal."""

    text: str


class ToolCall(Part, frozen=True, tag="tool_call"):
    """A call that the model asks for; `arguments` is JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str
    kind: str = "function"


class ToolResult(Part, frozen=True, tag="tool_result"):
    """What a called tool returned."""

    id: str
    content: tuple[Text | Media, ...] = ()
    is_error: bool = False


class Searched(Part, frozen=True, tag="searched"):
    """A search in the web that the provider made on the way to its answer, and the addresses that it found."""

    queries: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    failed: bool = False


class Foreign(Part, frozen=True, tag="foreign"):
    """A part that only its own dialect knows; it survives within that dialect."""

    dialect: str
    value: Any


AnyPart: TypeAlias = Text | Media | Thinking | Refusal | ToolCall | ToolResult | Searched | Foreign


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Who said it, and its parts in order."""

    role: Role
    parts: tuple[AnyPart, ...]
    name: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the words of all text parts together."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function the model may call; `parameters` is a JSON schema. `value` holds a provider's own tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    cache: str | None = None
    value: dict[str, Any] | None = None


class WebSearch(msgspec.Struct, frozen=True, kw_only=True):
    """A search in the web that the model may let its provider make: how much of it is read, where, and for whom.

    `name` is what the client calls it in its request, `place` where it says the rest. An empty `location` is
    nowhere, and none the provider's usual one.
    """

    name: str
    place: str
    size: str
    domains: tuple[str, ...] = ()
    location: dict[str, str] | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whether tools must be used, and which one."""

    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str | None = None
    parallel: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The form asked of the answer: free text, any JSON object, or JSON of a schema."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def described(self) -> dict[str, Any]:
        """Return the schema with the description in it, for forms that have no other place for it."""
        return ({"description": self.description} if self.description else {}) | (self.schema or {})


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """How much the model may think: a level by name, or a budget in tokens."""

    effort: str | None = None
    budget_tokens: int | None = None
    summary: str | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a chat model, whoever serves it.

    `logprobs` asks for the log probability of each token, and of as many alternatives as it says.
    `verbosity` is a wish (low, medium, high), `service_tier` how the provider is to process the call.
    `extra` holds named fields without a word here, and `dialect` says whose they are: a writer of
    another form refuses them (`nexus.llm.forms.unsaid`) but for hints, which it leaves out. The `extra` of
    messages is left out.
    `places` gives what the client calls each part of each message, for errors, where that is not our way.
    """

    dialect: str = ""
    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    search: WebSearch | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: int = 1
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: int | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    user: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    places: Callable[[], Sequence[Sequence[str]]] | None = None


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of one call. Input counts everything read, the cache tiers included; output includes reasoning.

    `cache_write_tokens` counts both lifetimes, `cache_write_1h_tokens` the part of it kept for an hour;
    `audio_cache_read_tokens` are sound read from the cache, and part of both other figures. `tier` is the
    service tier that the provider says it used, where it bills tiers differently. `estimated` is set where
    the provider gave no figures. `advice` is what other models used, which is in none of the figures.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    audio_cache_read_tokens: int = 0
    image_output_tokens: int = 0
    web_searches: int = 0
    tier: str | None = None
    estimated: bool = False
    advice: tuple[Advice, ...] = ()


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of another model, by its name at the provider, that advised the one that was asked."""

    model: str
    usage: Usage


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a completion. `failed` is no end: its provider says that nothing came of it."""

    index: int
    message: Message
    finish_reason: FinishReason | None = None
    native_finish_reason: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `invocation_id` names its row in the ledger once it is recorded."""

    id: str
    model: str
    created: int
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    invocation_id: str | None = None
    cost_usd: float | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the words of the first choice."""
        return self.choices[0].message.text if self.choices else ""

    @property
    def failed(self) -> str | None:
        """Return why an answer of it failed, "" where its provider does not say; None where none did."""
        reasons = (choice.native_finish_reason or "" for choice in self.choices if choice.finish_reason == "failed")
        return next(reasons, None)


class ToolDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call: `position` says which call; `arguments` is to be appended."""

    position: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    kind: str | None = None
    signature: str | None = None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer; what is None did not change. Usage is cumulative, the last one counts.

    `signature` seals the text of this piece where it has one (an empty one too), else the thinking before it.
    """

    index: int = 0
    id: str | None = None
    model: str | None = None
    created: int | None = None
    role: Role | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    refusal: str | None = None
    tool: ToolDelta | None = None
    part: AnyPart | None = None
    finish_reason: FinishReason | None = None
    native_finish_reason: str | None = None
    usage: Usage | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts (or token ids) to embed, and the size of vector asked for.

    `body` is the request as a client of `dialect` wrote it, for a provider of the same form. `task` is
    what the vectors are for ("query", "document" ...), where a model tells such uses apart; `form` is
    the caller's own word for how the answer is to look; `own()` is what only `dialect` can say of it, if anything.
    """

    model: str
    input: tuple[str, ...] | tuple[tuple[int, ...], ...]
    dimensions: int | None = None
    user: str | None = None
    task: str | None = None
    form: str = ""
    dialect: str = ""
    body: bytes = b""
    own: Callable[[], Any] = lambda: None


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """One float32 vector for each input, little-endian and packed, in the order asked.

    `body` is the provider's own answer where it is in the caller's dialect; `vectors` is empty then.
    `headers` are lines for the caller beside it.
    """

    model: str
    vectors: tuple[bytes, ...]
    dimensions: int
    usage: Usage | None
    body: bytes = b""
    invocation_id: str | None = None
    cost_usd: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a model can do. A request that needs more is refused by name, never silently thinned out."""

    tools: bool = True
    images: bool = True
    audio: bool = True
    documents: bool = True
    json_schema: bool = True
    reasoning: bool = True
    choices: bool = True
    logprobs: bool = True
    context_tokens: int | None = None
    demo: bool = False

    def lacks(self, need: Need) -> bool:
        """Tell whether the model cannot do this."""
        return not getattr(self, need)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for each phase of a call; the first token and the gaps count for streams only.

    `total` is for all attempts together, `attempt` for one of a call that is not streamed.
    """

    connect: float = 5.0
    first_token: float = 30.0
    between_tokens: float = 20.0
    total: float = 300.0
    attempt: float | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars for a million tokens. A tier that is None costs what plain input or output costs.

    `request` and `web_search` are dollars for each one. `tiers` are the prices of calls that read more
    tokens than their `above`, `variants` those of a provider's service tiers. `source` says who set it.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    audio_input: float | None = None
    audio_output: float | None = None
    audio_cache_read: float | None = None
    image_output: float | None = None
    reasoning: float | None = None
    request: float = 0.0
    web_search: float = 0.0
    tiers: tuple[PriceTier, ...] = ()
    variants: dict[str, Price] = msgspec.field(default_factory=dict)
    source: str = ""


class PriceTier(msgspec.Struct, frozen=True, kw_only=True):
    """The price of every token of a call that reads more than `above` tokens."""

    above: int
    price: Price


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a model runs: an account's name, the model's name there, and its limits."""

    provider: str
    model: str
    weight: float = 1.0
    rpm: int | None = None
    tpm: int | None = None
    capabilities: Capabilities = Capabilities()
    price: Price | None = None

    @property
    def key(self) -> str:
        """Name this deployment in figures and states."""
        return f"{self.provider}/{self.model}"


class SemanticPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a kept answer to a question of the same meaning may serve: `threshold` is the least cosine."""

    enabled: bool = False
    threshold: float = 0.97
    entries: int = 10_000


class CachePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which answers of a route are kept, for how many seconds, and for how many more they serve in an outage.

    `keys` has other seconds for the requests of some API keys, by their ids; 0 keeps none and uses none.
    """

    ttl: float = 3600.0
    keys: dict[str, float] = msgspec.field(default_factory=dict)
    stale: float = 0.0
    any_temperature: bool = False
    tools: bool = False
    semantic: SemanticPolicy = SemanticPolicy()


class HealthPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often a route's deployments are checked, and whether by a call for one token or by the list of models."""

    interval: float = 30.0
    by_call: bool = False


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Our public model name and where its calls go; `continuation` lets another deployment end a broken stream.

    `drop_unsupported` names fields that a model may be asked without where it cannot take them.
    """

    name: str
    deployments: tuple[Deployment, ...]
    strategy: Strategy = "weighted"
    fallbacks: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()
    task: Literal["chat", "embedding"] = "chat"
    cache: CachePolicy | None = None
    continuation: bool = False
    drop_unsupported: tuple[str, ...] = ()
    health: HealthPolicy | None = None
    built_in: bool = False


class Call(msgspec.Struct, kw_only=True):
    """A chat request on its way: as its dialect wrote it, and on demand in our own form.

    Same dialect on both sides: `body` travels as it is, only model and stream options are replaced.
    Otherwise `parse()` gives the neutral form. `headers` are the ones a dialect hands through,
    `received` all that came with the request; `form` is the dialect's own word for how the answer is to look.
    `apart` is what makes the same request mean something else than in other dialects. `own_id` tells that the client
    comes back to its answer by its id, so that nobody else may have the same; `alone`, that only an answer of its
    own will do. `given` is the body as the client wrote it where files that it names have been put into `body`.
    `advisors` are other models that the provider may let take part.
    """

    dialect: str
    model: str
    parse: Callable[[], ChatRequest]
    body: bytes = b""
    stream: bool = False
    wants_usage: bool = True
    choices: int = 1
    needs: frozenset[Need] = frozenset()
    fields: dict[Need, str] = msgspec.field(default_factory=dict)
    characters: int = 0
    max_tokens: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    received: Sequence[tuple[bytes, bytes]] = ()
    form: str = ""
    apart: str = ""
    own_id: bool = False
    alone: bool = False
    advisors: tuple[str, ...] = ()
    given: bytes = b""

    @classmethod
    def of(cls, request: ChatRequest, *, stream: bool = False) -> Call:
        """Wrap a request that was made in this process."""
        needs: set[Need] = set()
        if request.tools:
            needs.add("tools")
        if request.choices > 1:
            needs.add("choices")
        if request.response_format is not None and request.response_format.kind == "json_schema":
            needs.add("json_schema")
        kinds: dict[str, Need] = {"image": "images", "audio": "audio", "video": "images", "document": "documents"}
        characters = 0
        for message in request.messages:
            characters += len(message.text)
            needs |= {kinds[part.kind] for part in message.parts if isinstance(part, Media)}
        return cls(
            dialect="",
            model=request.model,
            parse=lambda: request,
            stream=stream,
            choices=request.choices,
            needs=frozenset(needs),
            characters=characters,
            max_tokens=request.max_tokens,
        )


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens a request has; `body` is the provider's own answer where it is in the caller's dialect."""

    tokens: int
    estimated: bool = False
    body: bytes = b""


class Tally(msgspec.Struct, kw_only=True):
    """What was seen of an answer while it passed: enough to account for it, however it ended.

    `failure` is an error that the stream itself reported; what came before it is still to be handed on.
    `failed` is the provider's reason where the model's answer came to nothing ("" for none given).
    """

    usage: Usage | None = None
    characters: int = 0
    events: int = 0
    finished: int = 0
    finish_reason: str | None = None
    done: bool = False
    failure: NexusError | None = None
    failed: str | None = None

    @classmethod
    def of(cls, completion: Completion) -> Tally:
        """Return the tally of a whole answer."""
        tally = cls(usage=completion.usage, finished=len(completion.choices), done=True, failed=completion.failed)
        for choice in completion.choices:
            tally.finish_reason = choice.native_finish_reason or choice.finish_reason
            for part in choice.message.parts:
                if isinstance(part, Text | Refusal | Thinking):
                    tally.characters += len(part.text)
                elif isinstance(part, ToolCall):
                    tally.characters += len(part.arguments)
        return tally

    def hear(self, chunk: Chunk) -> None:
        """Take a piece of the answer into account."""
        for words in (chunk.text, chunk.thinking, chunk.refusal):
            if words:
                self.characters += len(words)
        if chunk.tool is not None:
            self.characters += len(chunk.tool.arguments)
        if chunk.finish_reason is not None:
            self.finished += 1
            self.finish_reason = chunk.native_finish_reason
            if chunk.finish_reason == "failed":
                self.failed = chunk.native_finish_reason or ""
        if chunk.usage is not None:
            self.usage = chunk.usage


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list of models that may be asked for."""

    name: str
    owner: str
    task: str
    demo: bool = False
