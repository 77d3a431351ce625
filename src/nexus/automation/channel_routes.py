"""`/api/v1/channels`: ways to tell people, and what was told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.automation.alert_tables import ChannelRow, DeliveryRow
from nexus.automation.channel import CHANNELS
from nexus.automation.channel_service import ChannelService
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of

router = APIRouter(prefix="/channels", tags=["automation"])

ChannelsOf = Annotated[ChannelService, service(ChannelService)]
Reader = Annotated[Principal, requires(Scope.AUTOMATION_READ)]
Writer = Annotated[Principal, requires(Scope.AUTOMATION_WRITE)]
Runner = Annotated[Principal, requires(Scope.AUTOMATION_RUN)]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
SecretName = Annotated[str | None, Field(max_length=64, description="The project's secret that is its credential")]
Credential = Annotated[
    str | None, Field(max_length=64 * 1024, description="Kept as a secret of the project; never shown again")
]


class ChannelIn(BaseModel):
    """A new channel."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    kind: Annotated[str, Field(max_length=32, examples=["email", "webhook", "slack"])]
    config: dict[str, Any] = Field(default_factory=dict)
    secret: SecretName = None
    credential: Credential = None
    enabled: bool = True


class ChannelPatch(BaseModel):
    """What of a channel can be changed; what is left out stays. Enabling one lifts why it was disabled."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name = ""
    config: dict[str, Any] = Field(default_factory=dict)
    secret: SecretName = None
    credential: Credential = None
    enabled: bool = True


class ChannelOut(BaseModel):
    """A channel as it stands. `credential` is there once: when the key of a webhook was made."""

    id: str
    name: str
    kind: str
    config: dict[str, Any]
    secret: str | None
    enabled: bool
    disabled_because: str | None
    created_at: datetime
    updated_at: datetime
    credential: str | None = None


class DeliveryOut(BaseModel):
    """What was sent. `failed`: the last attempt; its run says whether there comes another."""

    id: str
    channel_id: str
    alert_id: str | None
    run_id: str | None
    message_id: str
    event: str
    notice: dict[str, Any]
    status: str
    attempts: int
    answer_status: int | None
    error: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


def channel_out(row: ChannelRow, credential: str | None = None) -> ChannelOut:
    """Return the wire form of a channel."""
    names = ChannelOut.model_fields.keys() - {"credential"}
    return ChannelOut(**{name: getattr(row, name) for name in names}, credential=credential)


def delivery_out(row: DeliveryRow) -> DeliveryOut:
    """Return the wire form of a delivery."""
    return DeliveryOut(**{name: getattr(row, name) for name in DeliveryOut.model_fields})


@router.post("", status_code=201, operation_id="channels.create")
async def create_channel(body: ChannelIn, response: Response, who: Writer, channels: ChannelsOf) -> ChannelOut:
    """Keep a way to tell people."""
    row, made = await channels.create(who, **body.model_dump())
    response.headers["location"] = f"/api/v1/channels/{row.id}"
    return channel_out(row, made)


@router.get("", operation_id="channels.list")
async def list_channels(page: Paged, who: Reader, channels: ChannelsOf) -> dict[str, Any]:
    """List the channels of the project."""
    rows = await channels.page(who, after=page.after_id, limit=page.fetch, descending=page.descending)
    return page_of(rows, page, render=channel_out)


@router.get("/kinds", operation_id="channels.kinds")
async def channel_kinds(_who: Reader) -> dict[str, Any]:
    """List what kinds of channels there are, with the JSON Schema of their settings."""
    plugs = CHANNELS.all().values()
    return {
        "data": [
            {"kind": p.kind, "summary": p.summary, "credential": p.credential, "config": p.Config.model_json_schema()}
            for p in plugs
        ]
    }


@router.get("/{channel}", operation_id="channels.get")
async def get_channel(channel: str, who: Reader, channels: ChannelsOf) -> ChannelOut:
    """Show a channel by its id or name."""
    return channel_out(await channels.get(who, channel))


@router.patch("/{channel}", operation_id="channels.change")
async def change_channel(channel: str, body: ChannelPatch, who: Writer, channels: ChannelsOf) -> ChannelOut:
    """Change what is named."""
    return channel_out(await channels.change(who, channel, body.model_dump(exclude_unset=True)))


@router.delete("/{channel}", status_code=204, operation_id="channels.delete")
async def delete_channel(channel: str, who: Writer, channels: ChannelsOf) -> None:
    """Delete a channel with its log."""
    await channels.delete(who, channel)


@router.post("/{channel}/test", operation_id="channels.test")
async def test_channel(channel: str, who: Runner, channels: ChannelsOf) -> DeliveryOut:
    """Send a notice now and show how that went."""
    return delivery_out(await channels.test(who, channel))


@router.get("/{channel}/deliveries", operation_id="channels.deliveries")
async def list_deliveries(channel: str, page: Paged, who: Reader, channels: ChannelsOf) -> dict[str, Any]:
    """List what was sent to a channel, the newest first."""
    rows = await channels.deliveries(who, channel, after=page.after_id, limit=page.fetch, descending=page.descending)
    return page_of(rows, page, render=delivery_out)


@router.post("/deliveries/{delivery_id}/redeliver", status_code=202, operation_id="channels.redeliver")
async def redeliver(delivery_id: str, response: Response, who: Runner, channels: ChannelsOf) -> DeliveryOut:
    """Send the same notice again, under the same message id."""
    row, run = await channels.redeliver(who, delivery_id)
    response.headers["location"] = f"/api/v1/runs/{run.id}"
    return delivery_out(row)
