"""What can go wrong at the door.

Unauthenticated            401
|-- InvalidKey             401 invalid_api_key
|-- InvalidCredentials     401 invalid_credentials
|-- SessionEnded           401 session_ended
`-- InvalidSetupToken      401 invalid_setup_token
Forbidden                  403
|-- CsrfFailed             403 csrf_failed
|-- AddressNotAllowed      403 address_not_allowed
`-- RoleNotAllowed         403 role_not_allowed
RateLimited                429
|-- TooManyAttempts        429 too_many_attempts
`-- PasswordQueueFull      429 password_queue_full
InvalidInput               422
|-- WeakPassword           422 weak_password
|-- ScopeNotHeld           422 scope_not_held
`-- IdempotencyMismatch    422 idempotency_mismatch
Conflict                   409
|-- AlreadySetUp           409 already_set_up
|-- EmailTaken             409 email_taken
|-- LastOwner              409 last_owner
|-- AlreadyMember          409 already_member
|-- KeyRevoked             409 key_revoked
`-- IdempotencyInFlight    409 idempotency_in_flight
NotFound                   404
|-- ProjectNotFound, UserNotFound, MemberNotFound, KeyNotFound, SessionNotFound
"""

from __future__ import annotations

from nexus.core.errors import Conflict, Forbidden, InvalidInput, NotFound, RateLimited, Unauthenticated


class InvalidKey(Unauthenticated):
    """The API key is not valid."""

    code = "invalid_api_key"


class InvalidCredentials(Unauthenticated):
    """The e-mail address or the password is wrong."""

    code = "invalid_credentials"


class SessionEnded(Unauthenticated):
    """The session has ended; sign in again."""

    code = "session_ended"


class InvalidSetupToken(Unauthenticated):
    """The set-up token is wrong, used or older than an hour; `nexus admin create` works without one."""

    code = "invalid_setup_token"


class CsrfFailed(Forbidden):
    """The request does not come from the dashboard; send its X-CSRF-Token from the same origin, or use an API key."""

    code = "csrf_failed"


class AddressNotAllowed(Forbidden):
    """This API key may not be used from this address."""

    code = "address_not_allowed"


class RoleNotAllowed(Forbidden):
    """Your role does not allow this."""

    code = "role_not_allowed"


class TooManyAttempts(RateLimited):
    """Too many failed attempts; try again later."""

    code = "too_many_attempts"


class PasswordQueueFull(RateLimited):
    """Too many people are signing in at the moment; try again shortly."""

    code = "password_queue_full"


class WeakPassword(InvalidInput):
    """The password is too easy to guess: use at least 12 characters, no well-known password, not the e-mail address."""

    code = "weak_password"


class ScopeNotHeld(InvalidInput):
    """A key cannot carry a right that its creator does not have."""

    code = "scope_not_held"


class IdempotencyMismatch(InvalidInput):
    """This Idempotency-Key was used before with another request."""

    code = "idempotency_mismatch"


class AlreadySetUp(Conflict):
    """The first administrator exists already; sign in instead."""

    code = "already_set_up"


class EmailTaken(Conflict):
    """There is a user with this e-mail address already."""

    code = "email_taken"


class LastOwner(Conflict):
    """Somebody must stay: this is the last one who can administer."""

    code = "last_owner"


class AlreadyMember(Conflict):
    """This user is a member of the project already."""

    code = "already_member"


class KeyRevoked(Conflict):
    """This API key has been revoked."""

    code = "key_revoked"


class IdempotencyInFlight(Conflict):
    """A request with this Idempotency-Key is being served at the moment."""

    code = "idempotency_in_flight"
    retryable = True


class ProjectNotFound(NotFound):
    """There is no such project, or you are no member of it."""

    code = "project_not_found"


class UserNotFound(NotFound):
    """There is no such user."""

    code = "user_not_found"


class MemberNotFound(NotFound):
    """There is no such member in this project."""

    code = "member_not_found"


class KeyNotFound(NotFound):
    """There is no such API key in this project."""

    code = "key_not_found"


class SessionNotFound(NotFound):
    """There is no such session of yours."""

    code = "session_not_found"
