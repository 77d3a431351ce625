"""Ask a language model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from nexus.automation.step import StepModel
from nexus.llm.service import LLMService
from nexus.llm.types import ChatRequest, Message, Text
from nexus.runs.types import StepContext


class Turn(StepModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatInputs(StepModel):
    """A `prompt`, or `messages`; the answer is the assistant's next message."""

    model: str = Field(min_length=1, max_length=200)
    prompt: str | None = None
    messages: list[Turn] = Field(default_factory=list, max_length=1_000)
    system: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)

    @model_validator(mode="after")
    def _something_is_said(self) -> ChatInputs:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("give either prompt or messages")
        return self


class ChatOutputs(StepModel):
    """What was answered. `cost_usd` is null where no price is known."""

    text: str
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
        turns = [Turn(role="system", content=inputs.system)] if inputs.system else []
        turns += inputs.messages or [Turn(role="user", content=inputs.prompt or "")]
        request = ChatRequest(
            model=inputs.model,
            messages=tuple(Message(role=turn.role, parts=(Text(text=turn.content),)) for turn in turns),
            max_tokens=inputs.max_tokens,
            temperature=inputs.temperature,
        )
        done = await context.services.get(LLMService).chat(
            context.principal, request, run_id=context.run_id, step_key=context.step_key
        )
        usage = done.usage
        context.log(f"{done.model} answered {usage.output_tokens if usage else '?'} tokens")
        return ChatOutputs(
            text=done.text,
            model=done.model,
            finish_reason=done.choices[0].finish_reason if done.choices else None,
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            cost_usd=done.cost_usd,
        )


plug = LlmChat()
