"""Where AWS credentials come from, in the usual order, without AWS's own library.

    source = CredentialSource(client)
    credentials = await source.find("aws", options, region="us-east-1")

The order: the provider's own options, the environment, a profile (with a role to take on, single sign-on, keys or a
program), a web identity (Kubernetes), the container's endpoint (ECS, EKS), the machine's (EC2, IMDSv2). Source:
https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html.
"""

from __future__ import annotations

import asyncio
import html
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit
from weakref import WeakKeyDictionary

import msgspec

from nexus.core.errors import NexusError
from nexus.core.secrets import Secret
from nexus.llm.credentials.aws_profiles import Profiles
from nexus.llm.credentials.sigv4 import AwsCredentials, signed
from nexus.llm.errors import UpstreamCredentials
from nexus.llm.settings import Surroundings, surroundings
from nexus.llm.types import Timeouts
from nexus.llm.wire.client import HttpAnswer, HttpClient, HttpRequest

_log = logging.getLogger("nexus.llm.aws")
_NEAR: Final = Timeouts(connect=1, first_token=2, between_tokens=2, total=2)
_FAR: Final = Timeouts(connect=5, first_token=10, between_tokens=10, total=10)
_FRESH: Final = 10.0
_CONTAINER_HOSTS: Final = ("localhost", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")
_SUFFIXES: Final = (
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
)
_FIRST_REGION: Final = "us-east-1"
_REGION: Final = re.compile(r"^[a-z]{2,4}(-[a-z]+)+-\d{1,2}$")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class NoCredentials(UpstreamCredentials):
    """NEXUS has no usable AWS credentials for this provider; an administrator must set some."""


class _Known(NamedTuple):
    credentials: AwsCredentials
    at: float


class CredentialSource:
    """Finds credentials for accounts. Many who ask at once for the same cause one search."""

    def __init__(self, client: HttpClient, around: Callable[[], Surroundings] = lambda: surroundings("AWS_")) -> None:
        """`around` reads the environment, anew for each search."""
        self._client = client
        self._around = around
        self._known: dict[tuple[str, bytes], _Known] = {}
        self._asking: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[tuple[str, bytes], asyncio.Task[AwsCredentials]]
        ] = WeakKeyDictionary()

    async def find(self, name: str, options: Mapping[str, Any], *, region: str) -> AwsCredentials:
        """Return credentials for the account `name`. Raises `NoCredentials`.

        Ask again before they expire: they are looked up anew, and the old ones serve while that fails.
        """
        key = (name, msgspec.json.encode(options, order="sorted"))
        known = self._known.get(key)
        if known is not None and time.time() - known.at < _FRESH:
            return known.credentials
        asking = self._asking.setdefault(asyncio.get_running_loop(), {})
        task = asking.get(key)
        if task is None:
            task = asking[key] = asyncio.create_task(self._search(key, options, region))
            task.add_done_callback(lambda done: (asking.pop(key, None), done.cancelled() or done.exception()))
        try:
            # Whoever asked first may go away; the others still wait for the answer.
            return await asyncio.shield(task)
        except NexusError:
            if known is not None and (known.credentials.expires_at or 0) > time.time() + _FRESH:
                return known.credentials
            raise

    async def _search(self, key: tuple[str, bytes], options: Mapping[str, Any], region: str) -> AwsCredentials:
        around = self._around()
        profiles = await asyncio.to_thread(Profiles, around)
        search = _Search(self._client, around.variables, profiles, options, region)
        found = await search.run()
        self._known[key] = _Known(found, time.time())
        return found


def region_of(options: Mapping[str, Any], base_url: str, around: Surroundings) -> str:
    """Return the region: the provider's option, its address, the environment, the profile. Raises `NoCredentials`.

    Behind an address of one's own it is for signatures only, and the first of AWS's regions will do.
    """
    told = around.variables
    profile = Profiles(around).get(options.get("profile") or told.get("AWS_PROFILE") or "default") or {}
    found = re.search(r"\.([a-z]{2,4}(?:-[a-z]+)+-\d{1,2})\.", base_url)
    named = (
        options.get("region")
        or (found.group(1) if found else None)
        or told.get("AWS_REGION")
        or told.get("AWS_DEFAULT_REGION")
        or profile.get("region")
        or (_FIRST_REGION if base_url else None)
    )
    if not named or not _REGION.match(str(named)):
        raise NoCredentials("NEXUS has no AWS region for this provider; an administrator must set one.")
    return str(named)


def domain_of(region: str) -> str:
    """Return the end of the host names in a region."""
    return next((suffix for start, suffix in _SUFFIXES if region.startswith(start)), "amazonaws.com")


