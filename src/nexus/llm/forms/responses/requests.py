"""Requests of the Responses form: read into our own, and written from it.

Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.errors import MissingParameter, UnknownResponse, Unsupported, WrongType
from nexus.llm.forms.cache_marks import marked_for
from nexus.llm.forms.chat.tools import check_choice, narrowed
from nexus.llm.forms.free_form import as_function
from nexus.llm.forms.responses.items import (
    ADDED,
    DIALECT,
    OUTPUTS,
    UPDATE,
    flat_name,
    has_seals,
    kind_of,
    places_of,
    read_items,
    unsealed_items,
    write_items,
)
from nexus.llm.forms.shown import told_by_user
from nexus.llm.forms.unsaid import refuse_fields, refuse_unsaid
from nexus.llm.forms.web_search import read_search, search_for
from nexus.llm.forms.wishes import tier_of
from nexus.llm.types import (
    Call,
    ChatRequest,
    Message,
    Reasoning,
    ResponseFormat,
    Text,
    Tool,
    ToolChoice,
    WebSearch,
)

_any = msgspec.json.Decoder()
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
# What only says how the answer is kept, addressed or billed: it has no meaning to a model elsewhere.
_ASIDE = frozenset(("stream", "stream_options", "store", "background", "previous_response_id", "include", "truncation"))

# Tables of which only one field asks for something, and the values of it that ask for nothing.
_IDLE = {
    "access_programs": ("cyber", (None, "standard")),
    "image": ("context_compression", (None, "auto", "disabled")),
}
# What the two forms of one maker call alike.
_ALIKE = ("metadata", "moderation", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
_MAKER = DIALECT.partition(".")[0]
_SEARCH_FIELDS = frozenset(
    ("type", "external_web_access", "filters", "search_context_size", "search_content_types", "user_location")
)

_SEALED = frozenset(("item_reference", "compaction", "compaction_trigger", "mcp_approval_response"))


class ResponsesCall(Call, kw_only=True):
    """A call of this dialect, and what it refers to.

    `history` are the items of all earlier responses, once they have been looked up; None if they have not been
    found here. `held_by` names the deployment whose provider keeps the previous response itself; anywhere else
    `lacking` is raised where what they name has gone. `made_here` tells that the answer was written by us, from one
    in another form.
    """

    previous: str | None = None
    conversation: bool = False
    store: bool = True
    background: bool = False
    history: list[dict[str, Any]] | None = None
    held_by: str | None = None
    lacking: NexusError | None = None
    made_here: bool = False

    @property
    def input(self) -> bytes:
        """Return the `input` as it was written, JSON; files that it names are not in it."""
        return bytes(_fields.decode(self.given or self.body).get("input", b"null"))

    def recall(self, history: list[dict[str, Any]], held_by: str | None, lacking: NexusError | None = None) -> None:
        """Take the items of the earlier responses."""
        self.history, self.held_by, self.lacking = history, held_by, lacking

        def parse(body: bytes = self.body) -> ChatRequest:
            if lacking is not None:
                raise lacking
            return read_request(_any.decode(body), history)

        self.parse = parse

    def body_for(self, deployment: str, model: str, *, trusting: bool = True) -> bytes:
        """Return the body for a provider of the same form: the client's own, as far as that is possible.

        A previous response is named where its provider keeps it, and written out elsewhere. One that is not
        known here is the provider's to find, if it is `trusting` us with that. Raises `UnknownResponse`.
        """
        unknown = self.previous is not None and self.history is None
        if not trusting and (unknown or self.conversation):
            raise _unknown(self.previous)
        away = self.history is not None and self.held_by != deployment
        if away and self.lacking is not None:
            raise self.lacking
        sealed = has_seals(self.body)
        if not away and not sealed and model == self.model:
            return self.body
        fields = _fields.decode(self.body)
        fields["model"] = msgspec.Raw(_encode(model))
        if away or sealed:
            given = items_of(_any.decode(fields["input"])) if "input" in fields else []
            earlier = bare_items(self.history or []) if away else []
            fields["input"] = msgspec.Raw(_encode(unsealed_items([*earlier, *given])))
        if away:
            del fields["previous_response_id"]
        return _encode(fields)


def _unknown(previous: str | None) -> NexusError:
    if previous is None:
        return Unsupported("Conversations are not supported here; use previous_response_id.", field="conversation")
    return UnknownResponse(f"Previous response with id '{previous}' not found.", field="previous_response_id")


def items_of(given: Any) -> list[dict[str, Any]]:
    """Return an `input` as items: a text is a message of the user."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return list(given or ())


