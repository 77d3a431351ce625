"""The services of one process, by their type.

Floor 6 builds each service once and puts it here; routes and steps ask for what they need:

    vision = services.get(VisionService)
"""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


class Services:
    """A typed shelf: one object for each type."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_type: dict[type[Any], Any] = {}

    def put(self, service: object, *, as_type: type[Any] | None = None) -> None:
        """Place `service` under its own type, or under `as_type` for a protocol's implementation."""
        self._by_type[as_type or type(service)] = service

    def get(self, kind: type[T]) -> T:
        """Return the service of this type. Raises `LookupError` when this process has none."""
        try:
            found: T = self._by_type[kind]
        except KeyError:
            raise LookupError(f"this process has no {kind.__name__}") from None
        return found

    def __contains__(self, kind: object) -> bool:
        return kind in self._by_type
