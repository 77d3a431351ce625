"""What goes wrong in automation.

InvalidInput
|-- ExpressionError        422 expression_invalid
|-- WorkflowInvalid        422 workflow_invalid
|-- InputsInvalid          422 workflow_inputs_invalid
|-- NestedTooDeep          422 workflow_nested_too_deep
|-- RunLoop                422 run_loop
|-- SecretInvalid          422 secret_invalid
|-- ChannelInvalid         422 channel_invalid
|-- AlertRuleInvalid       422 alert_rule_invalid
|-- DraftInvalid           422 draft_invalid
|-- ModelRequired          400 model_required
|-- TriggerInvalid         422 trigger_invalid
Unauthenticated
|-- HookUnsigned           401 hook_signature_invalid
|-- HookStale              401 hook_timestamp_invalid
|-- HookReplayed           401 hook_replayed
|-- DataUnreadable         422 data_unreadable         a file that is not what it should be
|-- QueryInvalid           422 query_invalid
|-- DataInvalid            422 data_invalid            rows that break the rules
|-- DatabaseNotAllowed     422 database_not_allowed    an address that may not be reached from here
NotFound
|-- WorkflowNotFound       404 workflow_not_found
|-- ApprovalNotFound       404 approval_not_found
|-- ApprovalLinkInvalid    404 approval_link_invalid
|-- ScheduleNotFound       404 schedule_not_found
|-- TriggerNotFound        404 trigger_not_found
|-- DeliveryNotFound       404 delivery_not_found
|-- HookNotFound           404 hook_not_found
|-- ChannelNotFound        404 channel_not_found
|-- NoticeNotFound         404 notice_not_found
|-- AlertRuleNotFound      404 alert_rule_not_found
|-- AlertNotFound          404 alert_not_found
`-- SecretNotFound         404 secret_not_found
Forbidden
`-- NotYoursToApprove      403 approval_not_yours
Conflict
|-- NotRerunnable          409 run_not_rerunnable
|-- ApprovalDecided        409 approval_decided
|-- ApprovalRejected       409 approval_rejected
|-- ApprovalExpired        409 approval_expired
|-- NameTaken              409 name_taken
|-- DeliverySettled        409 delivery_settled
|-- AlertResolved          409 alert_resolved
|-- ChannelDisabled        409 channel_disabled
|-- CredentialMissing      409 credential_missing
`-- ChildFailed            409 child_failed
NexusError
|-- DatabaseRefused        502 database_refused
|   `-- DatabaseAway       502 database_away, retryable
`-- RequestFailed          502 request_failed
    |-- ChannelGone          502 channel_gone
    `-- RequestFailedForNow  502 request_failed_for_now, retryable
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus.core.errors import Conflict, Forbidden, InvalidInput, NexusError, NotFound, Unauthenticated


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


class NestedTooDeep(InvalidInput):
    """Workflows call each other too many levels deep."""

    code = "workflow_nested_too_deep"


class RunLoop(InvalidInput):
    """The run whose step asks stands at the end of a chain of five starts; it may be a loop, so none is started."""

    code = "run_loop"


class SecretInvalid(InvalidInput):
    """The secret or its name is not valid."""

    code = "secret_invalid"


class NotRerunnable(Conflict):
    """Only runs of workflows can be run again."""

    code = "run_not_rerunnable"


class ApprovalNotFound(NotFound):
    """There is no approval with this id."""

    code = "approval_not_found"


class ApprovalLinkInvalid(NotFound):
    """This link to an approval is not valid, or not any more."""

    code = "approval_link_invalid"


class ScheduleNotFound(NotFound):
    """There is no schedule with this id."""

    code = "schedule_not_found"


class TriggerInvalid(InvalidInput):
    """The trigger is not valid."""

    code = "trigger_invalid"


class TriggerNotFound(NotFound):
    """There is no trigger with this id."""

    code = "trigger_not_found"


class DeliveryNotFound(NotFound):
    """The trigger has no delivery with this id."""

    code = "delivery_not_found"


class DeliverySettled(Conflict):
    """The delivery has started a run; run that again instead."""

    code = "delivery_settled"


class HookNotFound(NotFound):
    """There is no webhook at this address."""

    code = "hook_not_found"


class HookUnsigned(Unauthenticated):
    """The webhook's signature is missing or does not fit."""

    code = "hook_signature_invalid"


