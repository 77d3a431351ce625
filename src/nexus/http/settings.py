"""How the web face behaves. Environment: `NEXUS_HTTP__<NAME>`; addresses of section `NEXUS_*` are in the root."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, field_validator

Network = IPv4Network | IPv6Network

MEGABYTE = 1024 * 1024


def _listed(value: Any) -> Any:
    """Read `a, b` of an environment variable as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _network(value: str | Network) -> Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be an IP address or a network such as 10.0.0.0/8") from None


Networks = Annotated[list[Annotated[Network, BeforeValidator(_network)]], BeforeValidator(_listed)]
Names = Annotated[list[str], BeforeValidator(_listed)]


class HTTPSettings(BaseModel):
    """The web face: addresses, caps and time limits (seconds, bytes)."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    public_url: str | None = None
    root_path: str = ""
    hosts: Names = []
    origins: Names = []
    trusted_proxies: Networks = []
    fetch_allow: Networks = []
    json_limit: int = Field(4 * MEGABYTE, gt=0)
    vision_json_limit: int = Field(28 * MEGABYTE, gt=0)
    upload_limit: int = Field(512 * MEGABYTE, gt=0)
    header_limit: int = Field(64 * 1024, gt=0)
    header_timeout: float = Field(10.0, gt=0)
    body_timeout: float = Field(30.0, gt=0)
    body_rate: int = Field(1024, gt=0)
    send_timeout: float = Field(60.0, gt=0)
    keep_alive: int = Field(30, gt=0)
    heartbeat: float = Field(15.0, gt=0)
    max_connections: int = Field(4096, gt=0)
    max_inflight: int = Field(2048, gt=0)
    shutdown_grace: int = Field(25, ge=1, le=25)

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("must be a plain http or https URL")
        return value.rstrip("/")

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and (not value.startswith("/") or any(c in value for c in "\"'<>&?# \\")):
            raise ValueError("must be a plain path such as /nexus")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _refuse_everyone(cls, value: Any) -> Any:
        """With everyone trusted, anybody chooses the address that limits and the audit see."""
        for part in _listed(value) or []:
            if str(part) == "*" or str(part).endswith("/0"):
                raise ValueError("name the proxies' own networks; '*' would let any caller choose its address")
        return value
