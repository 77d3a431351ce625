"""How a FastAPI route finds its service.

@router.post("/ocr")
async def ocr(vision: Annotated[VisionService, service(VisionService)]) -> Reading: ...
"""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Depends, Request

from nexus.core.services import Services

T = TypeVar("T")


def services_of(request: Request) -> Services:
    """Return the shelf of services that `app.state.services` holds."""
    shelf: Services = request.app.state.services
    return shelf


def service(kind: type[T]) -> Any:
    """Return a FastAPI dependency that is the service of type `kind`."""

    async def find(request: Request) -> T:
        return services_of(request).get(kind)

    return Depends(find)