def bare_items(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return items for a provider that did not make them: without its ids, and without reasoning it cannot read."""
    fit = []
    for item in items:
        if item.get("type") == "reasoning" and not item.get("encrypted_content"):
            continue
        fit.append({name: value for name, value in item.items() if name not in ("id", "status")})
    return fit


def read_request(body: dict[str, Any], history: list[dict[str, Any]] | None = None) -> ChatRequest:
    """Read a request whose basic types have been checked, after the items of earlier responses.

    Raises `UnknownResponse` for a previous response that was not found, `Unsupported` for what only this form's
    own provider can do.
    """
    rest = {name: value for name, value in body.items() if name not in _ASIDE}
    previous = body.get("previous_response_id")
    if (previous is not None and history is None) or rest.pop("conversation", None) is not None:
        raise _unknown(previous)
    if rest.pop("prompt", None) is not None:
        raise Unsupported("Stored prompts are not supported with this model.", field="prompt")
    given_items = items_of(rest.pop("input", None))
    _check_readable(history or (), given_items)
    items = [*(history or ()), *given_items]
    messages = read_items(items)
    if instructions := rest.pop("instructions", None):
        messages = (Message(role="system", parts=(Text(text=instructions),)), *messages)
    given, reasoning = _updated(rest.pop("text", None) or {}, rest.pop("reasoning", None) or {}, items)
    include = body.get("include") or ()
    top = rest.pop("top_logprobs", None)
    wants_logprobs = "message.output_text.logprobs" in include or bool(top)
    choice = rest.pop("tool_choice", None)
    tools, searches = _read_tools(rest.pop("tools", None) or (), choice)
    for i, item in enumerate(items):
        if item.get("type") == ADDED:
            more, found = _read_tools(item.get("tools") or (), choice, f"input.{i}.tools")
            tools, searches = tools + more, searches + found
    user = rest.pop("user", None)
    chosen = _read_choice(choice, rest.pop("parallel_tool_calls", None))
    search = _chosen_search(searches, tools, chosen, choice)
    check_choice(chosen, tools)
    return ChatRequest(
        dialect=DIALECT,
        model=rest.pop("model"),
        messages=messages,
        tools=tuple(_allowed(tools, choice)),
        tool_choice=chosen,
        search=search,
        max_tokens=rest.pop("max_output_tokens", None),
        temperature=rest.pop("temperature", None),
        top_p=rest.pop("top_p", None),
        logprobs=(top or 0) if wants_logprobs else None,
        response_format=_read_format(given.get("format")),
        reasoning=_read_reasoning(reasoning),
        verbosity=given.get("verbosity"),
        service_tier=rest.pop("service_tier", None),
        user=user if user is not None else rest.get("safety_identifier"),
        extra=_asked(rest),
        places=functools.partial(_places, items, len(history or ()), bool(instructions)),
    )


def _places(items: Sequence[dict[str, Any]], earlier: int, instructed: bool) -> list[list[str]]:
    return ([["instructions"]] if instructed else []) + places_of(items, earlier)


def _asked(rest: dict[str, Any]) -> dict[str, Any]:
    """Return the further fields that ask for something. Raises `Unsupported` for what only this form's provider can."""
    for name in ("prewarm", "comparison_response_id"):
        if (rest.get("prompt_cache_options") or {}).get(name):
            field = f"prompt_cache_options.{name}"
            raise Unsupported(f"{field} is not supported with this model.", field=field)
    idle = [name for name, (inner, values) in _IDLE.items() if name in rest and (rest[name] or {}).get(inner) in values]
    return {name: value for name, value in rest.items() if name not in idle}


def _updated(
    text: dict[str, Any], reasoning: dict[str, Any], items: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of text and thinking as the items leave them: an update stays until the next one."""
    for item in items:
        if item.get("type") == UPDATE:
            text, reasoning = text | (item.get("text") or {}), reasoning | (item.get("reasoning") or {})
    return text, reasoning


def _check_readable(history: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]]) -> None:
    """Refuse items that say what only this form's own provider understands. Raises `Unsupported`.

    A model's record of what its provider did is none of them: its words are in what it said afterwards.
    """
    for place, items in (("previous_response_id", history), ("input", given)):
        for i, item in enumerate(items):
            kind = kind_of(item)
            if kind in _SEALED or (kind.endswith("_output") and kind not in OUTPUTS):
                field = f"input.{i}.type" if place == "input" else place
                raise Unsupported(f"Items of type {kind} are not supported with this model.", field=field)
            if kind in OUTPUTS and not item.get("call_id"):
                field = f"input.{i}.call_id" if place == "input" else place
                raise MissingParameter(f"{field} is required with this model.", field=field)


def _read_tools(
    tools: Sequence[dict[str, Any]], choice: Any, place: str = "tools"
) -> tuple[list[Tool], list[WebSearch]]:
    """Return the functions among tools, and the searches in the web."""
    read: list[Tool] = []
    searches: list[WebSearch] = []
    for i, tool in enumerate(tools):
        kind = tool.get("type")
        if kind == "namespace":
            space = str(tool.get("name") or "")
            inside = [
                _read_function(inner, f"{place}.{i}.tools.{j}", space)
                for j, inner in enumerate(tool.get("tools") or ())
            ]
            if inside and (about := tool.get("description")):
                # What is said of all of them stands with the first.
                inside[0] = msgspec.structs.replace(inside[0], description=_joined(about, inside[0].description))
            read += inside
        elif kind in ("function", "custom"):
            read.append(_read_function(tool, f"{place}.{i}"))
        elif spare_tool(tool) and not isinstance(choice, dict):
            continue
        elif is_search(tool) and not spare_tool(tool):
            searches.append(_read_search(tool, f"{place}.{i}"))
        else:
            raise Unsupported(f"The tool {kind} is not supported with this model.", field=f"{place}.{i}.type")
    return read, searches


def _read_search(tool: dict[str, Any], place: str) -> WebSearch:
    filters, sought = tool.get("filters"), tool.get("search_content_types")
    refuse_fields(tool, _SEARCH_FIELDS, (), f"{place}.")
    if filters is not None and not isinstance(filters, dict):
        raise WrongType(f"{place}.filters must be an object.", field=f"{place}.filters")
    refuse_fields(filters or {}, ("allowed_domains",), (), f"{place}.filters.")
    if sought not in (None, [], ["text"]):
        field = f"{place}.search_content_types"
        raise Unsupported(f"{field}: this model searches for texts only.", field=field)
    where, domains = tool.get("user_location"), (filters or {}).get("allowed_domains")
    return read_search(tool, where, name=f"{place}.type", place=place, domains=domains)


def _chosen_search(
    searches: Sequence[WebSearch], tools: Sequence[Tool], chosen: ToolChoice | None, choice: Any
) -> WebSearch | None:
    """Return the search that the model may use. Raises `Unsupported` for several, and where one is insisted on."""
    if len(searches) > 1:
        raise Unsupported("This model has one search in the web only.", field=searches[1].name)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        if not any(is_search(tool) for tool in _listed(choice)):
            return None
        if not tools or len(_listed(choice)) == 1:
            raise Unsupported("tool_choice: this model cannot be held to a search.", field="tool_choice")
    if searches and not tools and chosen is not None and chosen.mode == "required":
        raise Unsupported("tool_choice: this model cannot be made to search.", field="tool_choice")
    return searches[0] if searches else None


def _joined(*words: str | None) -> str:
    return "\n\n".join(word for word in words if word)


def _allowed(tools: Sequence[Tool], choice: Any) -> Sequence[Tool]:
    """Return the tools that a choice leaves: one of `allowed_tools` keeps the others from being used."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools
    named = {flat_name(tool.get("namespace"), str(tool.get("name"))) for tool in _listed(choice)}
    return narrowed(tools, named)


def _listed(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return [tool for tool in choice.get("tools") or () if isinstance(tool, dict)]


def spare_tool(tool: dict[str, Any]) -> bool:
    """Tell whether a tool is one that agents offer by habit and do without: a search in an old copy of the web."""
    return is_search(tool) and tool.get("external_web_access") is False


def is_search(tool: dict[str, Any]) -> bool:
    """Tell whether a tool is a search in the web, of whichever version."""
    return str(tool.get("type", "")).startswith("web_search")


def _read_function(tool: dict[str, Any], field: str, space: str | None = None) -> Tool:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise MissingParameter(f"{field}.name is required.", field=f"{field}.name")
    callers = tool.get("allowed_callers")
    for told, asked in (("async", tool.get("async")), ("allowed_callers", callers and "direct" not in callers)):
        if asked:
            raise Unsupported(f"{field}.{told} is not supported with this model.", field=f"{field}.{told}")
    described = tool.get("description")
    if isinstance(answers := tool.get("output_schema"), dict):
        rule = f"It returns JSON of this schema: {msgspec.json.encode(answers).decode()}"
        described = _joined(described, rule)
    if tool.get("type") == "custom":
        form = tool.get("format") or {}
        return as_function(flat_name(space, name), described, form if form.get("type") == "grammar" else None)
    return Tool(
        name=flat_name(space, name),
        description=described,
        parameters=tool.get("parameters"),
        strict=tool.get("strict"),
    )


def _read_choice(choice: Any, parallel: bool | None) -> ToolChoice | None:
    if choice is None and parallel is None:
        return None
    if not isinstance(choice, dict):
        return ToolChoice(mode=choice or "auto", parallel=parallel)
    if choice.get("type") in ("function", "custom"):
        return ToolChoice(mode="tool", name=choice.get("name"), parallel=parallel)
    if choice.get("type") == "allowed_tools":
        named = [tool.get("name") for tool in _listed(choice)]
        if choice.get("mode") == "required" and len(named) == 1:
            return ToolChoice(mode="tool", name=named[0], parallel=parallel)
        return ToolChoice(mode="required" if choice.get("mode") == "required" else "auto", parallel=parallel)
    raise Unsupported(f"The tool {choice.get('type')} is not supported with this model.", field="tool_choice")


def _read_format(value: dict[str, Any] | None) -> ResponseFormat | None:
    if value is None or value.get("type") == "text":
        return None
    return ResponseFormat(
        kind=value.get("type", "text"),
        name=value.get("name"),
        description=value.get("description"),
        schema=value.get("schema"),
        strict=value.get("strict"),
    )


def _read_reasoning(value: dict[str, Any]) -> Reasoning | None:
    if value.get("mode") not in (None, "standard"):
        raise Unsupported("This reasoning.mode is not supported with this model.", field="reasoning.mode")
    if not (value.get("effort") or value.get("summary")):
        return None
    return Reasoning(effort=value.get("effort"), summary=value.get("summary") or value.get("generate_summary"))


# Writing.


def write_request(request: ChatRequest, model: str, *, stream: bool, thinks: bool) -> dict[str, Any]:
    """Write a request in another form for `model`; `thinks` says that it can seal its reasoning.

    Raises `Unsupported` for what this form has no word for.
    """
    body: dict[str, Any] = {
        "model": model,
        "input": write_items(marked_for(model, told_by_user(request.messages))),
        "store": False,
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": request.user,
    }
    asked: dict[str, Any] = {
        "stop": request.stop,
        "n": request.choices > 1,
        "seed": request.seed is not None,
        "top_k": request.top_k,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
    }
    for field, value in asked.items():
        if value:
            raise Unsupported(f"This model does not support {field}.", field=field)
    body |= _write_alike(request)
    if request.tools:
        body["tools"] = [_write_tool(tool, i) for i, tool in enumerate(request.tools)]
    if (search := search_for(request, ("search", "size", "domains", "location"))) is not None:
        body["tools"] = [*body.get("tools", ()), _write_search(search)]
    if (choice := request.tool_choice) is not None:
        body["tool_choice"] = {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode
        body["parallel_tool_calls"] = choice.parallel
    form = request.response_format
    text = _given(format=_write_format(form) if form is not None else None, verbosity=request.verbosity)
    body["text"] = text or None
    if request.reasoning is not None and (reasoning := _write_reasoning(request.reasoning, thinks)):
        body["reasoning"] = reasoning
    include = ["reasoning.encrypted_content"] if thinks else []
    if request.logprobs is not None:
        include.append("message.output_text.logprobs")
        body["top_logprobs"] = request.logprobs
    body["include"] = include or None
    body["stream"] = True if stream else None
    return _given(**body)


def _write_alike(request: ChatRequest) -> dict[str, Any]:
    """Write what the maker's other form says in the same words. Raises `Unsupported` for what it says alone."""
    same = request.dialect.startswith(_MAKER)
    refuse_unsaid(request, DIALECT, _ALIKE if same else ())
    tier = request.service_tier if same else tier_of(request)
    return {"service_tier": tier} | {name: request.extra[name] for name in _ALIKE if same and name in request.extra}


def _write_search(search: WebSearch) -> dict[str, Any]:
    where = {"type": "approximate"} | search.location if search.location is not None else None
    filters = {"allowed_domains": list(search.domains)} if search.domains else None
    return _given(type="web_search", search_context_size=search.size, user_location=where, filters=filters)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _write_reasoning(asked: Reasoning, thinks: bool) -> dict[str, Any]:
    """Write how much is to be thought, and whether that is to be shown; a model that cannot but think does little."""
    effort = asked.effort or ("low" if thinks and asked.budget_tokens == 0 else None)
    return _given(effort=effort, summary=None if asked.summary == "none" else asked.summary)


def _write_tool(tool: Tool, position: int) -> dict[str, Any]:
    if tool.value is not None:
        raise Unsupported(f"The tool {tool.name} is not supported with this model.", field=f"tools.{position}")
    # Without a word about it this form would make every schema strict.
    strict = bool(tool.strict)
    told = _given(name=tool.name, description=tool.description, parameters=tool.parameters)
    return {"type": "function", "strict": strict} | told


def _write_format(form: ResponseFormat) -> dict[str, Any]:
    if form.kind != "json_schema":
        return {"type": form.kind}
    told = _given(name=form.name or "answer", description=form.description, schema=form.schema, strict=form.strict)
    return {"type": "json_schema"} | told