class _Search:
    """One walk along the chain."""

    def __init__(
        self,
        client: HttpClient,
        told: Mapping[str, str],
        profiles: Profiles,
        options: Mapping[str, Any],
        region: str,
    ) -> None:
        self._client = client
        self._told = told
        self._profiles = profiles
        self._options = options
        self._region = region

    async def run(self) -> AwsCredentials:
        """Return the first that is found, in the role of the provider's options if it names one."""
        found = await self._first()
        if found is None:
            raise NoCredentials
        if role := self._options.get("role_arn"):
            return await self._assume(str(role), found, dict(self._options))
        return found

    async def _first(self) -> AwsCredentials | None:
        options, told = self._options, self._told
        if options.get("access_key_id"):
            return _static(options.get("access_key_id"), options.get("secret_access_key"), options.get("session_token"))
        if not options.get("profile") and (found := self._from_environment()) is not None:
            return found
        name = str(options.get("profile") or told.get("AWS_PROFILE") or "default")
        if (found := await self._from_profile(name, ())) is not None:
            return found
        if options.get("profile"):
            _log.warning("the AWS profile %s has no credentials", name)
            raise NoCredentials
        if "AWS_WEB_IDENTITY_TOKEN_FILE" in told and "AWS_ROLE_ARN" in told:
            file, session = told["AWS_WEB_IDENTITY_TOKEN_FILE"], told.get("AWS_ROLE_SESSION_NAME")
            return await self._web_identity(told["AWS_ROLE_ARN"], file, session)
        if (found := await self._from_container()) is not None:
            return found
        return await self._from_machine()

    def _from_environment(self) -> AwsCredentials | None:
        told = self._told
        if "AWS_ACCESS_KEY_ID" not in told:
            return None
        token = told.get("AWS_SESSION_TOKEN") or told.get("AWS_SECURITY_TOKEN")
        return _static(told["AWS_ACCESS_KEY_ID"], told.get("AWS_SECRET_ACCESS_KEY"), token)

    async def _from_profile(self, name: str, above: tuple[str, ...]) -> AwsCredentials | None:
        profile = self._profiles.get(name)
        if profile is None:
            return None
        role = profile.get("role_arn")
        if role and name not in above:
            if file := profile.get("web_identity_token_file"):
                return await self._web_identity(role, file, profile.get("role_session_name"))
            base = await self._base_of(profile, (*above, name))
            if base is None:
                _log.warning("the AWS profile %s names a role and nobody to take it on", name)
                raise NoCredentials
            return await self._assume(role, base, profile)
        if profile.get("sso_account_id") and profile.get("sso_role_name"):
            return await self._single_sign_on(profile)
        if profile.get("aws_access_key_id"):
            token = profile.get("aws_session_token") or profile.get("aws_security_token")
            return _static(profile["aws_access_key_id"], profile.get("aws_secret_access_key"), token)
        if command := profile.get("credential_process"):
            told = await asyncio.to_thread(self._profiles.run, command)
            return _of(told, "SessionToken")
        return None

    async def _base_of(self, profile: dict[str, str], above: tuple[str, ...]) -> AwsCredentials | None:
        if source := profile.get("source_profile"):
            if source in above[:-1]:
                _log.warning("AWS profiles name each other in a circle")
                raise NoCredentials
            return await self._from_profile(source, above)
        if (source := profile.get("credential_source")) == "Environment":
            return self._from_environment()
        if source == "EcsContainer":
            return await self._from_container()
        return await self._from_machine() if source == "Ec2InstanceMetadata" else None

    async def _assume(self, role: str, base: AwsCredentials, told: Mapping[str, Any]) -> AwsCredentials:
        if told.get("mfa_serial"):
            _log.warning("a role that asks for a second factor cannot be taken on by a server")
            raise NoCredentials
        fields = {"Action": "AssumeRole", "RoleArn": role}
        fields["RoleSessionName"] = str(told.get("role_session_name") or f"nexus-{int(time.time())}")
        for field, name in (("ExternalId", "external_id"), ("DurationSeconds", "duration_seconds")):
            if told.get(name):
                fields[field] = str(told[name])
        return await self._token_service(fields, base)

    async def _web_identity(self, role: str, file: str, session: str | None) -> AwsCredentials:
        try:
            token = await asyncio.to_thread(Path(file).expanduser().read_text, encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            _log.warning("the web identity token cannot be read")
            raise NoCredentials from None
        fields = {"Action": "AssumeRoleWithWebIdentity", "RoleArn": role, "WebIdentityToken": token.strip()}
        fields["RoleSessionName"] = session or f"nexus-{int(time.time())}"
        return await self._token_service(fields, None)

    async def _token_service(self, fields: dict[str, str], base: AwsCredentials | None) -> AwsCredentials:
        url = self._told.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{self._region}.{domain_of(self._region)}"
        body = urlencode(fields | {"Version": "2011-06-15"}).encode()
        headers: tuple[tuple[str, str], ...] = (("content-type", "application/x-www-form-urlencoded; charset=utf-8"),)
        url = url.rstrip("/") + "/"
        if base is not None:
            headers = signed(url, body, headers, base, region=self._region, service="sts")
        answer = await self._ask(HttpRequest(url=url, body=body, headers=headers), _FAR)
        if answer is None or answer.status != 200:
            code = re.search(rb"<Code>(\w+)</Code>", answer.body) if answer else None
            _log.warning("AWS's token service refused %s: %s", fields["Action"], code and code.group(1).decode())
            raise NoCredentials
        found = _of(dict(_elements(answer.body)), "SessionToken")
        if found is None:
            raise NoCredentials
        return found

    async def _single_sign_on(self, profile: dict[str, str]) -> AwsCredentials:
        told, token = await asyncio.to_thread(self._profiles.sign_in, profile)
        if (_seconds(token.get("expiresAt")) or 0) < time.time() or not isinstance(token.get("accessToken"), str):
            _log.warning("the single sign-on of an AWS profile has expired: run `aws sso login`")
            raise NoCredentials
        region = told.get("sso_region", self._region)
        url = self._told.get("AWS_ENDPOINT_URL_SSO") or f"https://portal.sso.{region}.{domain_of(region)}"
        asked = urlencode({"role_name": told["sso_role_name"], "account_id": told["sso_account_id"]})
        headers = (("x-amz-sso_bearer_token", token["accessToken"]),)
        request = HttpRequest(method="GET", url=f"{url.rstrip('/')}/federation/credentials?{asked}", headers=headers)
        given = (_json(await self._ask(request, _FAR)) or {}).get("roleCredentials")
        if not isinstance(given, dict):
            _log.warning("AWS's single sign-on gave no credentials")
            raise NoCredentials
        expires = given.get("expiration")
        return msgspec.structs.replace(
            _static(given.get("accessKeyId"), given.get("secretAccessKey"), given.get("sessionToken")),
            expires_at=expires / 1000 if isinstance(expires, int) else None,
        )

    async def _from_container(self) -> AwsCredentials | None:
        told = self._told
        if relative := told.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
            url = f"http://169.254.170.2{relative}"
        elif (url := told.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")) == "":
            return None
        if not _may_be_asked(url):
            _log.warning("the container's credentials address is neither https nor this machine")
            raise NoCredentials
        token = told.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if file := told.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            try:
                token = (await asyncio.to_thread(Path(file).read_text, encoding="utf-8")).strip()
            except (OSError, UnicodeDecodeError):
                _log.warning("the container's authorization token cannot be read")
                raise NoCredentials from None
        headers = (("authorization", token),) if token else ()
        found = _of(_json(await self._ask(HttpRequest(method="GET", url=url, headers=headers), _NEAR)), "Token")
        if found is None:
            _log.warning("the container's credentials endpoint gave none")
            raise NoCredentials
        return found

    async def _from_machine(self) -> AwsCredentials | None:
        told = self._told
        if told.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return None
        url = told.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
        lifetime = (("x-aws-ec2-metadata-token-ttl-seconds", "21600"),)
        answer = await self._ask(HttpRequest(method="PUT", url=f"{url}/latest/api/token", headers=lifetime), _NEAR)
        if answer is None or answer.status != 200:
            return None
        headers = (("x-aws-ec2-metadata-token", answer.body.decode("latin-1").strip()),)
        place = f"{url}/latest/meta-data/iam/security-credentials/"
        answer = await self._ask(HttpRequest(method="GET", url=place, headers=headers), _NEAR)
        if answer is None or answer.status != 200 or not answer.body.strip():
            return None
        role = quote(answer.body.decode("utf-8", "replace").splitlines()[0].strip(), safe="")
        return _of(_json(await self._ask(HttpRequest(method="GET", url=place + role, headers=headers), _NEAR)), "Token")

    async def _ask(self, request: HttpRequest, timeouts: Timeouts) -> HttpAnswer | None:
        """Return the answer, or None where nobody answers."""
        try:
            return await self._client.fetch(request, timeouts)
        except NexusError:
            return None


def _static(key: Any, secret: Any, token: Any = None) -> AwsCredentials:
    if not isinstance(key, str) or not isinstance(secret, str) or not key or not secret:
        _log.warning("an AWS access key id stands without its secret access key")
        raise NoCredentials
    return AwsCredentials(
        access_key_id=key,
        secret_access_key=Secret(secret),
        session_token=Secret(str(token)) if token else None,
    )


def _of(told: dict[str, Any] | None, token: str) -> AwsCredentials | None:
    """Read the form that endpoints and programs share."""
    if told is None or not told.get("AccessKeyId") or not told.get("SecretAccessKey"):
        return None
    found = _static(told["AccessKeyId"], told["SecretAccessKey"], told.get(token))
    return msgspec.structs.replace(found, expires_at=_seconds(told.get("Expiration")))


def _seconds(moment: Any) -> float | None:
    """Read an RFC 3339 time as seconds since 1970."""
    if not isinstance(moment, str):
        return None
    try:
        read = datetime.fromisoformat(moment.replace("UTC", "+00:00"))
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _json(answer: HttpAnswer | None) -> dict[str, Any] | None:
    if answer is None or answer.status != 200:
        return None
    try:
        return _decode(answer.body)
    except msgspec.DecodeError:
        return None


def _elements(xml: bytes) -> list[tuple[str, str]]:
    """Return the elements of an answer that hold only text."""
    found = re.findall(rb"<(\w+)>([^<>]*)</\1>", xml)
    return [(name.decode(), html.unescape(text.decode("utf-8", "replace"))) for name, text in found]


def _may_be_asked(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" or host in _CONTAINER_HOSTS:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
