"""What can go wrong when the ledger is asked."""

from __future__ import annotations

from nexus.core.errors import InvalidInput, NotFound


class InvocationNotFound(NotFound):
    """There is no such invocation in this project."""

    code = "invocation_not_found"


class InvalidUsageQuery(InvalidInput):
    """The usage report cannot be made in this way."""

    code = "invalid_usage_query"
