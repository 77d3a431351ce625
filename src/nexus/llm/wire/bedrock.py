"""How the Bedrock runtime is found, asked and understood when it refuses; what is said there has codecs of its own.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html and the errors of each action.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from nexus.core.errors import NexusError, TooLarge
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.credentials.aws import CredentialSource, domain_of, region_of
from nexus.llm.credentials.sigv4 import Signer
from nexus.llm.errors import (
    ContextTooLong,
    UpstreamCredentials,
    UpstreamError,
    UpstreamMalformed,
    UpstreamModelMissing,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    from_status,
    retry_after_seconds,
)
from nexus.llm.settings import surroundings
from nexus.llm.wire.client import HttpAnswer, HttpClient, HttpRequest, Wrapping
from nexus.llm.wire.upstream_json import json_of

# Files and the environment are read again so often; credentials that expire are renewed before they do.
_REREAD: Final = 300.0
# Options that ask for signed calls, also where the environment has a Bedrock API key.
_SIGNING: Final = ("access_key_id", "profile", "role_arn")
_CREDENTIALS: Final = (
    "AccessDenied",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignature",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
)
_TOO_MANY: Final = ("Throttl", "TooManyRequests", "ServiceQuotaExceeded", "RequestLimitExceeded")
_PASSING: Final = ("ModelNotReady", "ServiceUnavailable", "InternalServer", "InternalFailure", "ModelStreamError")
_TOO_LONG: Final = re.compile(
    r"too long|too many (?:input )?tokens|exceeds? the (?:maximum|model|context)|maximum context"
    r"|maximum tokens you requested|context (?:length|window|limit)|input tokens? exceed",
    re.IGNORECASE,
)
_NAMES: Final = re.compile(r"arn:aws[\w-]*:[^\s\"',;)]*|\b\d{12}\b")


async def find_endpoint(account: Account, services: Services, *, service: str) -> Endpoint:
    """Find region and credentials for `service`. Raises `UpstreamCredentials` where there are none."""
    options = account.options
    around = await asyncio.to_thread(surroundings, "AWS_")
    region = await asyncio.to_thread(region_of, options, account.base_url, around)
    url = account.base_url or f"https://{service}-runtime.{region}.{domain_of(region)}"
    now = asyncio.get_running_loop().time()
    if account.secret is not None and not any(options.get(name) for name in _SIGNING):
        return Endpoint(base_url=url, secret=account.secret, options=options)
    if CredentialSource not in services:
        services.put(CredentialSource(services.get(HttpClient)))
    given = options
    if account.secret is not None and options.get("access_key_id") and not options.get("secret_access_key"):
        given = options | {"secret_access_key": account.secret.reveal()}
    found = await services.get(CredentialSource).find(account.name, given, region=region)
    left = _REREAD if found.expires_at is None else found.expires_at - time.time()
    return Endpoint(
        base_url=url,
        secret=found.secret_access_key,
        options=options | {"signer": Signer(found, region, service)},
        expires_at=now + max(left - min(_REREAD, left / 4), 1.0) if found.expires_at else now + _REREAD,
    )


def post(
    endpoint: Endpoint,
    model: str,
    action: str,
    body: bytes,
    *,
    wrapping: Callable[[dict[str, str]], Wrapping] | None = None,
) -> HttpRequest:
    """Write a request to an action of a model, signed or with a bearer token."""
    options = endpoint.options
    url = f"{endpoint.base_url}/model/{quote(model, safe='-._~')}/{action}"
    headers: tuple[tuple[str, str], ...] = (
        ("content-type", "application/json"),
        ("accept", "application/json"),
        *options.get("headers", {}).items(),
    )
    if isinstance(signer := options.get("signer"), Signer):
        headers = signer.sign(url, body, headers)
    elif endpoint.secret is not None:
        headers = (*headers, ("authorization", f"Bearer {endpoint.secret.reveal()}"))
    return HttpRequest(url=url, body=body, headers=headers, wrapping=wrapping)


def countable(model: str) -> bool:
    """Tell whether tokens can be counted under this name: an application's profile does not name its model."""
    return ":application-inference-profile/" not in model


def read_error(answer: HttpAnswer, message: str | None = None) -> NexusError:
    """Turn an error answer into ours; what is said of the caller's fault is kept, free of account numbers."""
    told = told_of(answer.body)
    after = retry_after_seconds(answer.headers.get("retry-after"))
    words = message or told.get("message", told.get("Message"))
    return error_of(kind_of(answer, told), words, status=answer.status, retry_after=after)


def kind_of(answer: HttpAnswer, told: dict[str, Any]) -> str:
    """Return the type of an error, wherever it stands."""
    return str(answer.headers.get("x-amzn-errortype") or told.get("__type") or told.get("code") or "")


def error_of(kind: str, message: Any, *, status: int | None = None, retry_after: float | None = None) -> NexusError:
    """Turn an error of AWS, by its type and status, into ours.

    `kind` may be `com.amazon.coral.validate#ValidationException`, `ValidationException:http://...` or in camel case.
    """
    name = kind.partition(":")[0].rpartition("#")[2]
    name = name[:1].upper() + name[1:]
    told = _NAMES.sub("...", message)[:2000] if isinstance(message, str) and message else None
    if name.startswith(_CREDENTIALS):
        return UpstreamCredentials()
    if name.startswith(_TOO_MANY):
        return UpstreamRateLimited(retry_after=retry_after)
    if name.startswith("ModelTimeout"):
        return UpstreamTimeout(retry_after=retry_after)
    if name.startswith(_PASSING):
        return UpstreamUnavailable(retry_after=retry_after)
    if name.startswith("ModelError") or status == 424:
        return UpstreamError("The model failed at the provider.")
    if name.startswith("ResourceNotFound"):
        return UpstreamModelMissing()
    if told is not None and status in (None, 400, 422) and _TOO_LONG.search(told):
        return ContextTooLong(told, field="messages")
    if name.startswith("Validation") and status in (None, 400, 422):
        field = "model" if told is not None and "model identifier" in told else None
        return UpstreamRejected(told, upstream_status=status or 400, field=field)
    if status == 413:
        return TooLarge("The provider finds the request too large.")
    if status is None:
        return UpstreamUnavailable(retry_after=retry_after)
    return from_status(status, message=told, body=b"", retry_after=retry_after)


def told_of(data: bytes) -> dict[str, Any]:
    """Return what an error body says, nothing if it is no JSON object."""
    try:
        return json_of(data)
    except UpstreamMalformed:
        return {}
