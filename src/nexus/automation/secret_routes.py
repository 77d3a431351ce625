"""`/api/v1/secrets`: write-only values that steps may use by name."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.automation.schemas import NewSecret, SecretOut, SecretValue, secret_out
from nexus.automation.secrets import SecretService
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of

router = APIRouter(prefix="/secrets", tags=["automation"])

Secrets = Annotated[SecretService, service(SecretService)]
Reader = Annotated[Principal, requires(Scope.AUTOMATION_READ)]
Writer = Annotated[Principal, requires(Scope.AUTOMATION_WRITE)]


@router.get("", operation_id="secrets.list", summary="List secrets")
async def list_secrets(page: Paged, who: Reader, secrets: Secrets) -> dict[str, Any]:
    """The names of the project's secrets, in their order; no values."""
    rows = await secrets.list(who, after=page.after_id, limit=page.fetch)
    return page_of(rows, page, render=secret_out, key=lambda secret: [secret.name])


@router.post("", status_code=201, operation_id="secrets.create", summary="Keep a secret")
async def create_secret(body: NewSecret, response: Response, who: Writer, secrets: Secrets) -> SecretOut:
    """Keep a value under a name; 200 when it takes the place of another."""
    secret, made = await secrets.put(who, body.name, body.value)
    response.status_code = 201 if made else 200
    response.headers["location"] = f"/api/v1/secrets/{secret.name}"
    return secret_out(secret)


@router.get("/{name}", operation_id="secrets.get", summary="Show a secret's name")
async def get_secret(name: str, who: Reader, secrets: Secrets) -> SecretOut:
    """Whether there is a secret of this name, and since when; not its value."""
    return secret_out(await secrets.get(who, name))


@router.put("/{name}", operation_id="secrets.put", summary="Set a secret")
async def put_secret(name: str, body: SecretValue, response: Response, who: Writer, secrets: Secrets) -> SecretOut:
    """Set the value of a secret, new (201) or not (200)."""
    secret, made = await secrets.put(who, name, body.value)
    response.status_code = 201 if made else 200
    return secret_out(secret)


@router.delete("/{name}", status_code=204, operation_id="secrets.delete", summary="Forget a secret")
async def delete_secret(name: str, who: Writer, secrets: Secrets) -> None:
    """Forget a secret; steps that ask for it fail from now on."""
    await secrets.delete(who, name)
