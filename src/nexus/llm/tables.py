"""Responses that clients may come back to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class ResponseRow(Base):
    """A response of a project, its own input and its body as the client got it, both JSON.

    `held_by` names the deployment whose provider keeps it too. `request` is what is still to be worked on by the
    run `run_id`; only its attempt `worker` may add events, and `asked` is the route and the deployment that answers
    it. A deleted one stays without its content, so that nobody else can ask its provider for it.
    """

    __tablename__ = "llm_response"
    __table_args__ = (Index("ix_llm_response_id", "id"),)

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    previous_id: Mapped[str | None] = mapped_column(String(128))
    status: Mapped[str] = mapped_column(String(16))
    held_by: Mapped[str | None] = mapped_column(String(400))
    run_id: Mapped[str | None] = mapped_column(String(40))
    worker: Mapped[str | None] = mapped_column(String(40))
    asked: Mapped[list[str] | None] = mapped_column(JSON)
    input: Mapped[bytes] = mapped_column(LargeBinary)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    request: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(index=True)
    deleted: Mapped[bool] = mapped_column(default=False)


class ResponseEventRow(Base):
    """Some events of a response that is made in the background, as they are sent: those from `number` to `last`."""

    __tablename__ = "llm_response_event"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    response_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)


class ProviderRow(Base):
    """A provider that was made over the API. `sealed` is its credential and its kind's own options, encrypted."""

    __tablename__ = "llm_provider"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[str] = mapped_column(String(64))
    base_url: Mapped[str | None] = mapped_column(String(2000))
    sealed: Mapped[str] = mapped_column(Text)
    revision: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class RouteRow(Base):
    """A route that was made over the API; `body` is what the settings file would say of it."""

    __tablename__ = "llm_route"

    name: Mapped[str] = mapped_column(String(256), primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    revision: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ConfigurationRow(Base):
    """One row, counted up with every change of providers or routes, so that each process learns of it."""

    __tablename__ = "llm_configuration"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
