"""Ask a language model: for text, or for JSON of a schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from nexus.automation.step import StepModel
from nexus.core.errors import NexusError
from nexus.llm.service import LLMService
from nexus.llm.structured import Schema, ask_for
from nexus.llm.types import ChatRequest, Completion, Message, Need, ResponseFormat, Text
from nexus.runs.types import StepContext

_ANSWER_TOKENS = 2048


class Turn(StepModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatInputs(StepModel):
    """A `prompt`, or `messages`; the answer is the assistant's next message."""

    model: str = Field(min_length=1, max_length=200)
    fallback: str | None = Field(
        None, min_length=1, max_length=200, description="The model to ask when the first one cannot answer for now"
    )
    prompt: str | None = None
    messages: list[Turn] = Field(default_factory=list, max_length=1_000)
    system: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    json_schema: dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="A JSON Schema: the answer is JSON that fits it, asked for again until it does",
    )
    repairs: int = Field(2, ge=0, le=5, description="How often an answer that does not fit the schema is asked anew")

    @model_validator(mode="after")
    def _something_is_said(self) -> ChatInputs:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("give either prompt or messages")
        return self


class ChatOutputs(StepModel):
    """What was answered. `data` is the value of an answer with a schema; `cost_usd` is null without a price."""

    text: str
    data: Any = None
    model: str
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


class LlmChat:
    """The step `llm.chat`."""

    uses = "llm.chat"
    summary = "Ask a language model."
    queue = "llm"
    Inputs = ChatInputs
    Outputs = ChatOutputs

    def target(self, inputs: dict[str, Any]) -> str | None:
        """Return the model that is asked."""
        model = inputs.get("model")
        return model if isinstance(model, str) else None

    async def run(self, context: StepContext, inputs: ChatInputs) -> ChatOutputs:
        """Send the conversation and return the whole answer."""
        try:
            return await _answer(context, inputs, inputs.model)
        except NexusError as error:
            if inputs.fallback is None or not error.retryable:
                raise
            context.log(f"{inputs.model} cannot answer ({error.code}), {inputs.fallback} is asked", "warning")
        return await _answer(context, inputs, inputs.fallback)


async def _answer(context: StepContext, inputs: ChatInputs, model: str) -> ChatOutputs:
    conversation = _Conversation(context, inputs, model)
    turns = [Turn(role="system", content=inputs.system)] if inputs.system else []
    turns += inputs.messages or [Turn(role="user", content=inputs.prompt or "")]
    messages = tuple(Message(role=turn.role, parts=(Text(text=turn.content),)) for turn in turns)
    data = None
    if inputs.json_schema is None:
        await conversation.ask(messages, max_tokens=inputs.max_tokens)
    else:
        schema = Schema(inputs.json_schema, field="with.schema")
        limit = inputs.max_tokens or _ANSWER_TOKENS
        data, _ = await ask_for(conversation, messages, schema, max_tokens=limit, retries=inputs.repairs, name="answer")
    return conversation.told(data)


class _Conversation:
    """A chat model ready to be asked, that adds up what its answers cost."""

    def __init__(self, context: StepContext, inputs: ChatInputs, model: str) -> None:
        self.name = model
        self.input_characters = 0
        self._llm = context.services.get(LLMService)
        self._context = context
        self._temperature = inputs.temperature
        self._answers: list[Completion] = []

    def lacks(self, need: Need) -> bool:
        return all(one.capabilities.lacks(need) for one in self._llm.registry.find(self.name).deployments)

    async def ask(
        self, messages: tuple[Message, ...], *, max_tokens: int | None, response_format: ResponseFormat | None = None
    ) -> Completion:
        request = ChatRequest(
            model=self.name,
            messages=messages,
            max_tokens=max_tokens,
            temperature=self._temperature,
            response_format=response_format,
        )
        done = await self._llm.chat(
            self._context.principal, request, run_id=self._context.run_id, step_key=self._context.step_key
        )
        usage = done.usage
        self._context.log(f"{done.model} answered {usage.output_tokens if usage else '?'} tokens")
        self._answers.append(done)
        return done

    def told(self, data: Any) -> ChatOutputs:
        last = self._answers[-1]
        usages = [answer.usage for answer in self._answers if answer.usage is not None]
        costs = [answer.cost_usd for answer in self._answers]
        known = [cost for cost in costs if cost is not None]
        return ChatOutputs(
            text=last.text,
            data=data,
            model=last.model,
            finish_reason=last.choices[0].finish_reason if last.choices else None,
            input_tokens=sum(usage.input_tokens for usage in usages) if usages else None,
            output_tokens=sum(usage.output_tokens for usage in usages) if usages else None,
            cost_usd=sum(known) if len(known) == len(costs) else None,
        )


plug = LlmChat()
