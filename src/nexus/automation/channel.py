"""The contract of a channel plug: one file in `channels/`, one way to tell people.

    class Pigeon:
        kind = "pigeon"
        summary = "A letter by pigeon."
        credential = "The pigeon's name"
        Config = PigeonConfig

        async def send(self, notice: Notice, config: PigeonConfig, credential: str | None) -> int | None: ...

    plug = Pigeon()

`credential` says what the channel's secret is; None: it has none. `send` returns the status of the answer where
there is one, and raises a `NexusError`: a `retryable` one is tried again, `ChannelGone` disables the channel.
Every attempt of one notice has the same `notice.id`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from nexus.core.plugins import PluginFolder

NoticeEvent = Literal["alert.firing", "alert.acknowledged", "alert.resolved", "approval.requested", "notice"]


class ChannelConfig(BaseModel):
    """The base of every channel's settings: nothing unknown is taken, and nothing of it is secret."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told. `key` names what it is about: the notices of one alert share it. `at` is RFC 3339."""

    id: str
    event: NoticeEvent
    key: str
    severity: Literal["info", "warning", "error", "critical"]
    title: str
    text: str
    at: str
    details: dict[str, Any] = field(default_factory=dict)
    link: str | None = None

    @property
    def headline(self) -> str:
        """Return the title with what has become of it."""
        words = {"alert.firing": self.severity.upper(), "approval.requested": "Approval", "notice": "Notice"}
        return f"[{words.get(self.event) or self.event.partition('.')[2].capitalize()}] {self.title}"

    def facts(self) -> list[tuple[str, str]]:
        """Return the details as short lines of text."""
        return [(name, str(value)[:500]) for name, value in self.details.items() if value not in (None, "", {}, [])]


@runtime_checkable
class ChannelPlug(Protocol):
    """One way to tell people."""

    @property
    def kind(self) -> str:
        """Return the name that channels use, which is that of the file."""
        ...

    @property
    def summary(self) -> str:
        """Return one sentence for people."""
        ...

    @property
    def credential(self) -> str | None:
        """Return what the secret of such a channel is; None when there is none."""
        ...

    @property
    def Config(self) -> type[ChannelConfig]:  # noqa: N802  it is a class
        """Return the model of its settings."""
        ...

    async def send(self, notice: Notice, config: Any, credential: str | None) -> int | None:
        """Send the notice; return the status of the answer where there is one."""
        ...


CHANNELS: PluginFolder[ChannelPlug] = PluginFolder("nexus.automation.channels", ChannelPlug, noun="channel")  # type: ignore[type-abstract]
