"""What goes wrong in automation.

InvalidInput
|-- ExpressionError        422 expression_invalid
|-- WorkflowInvalid        422 workflow_invalid
`-- InputsInvalid          422 workflow_inputs_invalid
NotFound
`-- WorkflowNotFound       404 workflow_not_found
NexusError
`-- RequestFailed          502 request_failed
    `-- RequestFailedForNow  502 request_failed_for_now, retryable
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus.core.errors import InvalidInput, NexusError, NotFound


class ExpressionError(InvalidInput):
    """The expression is not valid."""

    code = "expression_invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a definition: where (`steps.1.with.url`), what, and the place in the text."""

    field: str
    message: str
    line: int | None = None
    column: int | None = None


class WorkflowInvalid(InvalidInput):
    """The workflow definition is not valid."""

    code = "workflow_invalid"

    def __init__(self, problems: list[Problem]) -> None:
        """Carry every problem; the first one is the message."""
        first = problems[0]
        place = f" (line {first.line}, column {first.column})" if first.line else ""
        super().__init__(
            f"{first.field or 'workflow'}: {first.message}{place}",
            field=first.field or None,
            problems=[
                {"field": p.field, "message": p.message, **({"line": p.line, "column": p.column} if p.line else {})}
                for p in problems
            ],
        )
        self.problems = problems


class InputsInvalid(InvalidInput):
    """The inputs do not fit the workflow."""

    code = "workflow_inputs_invalid"


class WorkflowNotFound(NotFound):
    """There is no workflow of this name or id."""

    code = "workflow_not_found"


class RequestFailed(NexusError):
    """The other side did not accept the request."""

    code = "request_failed"
    status = 502


class RequestFailedForNow(RequestFailed):
    """The other side could not answer the request for the moment."""

    code = "request_failed_for_now"
    retryable = True
