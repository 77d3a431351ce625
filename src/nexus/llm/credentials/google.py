"""Access tokens for Google Cloud, without Google's own library.

    tokens = GoogleTokens(client)
    token = await tokens.find("my-cloud", options, secret)

Where the credentials come from, in order: the provider's own `api_key` (the JSON of a key) or `credentials` (that JSON,
or the path of its file), `GOOGLE_APPLICATION_CREDENTIALS`, what `gcloud auth application-default login` left behind,
the machine's metadata server. Source: https://google.aip.dev/auth/4110 and https://cloud.google.com/docs/authentication.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from nexus.core.errors import NexusError
from nexus.core.secrets import Secret
from nexus.llm.errors import UpstreamCredentials
from nexus.llm.settings import Surroundings, surroundings
from nexus.llm.types import Timeouts
from nexus.llm.wire.client import HttpClient, HttpRequest

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"  # noqa: S105  an address
_METADATA: Final = "http://metadata.google.internal/computeMetadata/v1"
_WELL_KNOWN: Final = ".config/gcloud/application_default_credentials.json"
_NEAR: Final = Timeouts(connect=1, first_token=3, between_tokens=3, total=3)
_FAR: Final = Timeouts(connect=5, first_token=10, between_tokens=10, total=10)
_LIFETIME: Final = 3600
_FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)
_JSON: Final = (("content-type", "application/json"),)
_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  the name of a type
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class NoGoogleCredentials(UpstreamCredentials):
    """NEXUS has no usable Google Cloud credentials for this provider; an administrator must set some."""


class AccessToken(NamedTuple):
    """A token, how many seconds it lives, and what came with its credentials: a project, who pays."""

    secret: Secret
    lifetime: float
    project: str | None = None
    quota_project: str | None = None


class GoogleTokens:
    """Finds credentials and exchanges them, once at a time for each provider."""

    def __init__(self, client: HttpClient) -> None:
        """Exchange over `client`."""
        self._client = client
        self._asking: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[AccessToken]]] = (
            WeakKeyDictionary()
        )

    async def find(self, name: str, options: Mapping[str, Any], secret: Secret | None) -> AccessToken:
        """Return a new token for the provider of this name. Raises `NoGoogleCredentials`, or that nobody answers."""
        asking = self._asking.setdefault(asyncio.get_running_loop(), {})
        task = asking.get(name)
        if task is None or task.done():
            task = asking[name] = asyncio.get_running_loop().create_task(self._find(options, secret))
        return await asyncio.shield(task)

    async def _find(self, options: Mapping[str, Any], secret: Secret | None) -> AccessToken:
        found = await asyncio.to_thread(credentials_of, options, secret, surroundings("GOOGLE_"))
        if found is None:
            return await self._of_machine(str(options.get("metadata_url") or _METADATA).rstrip("/"))
        token = await self._exchange(found)
        return token._replace(project=found.get("project_id"), quota_project=found.get("quota_project_id"))

    async def _exchange(self, found: Mapping[str, Any]) -> AccessToken:
        kind = found.get("type")
        if kind == "service_account":
            form = {"grant_type": _JWT_GRANT, "assertion": assertion(found, now=time.time())}
            return await self._ask(str(found.get("token_uri") or _TOKEN_URL), form)
        if kind == "authorized_user":
            form = {name: str(found.get(name) or "") for name in ("client_id", "client_secret", "refresh_token")}
            return await self._ask(str(found.get("token_uri") or _TOKEN_URL), form | {"grant_type": "refresh_token"})
        if kind == "external_account":
            return await self._federated(found)
        if kind == "impersonated_service_account":
            source = found.get("source_credentials")
            if not isinstance(source, dict):
                raise NoGoogleCredentials
            return await self._as_other(found, await self._exchange(source))
        raise NoGoogleCredentials

    async def _federated(self, found: Mapping[str, Any]) -> AccessToken:
        """Exchange the token of another identity provider (workload identity federation)."""
        form = {
            "grant_type": _EXCHANGE_GRANT,
            "audience": str(found.get("audience") or ""),
            "scope": _SCOPE,
            "requested_token_type": _ACCESS_TOKEN,
            "subject_token_type": str(found.get("subject_token_type") or ""),
            "subject_token": await self._subject(found.get("credential_source")),
        }
        token = await self._ask(str(found.get("token_url") or ""), form)
        return await self._as_other(found, token) if found.get("service_account_impersonation_url") else token

    async def _subject(self, source: Any) -> str:
        """Read the token of the other identity provider from a file, or ask for it."""
        source = source if isinstance(source, dict) else {}
        if file := source.get("file"):
            text = await asyncio.to_thread(_text_of, str(file))
        elif url := source.get("url"):
            headers = tuple((str(name), str(value)) for name, value in (source.get("headers") or {}).items())
            text = (await self._fetch(HttpRequest(url=str(url), method="GET", headers=headers), _FAR)).decode()
        else:
            raise NoGoogleCredentials  # a program, or the signature of another cloud
        form = source.get("format") or {}
        if form.get("type") != "json":
            return text.strip()
        return str(_told(text.encode()).get(str(form.get("subject_token_field_name"))) or "")

    async def _as_other(self, found: Mapping[str, Any], token: AccessToken) -> AccessToken:
        """Take on a service account."""
        lifetime = (found.get("service_account_impersonation") or {}).get("token_lifetime_seconds") or _LIFETIME
        asked = {"scope": [_SCOPE], "lifetime": f"{lifetime}s"}
        if delegates := found.get("delegates"):
            asked["delegates"] = delegates
        url = str(found.get("service_account_impersonation_url") or "")
        headers = (*_JSON, ("authorization", f"Bearer {token.secret.reveal()}"))
        told = _told(await self._fetch(HttpRequest(url=url, body=_encode(asked), headers=headers), _FAR))
        try:
            ends = datetime.fromisoformat(told["expireTime"].replace("Z", "+00:00")).timestamp()
            return AccessToken(Secret(told["accessToken"]), ends - time.time())
        except (KeyError, TypeError, ValueError, AttributeError):
            raise NoGoogleCredentials from None

    async def _of_machine(self, metadata: str) -> AccessToken:
        """Ask the metadata server for the token of the machine, its project too."""
        flavor = (("metadata-flavor", "Google"),)
        asked = HttpRequest(url=f"{metadata}/instance/service-accounts/default/token", method="GET", headers=flavor)
        token = _token(_told(await self._fetch(asked, _NEAR)))
        try:
            asked = HttpRequest(url=f"{metadata}/project/project-id", method="GET", headers=flavor)
            project = (await self._fetch(asked, _NEAR)).decode().strip()
        except NexusError:
            return token  # one may be set in the options
        return token._replace(project=project)

    async def _ask(self, url: str, form: Mapping[str, str]) -> AccessToken:
        request = HttpRequest(url=url, body=urlencode(form).encode(), headers=_FORM)
        return _token(_told(await self._fetch(request, _FAR)))

    async def _fetch(self, request: HttpRequest, timeouts: Timeouts) -> bytes:
        """Fetch; what refuses says nothing that a caller may read."""
        try:
            answer = await self._client.fetch(request, timeouts)
        except NexusError:
            raise NoGoogleCredentials("Google Cloud could not be asked for an access token.") from None
        if answer.status != 200:
            raise NoGoogleCredentials
        return answer.body


def credentials_of(options: Mapping[str, Any], secret: Secret | None, around: Surroundings) -> dict[str, Any] | None:
    """Return what is set for this provider or lies around it; None where only the machine itself is left.

    Reads files. Raises `NoGoogleCredentials` for something that is set and cannot be read.
    """
    given = options.get("credentials")
    if secret is not None:
        return _told(secret.reveal().encode())
    if isinstance(given, dict):
        return given
    if isinstance(given, str) and given.lstrip().startswith("{"):
        return _told(given.encode())
    if path := given or around.variables.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return _told(_text_of(str(path)).encode())
    left = around.home / _WELL_KNOWN
    return _told(_text_of(str(left)).encode()) if left.is_file() else None


def assertion(account: Mapping[str, Any], *, now: float) -> str:
    """Return the signed word of a service account that it is the one who asks (RFC 7523, RS256)."""
    head = {"alg": "RS256", "typ": "JWT", "kid": account.get("private_key_id")}
    begins = int(now)
    claims = {
        "iss": account.get("client_email"),
        "scope": _SCOPE,
        "aud": account.get("token_uri") or _TOKEN_URL,
        "iat": begins,
        "exp": begins + _LIFETIME,
    }
    try:
        key = serialization.load_pem_private_key(str(account.get("private_key")).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise NoGoogleCredentials from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise NoGoogleCredentials
    said = f"{_letters(_encode(head))}.{_letters(_encode(claims))}"
    return f"{said}.{_letters(key.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _letters(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text_of(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError):
        raise NoGoogleCredentials from None


def _told(data: bytes) -> dict[str, Any]:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoGoogleCredentials from None


def _token(told: Mapping[str, Any]) -> AccessToken:
    token, lifetime = told.get("access_token"), told.get("expires_in")
    if not isinstance(token, str) or not token:
        raise NoGoogleCredentials
    return AccessToken(Secret(token), float(lifetime) if isinstance(lifetime, int | float) else _LIFETIME)
