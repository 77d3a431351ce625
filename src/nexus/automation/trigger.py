"""The contract of a trigger plug: one file in `triggers/`, one kind of thing that starts workflows.

    class Moon:
        kind = "moon"
        summary = "When the moon is full."
        Config = MoonConfig

        def types(self, config): return ("moon.full",)
        def admits(self, config, event): return event["data"]["height"] > config.height
        def sample(self, config): return {"type": "moon.full", "data": {"height": 40}}

    plug = Moon()

A trigger hears events (`storage/events.py`) of the `types` it names; what it `admits` is handed to the templates
of its `inputs` and its `when` as `event`. A kind with a door of its own at `/hooks/{id}` fulfils `Door` as well
and turns calls into events. One may have a `check(config, settings)`, which refuses what is not allowed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from nexus.core.plugins import PluginFolder


class TriggerConfig(BaseModel):
    """The base of what each kind needs to know."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Call:
    """A call at a door: header lines by lower-case name, the raw body, the time in seconds since 1970."""

    headers: Mapping[str, str]
    body: bytes
    now: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a call has brought: the event, its id, and what may not come under another id (None: anything)."""

    id: str
    event: dict[str, Any]
    fingerprint: str | None = None


@runtime_checkable
class TriggerPlug(Protocol):
    """One kind of trigger. `config` is an instance of its `Config`."""

    kind: str
    summary: str
    Config: type[TriggerConfig]

    def types(self, config: Any) -> Sequence[str]:
        """Return the types of events to hear, `model.*` for all that begin so; none for a door."""
        ...

    def admits(self, config: Any, event: Mapping[str, Any]) -> bool:
        """Tell whether an event of one of the types is wanted: `type`, `subject`, `data`, `id` and `at`."""
        ...

    def sample(self, config: Any) -> dict[str, Any]:
        """Return an event such as may come, for trying templates out."""
        ...


@runtime_checkable
class Door(Protocol):
    """What a kind that is called from outside has beside the rest."""

    def secret(self, config: Any, given: str | None) -> str:
        """Return the secret to share with the sender: `given` or a new one. Raises `TriggerInvalid`."""
        ...

    def receive(self, config: Any, secrets: Sequence[str], call: Call) -> Arrival | None:
        """Return what a call brings, None when it only asks whether we are here. Raises a `NexusError`."""
        ...


TRIGGERS: PluginFolder[TriggerPlug] = PluginFolder("nexus.automation.triggers", TriggerPlug, noun="kind of trigger")  # type: ignore[type-abstract]
