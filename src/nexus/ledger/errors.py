"""What the ledger can say no to.

InvalidInput
`-- InvalidUsageQuery      422 invalid_usage_query
NotFound
|-- InvocationNotFound     404 invocation_not_found
`-- BudgetNotFound         404 budget_not_found
RateLimited
|-- RateLimitExceeded      429 rate_limit_exceeded
`-- BudgetExceeded         429 budget_exceeded
"""

from __future__ import annotations

from nexus.core.errors import InvalidInput, NotFound, RateLimited


class InvocationNotFound(NotFound):
    """There is no such invocation in this project."""

    code = "invocation_not_found"


class BudgetNotFound(NotFound):
    """There is no such budget in this project."""

    code = "budget_not_found"


class InvalidUsageQuery(InvalidInput):
    """The usage report cannot be made in this way."""

    code = "invalid_usage_query"


class RateLimitExceeded(RateLimited):
    """The limit of requests, tokens or parallel calls is reached; try again later."""

    code = "rate_limit_exceeded"


class BudgetExceeded(RateLimited):
    """The budget is used up; waiting will not help before its period ends."""

    code = "budget_exceeded"
    retryable = False