class HookStale(Unauthenticated):
    """The webhook was signed too long ago, or in the future."""

    code = "hook_timestamp_invalid"


class HookReplayed(Unauthenticated):
    """The same signed webhook has come before under another id."""

    code = "hook_replayed"


class NameTaken(Conflict):
    """There is one of this name already."""

    code = "name_taken"


class SecretNotFound(NotFound):
    """There is no secret of this name."""

    code = "secret_not_found"


class NotYoursToApprove(Forbidden):
    """This approval is for others to decide."""

    code = "approval_not_yours"


class ApprovalDecided(Conflict):
    """The approval was already decided, or nobody waits for it any more."""

    code = "approval_decided"


class ApprovalRejected(Conflict):
    """The approval was rejected."""

    code = "approval_rejected"


class ApprovalExpired(Conflict):
    """Nobody decided in time."""

    code = "approval_expired"


class ChildFailed(Conflict):
    """The workflow that the step ran did not succeed."""

    code = "child_failed"


class CronInvalid(InvalidInput):
    """The cron expression or its time zone is not valid."""

    code = "cron_invalid"


class WorkflowNotFound(NotFound):
    """There is no workflow of this name or id."""

    code = "workflow_not_found"


class DataUnreadable(InvalidInput):
    """The data cannot be read as a table."""

    code = "data_unreadable"


class QueryInvalid(InvalidInput):
    """The query is not valid."""

    code = "query_invalid"


class DataInvalid(InvalidInput):
    """The data break the rules."""

    code = "data_invalid"


class DatabaseNotAllowed(InvalidInput):
    """This database may not be reached from here."""

    code = "database_not_allowed"


class DatabaseRefused(NexusError):
    """The database did not do what it was asked."""

    code = "database_refused"
    status = 502


class DatabaseAway(DatabaseRefused):
    """The database does not answer for the moment."""

    code = "database_away"
    retryable = True


class RequestFailed(NexusError):
    """The other side did not accept the request."""

    code = "request_failed"
    status = 502


class RequestFailedForNow(RequestFailed):
    """The other side could not answer the request for the moment."""

    code = "request_failed_for_now"
    retryable = True


class ChannelGone(RequestFailed):
    """The other side says that there is nobody to tell any more; the channel was disabled."""

    code = "channel_gone"


class ChannelInvalid(InvalidInput):
    """The settings of the channel are not valid."""

    code = "channel_invalid"


class ChannelNotFound(NotFound):
    """There is no channel with this id or name."""

    code = "channel_not_found"


class ChannelDisabled(Conflict):
    """The channel is disabled."""

    code = "channel_disabled"


class CredentialMissing(Conflict):
    """The channel needs a credential, and the project has no secret of the name it was given."""

    code = "credential_missing"


class NoticeNotFound(NotFound):
    """Nothing with this id was sent to a channel."""

    code = "notice_not_found"


class AlertRuleInvalid(InvalidInput):
    """The alert rule is not valid."""

    code = "alert_rule_invalid"


class AlertRuleNotFound(NotFound):
    """There is no alert rule with this id or name."""

    code = "alert_rule_not_found"


class AlertNotFound(NotFound):
    """There is no alert with this id."""

    code = "alert_not_found"


class AlertResolved(Conflict):
    """The alert is resolved already."""

    code = "alert_resolved"


class ModelRequired(InvalidInput):
    """This needs a real language model; the built-in one is for demonstrations only."""

    code = "model_required"
    status = 400


class DraftInvalid(InvalidInput):
    """The model's draft is no valid workflow, even after being shown what is wrong."""

    code = "draft_invalid"
