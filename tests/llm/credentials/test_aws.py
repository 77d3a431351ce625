"""Where credentials are found, in which order, over local stand-ins for AWS's endpoints."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from nexus.llm.credentials.aws import CredentialSource, NoCredentials, domain_of, region_of
from nexus.llm.credentials.sigv4 import AwsCredentials
from nexus.llm.settings import Surroundings
from nexus.llm.wire.client import HttpClient
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream

LATER = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def xml(action: str, key: str, expires: str = LATER) -> bytes:
    told = f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s&amp;{key}</SecretAccessKey>"
    told += f"<SessionToken>t-{key}</SessionToken><Expiration>{expires}</Expiration>"
    told = f"<{action}Result><Credentials>{told}</Credentials></{action}Result>"
    return f"<{action}Response>{told}</{action}Response>".encode()


def given(key: str, token: str = "Token", **more: Any) -> bytes:
    return json.dumps(
        {"AccessKeyId": key, "SecretAccessKey": f"s-{key}", token: f"t-{key}", "Expiration": LATER} | more
    ).encode()


class Aws:
    """Stands in for the token service, the container's and the machine's endpoints and the single sign-on."""

    def __init__(self) -> None:
        self.machine = True
        self.role = b"the role\n"
        self.status = 200
        self.expires = LATER
        self.delay = 0.0

    def __call__(self, seen: Seen) -> Script:
        body, kind = self.answer(seen), "application/json"
        if body is None:
            return Script((response(404, b"no"),))
        return Script((self.delay, response(self.status, body, kind=kind)))

    def answer(self, seen: Seen) -> bytes | None:
        path = seen.path.partition("?")[0]
        if seen.body:
            asked = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
            action, role = asked["Action"], asked["RoleArn"].rpartition("/")[2]
            if self.status != 200:
                return b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
            if action == "AssumeRole":
                assert "Credential=" in seen.headers["authorization"]
                return xml(
                    action,
                    f"{role}-of-{seen.headers['authorization'].partition('Credential=')[2].partition('/')[0]}",
                    self.expires,
                )
            assert "authorization" not in seen.headers
            return xml(action, f"{role}-by-{asked['WebIdentityToken']}")
        if path == "/federation/credentials":
            assert seen.headers["x-amz-sso_bearer_token"] == "sso-token"
            told = {"accessKeyId": "sso", "secretAccessKey": "s", "sessionToken": "t", "expiration": 4_102_444_800_000}
            return json.dumps({"roleCredentials": told}).encode()
        if path == "/container":
            return given("container-" + seen.headers.get("authorization", "open"))
        if path == "/latest/api/token" and self.machine:
            assert seen.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
            return b"machine-token"
        if path.startswith("/latest/meta-data/iam/security-credentials/") and self.machine:
            assert seen.headers["x-aws-ec2-metadata-token"] == "machine-token"
            name = path.rpartition("/")[2]
            return given(f"machine-{name}", Code="Success") if name else self.role
        return None


@pytest.fixture
def aws() -> Iterator[tuple[Aws, FakeUpstream]]:
    answering = Aws()
    with FakeUpstream(answering) as server:
        yield answering, server


class Place:
    """An environment and a home folder for one search."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.told = {"AWS_ENDPOINT_URL_STS": url, "AWS_EC2_METADATA_SERVICE_ENDPOINT": url, "AWS_ENDPOINT_URL_SSO": url}

    def write(self, name: str, text: str) -> Path:
        path = self.home / ".aws" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    def around(self) -> Surroundings:
        return Surroundings(self.told, self.home)

    def find(self, **options: Any) -> AwsCredentials:
        async def ask() -> AwsCredentials:
            client = HttpClient()
            try:
                return await CredentialSource(client, self.around).find("aws", options, region="eu-central-1")
            finally:
                await client.close()

        return asyncio.run(ask())


@pytest.fixture
def place(aws: tuple[Aws, FakeUpstream], tmp_path: Path) -> Place:
    return Place(tmp_path, f"http://127.0.0.1:{aws[1].port}")


CONFIG = """
[default]
region = us-west-2
aws_access_key_id = from-config
aws_secret_access_key = s
s3 =
  max_concurrent_requests = 20

[profile role]
role_arn = arn:aws:iam::123456789012:role/reader
source_profile = base
external_id = x
[profile chained]
role_arn = arn:aws:iam::123456789012:role/writer
source_profile = role
[profile itself]
role_arn = arn:aws:iam::123456789012:role/self
source_profile = itself
aws_access_key_id = own
aws_secret_access_key = s
[profile circle]
role_arn = arn:aws:iam::123456789012:role/a
source_profile = circle2
[profile circle2]
role_arn = arn:aws:iam::123456789012:role/b
source_profile = circle
[profile mfa]
role_arn = arn:aws:iam::123456789012:role/a
source_profile = base
mfa_serial = arn:aws:iam::123456789012:mfa/me
[profile orphan]
role_arn = arn:aws:iam::123456789012:role/a
source_profile = nobody
[profile envsource]
role_arn = arn:aws:iam::123456789012:role/env
credential_source = Environment
[profile machinesource]
role_arn = arn:aws:iam::123456789012:role/ec2
credential_source = Ec2InstanceMetadata
[profile containersource]
role_arn = arn:aws:iam::123456789012:role/ecs
credential_source = EcsContainer
[profile sso]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = dev
[profile oldsso]
sso_start_url = https://corp.example/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = dev
[profile stale]
sso_start_url = https://stale.example/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = dev
[sso-session corp]
sso_start_url = https://corp.example/start
sso_region = us-east-1
[profile empty]
region = eu-west-1
"""
CREDENTIALS = """
[default]
aws_access_key_id = from-credentials
aws_secret_access_key = s
[base]
aws_access_key_id = base
aws_secret_access_key = s
aws_session_token = base-token
"""
ENV = {"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "env-token"}


@pytest.mark.parametrize(
    ("options", "told", "key", "token"),
    [
        ({"access_key_id": "mine", "secret_access_key": "s", "session_token": "t"}, ENV, "mine", "t"),
        ({}, ENV, "env", "env-token"),
        ({}, {}, "from-credentials", None),
        ({}, {"AWS_PROFILE": "base"}, "base", "base-token"),
        ({"profile": "base"}, ENV, "base", "base-token"),
        ({"profile": "role"}, {}, "reader-of-base", "t-reader-of-base"),
        ({"profile": "chained"}, {}, "writer-of-reader-of-base", "t-writer-of-reader-of-base"),
        ({"profile": "itself"}, {}, "self-of-own", "t-self-of-own"),
        ({"profile": "envsource"}, ENV, "env-of-env", "t-env-of-env"),
        ({"profile": "machinesource"}, {}, "ec2-of-machine-the%20role", "t-ec2-of-machine-the%20role"),
        ({"profile": "containersource"}, {"container": "1"}, "ecs-of-container-open", "t-ecs-of-container-open"),
        ({"profile": "sso"}, {}, "sso", "t"),
        ({"profile": "oldsso"}, {}, "sso", "t"),
        ({"role_arn": "arn:aws:iam::123456789012:role/extra"}, ENV, "extra-of-env", "t-extra-of-env"),
        ({}, {"files": "none", "web": "1"}, "pod-by-jwt", "t-pod-by-jwt"),
        ({}, {"files": "none", "container": "1"}, "container-open", "t-container-open"),
        ({}, {"files": "none", "container": "1", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "abc"},
         "container-abc", "t-container-abc"),
        ({}, {"files": "none", "container": "1", "token": "file"}, "container-def", "t-container-def"),
        ({}, {"files": "none"}, "machine-the%20role", "t-machine-the%20role"),
    ],
)  # fmt: skip
def test_the_chain(place: Place, options: dict[str, Any], told: dict[str, str], key: str, token: str | None) -> None:
    told = dict(told)
    if told.pop("files", "") != "none":
        place.write("config", CONFIG)
        place.write("credentials", CREDENTIALS)
        cache = {"accessToken": "sso-token", "expiresAt": LATER}
        for session in ("corp", "https://corp.example/start"):
            place.write(f"sso/cache/{hashlib.sha1(session.encode()).hexdigest()}.json", json.dumps(cache))
    if told.pop("web", ""):
        told |= {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(place.write("jwt", "jwt\n")),
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/pod",
        }
    if told.pop("container", ""):
        told["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = place.told["AWS_ENDPOINT_URL_STS"] + "/container"
    if told.pop("token", ""):
        told["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(place.write("token", "def\n"))
    place.told |= told
    found = place.find(**options)
    assert found.access_key_id == key
    assert (found.session_token and found.session_token.reveal()) == token
    assert found.secret_access_key.reveal()
    if key not in ("mine", "env", "from-credentials", "base"):
        assert found.expires_at is not None
        assert found.expires_at > time.time()


@pytest.mark.parametrize("profile", ["circle", "mfa", "orphan", "stale", "empty", "nobody"])
def test_a_profile_that_leads_nowhere_is_told_to_nobody_but_the_log(place: Place, profile: str) -> None:
    place.write("config", CONFIG)
    place.write("credentials", CREDENTIALS)
    with pytest.raises(NoCredentials) as caught:
        place.find(profile=profile)
    assert "123456789012" not in caught.value.message


@pytest.mark.parametrize(
    "told",
    [
        {"AWS_EC2_METADATA_DISABLED": "true"},
        {"AWS_ACCESS_KEY_ID": "alone"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/container"},
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/pod"},
        {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nowhere",
        },
    ],
)
def test_what_is_broken_is_no_reason_to_look_further(place: Place, told: dict[str, str]) -> None:
    place.told |= told
    with pytest.raises(NoCredentials):
        place.find()


def test_a_machine_without_a_role_has_none(aws: tuple[Aws, FakeUpstream], place: Place) -> None:
    aws[0].role = b""
    with pytest.raises(NoCredentials):
        place.find()
    aws[0].machine = False
    with pytest.raises(NoCredentials):
        place.find()


def test_a_refusing_token_service(aws: tuple[Aws, FakeUpstream], place: Place) -> None:
    aws[0].status = 403
    place.told |= ENV
    with pytest.raises(NoCredentials):
        place.find(role_arn="arn:aws:iam::123456789012:role/extra")


def test_files_that_are_no_files_are_empty(place: Place) -> None:
    place.write("config", "aws_access_key_id = outside of any section")
    place.write("credentials", "[default\n\xff")
    place.told |= {"AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.raises(NoCredentials):
        place.find()


def test_a_program_gives_credentials_if_nobody_else_may_name_it(place: Place) -> None:
    told = json.dumps({"Version": 1, "AccessKeyId": "program", "SecretAccessKey": "s", "Expiration": LATER})
    script = place.write("give.py", f"print({told!r})")
    config = place.write("config", f"[default]\ncredential_process = {sys.executable} '{script}'\n")
    assert place.find().access_key_id == "program"
    config.chmod(0o666)
    place.told["AWS_EC2_METADATA_DISABLED"] = "true"
    with pytest.raises(NoCredentials):
        place.find()
    config.chmod(0o600)
    script.write_text("raise SystemExit(3)", encoding="utf-8")
    with pytest.raises(NoCredentials):
        place.find()


def test_many_who_ask_at_once_cause_one_search_and_one_going_away_takes_nothing_from_the_others(
    aws: tuple[Aws, FakeUpstream], place: Place
) -> None:
    aws[0].delay = 0.05

    async def ask() -> list[Any]:
        client = HttpClient()
        source = CredentialSource(client, place.around)
        tasks = [asyncio.create_task(source.find("aws", {}, region="us-east-1")) for _ in range(20)]
        for _ in range(3):  # the first has asked, and nobody has been told
            await asyncio.sleep(0)
        tasks[0].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        found.append(await source.find("aws", {}, region="us-east-1"))
        await client.close()
        return found

    found = asyncio.run(ask())
    assert isinstance(found[0], asyncio.CancelledError)
    assert {item.access_key_id for item in found[1:]} == {"machine-the%20role"}
    assert len(aws[1].seen) == 3  # token, role, credentials


def test_old_credentials_serve_while_their_renewal_fails(
    aws: tuple[Aws, FakeUpstream], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus.llm.credentials.aws._FRESH", 0.0)

    async def ask() -> list[str]:
        client = HttpClient()
        source = CredentialSource(client, place.around)
        first = await source.find("aws", {}, region="us-east-1")
        aws[0].machine = False
        second = await source.find("aws", {}, region="us-east-1")
        await client.close()
        return [first.access_key_id, second.access_key_id]

    assert asyncio.run(ask()) == ["machine-the%20role"] * 2


@pytest.mark.parametrize(
    ("options", "url", "told", "region"),
    [
        ({"region": "eu-west-3"}, "", {"AWS_REGION": "us-east-2"}, "eu-west-3"),
        ({}, "https://bedrock-runtime.ap-south-1.amazonaws.com", {"AWS_REGION": "us-east-2"}, "ap-south-1"),
        ({}, "", {"AWS_REGION": "us-east-2", "AWS_DEFAULT_REGION": "us-east-1"}, "us-east-2"),
        ({}, "http://proxy:8080", {"AWS_DEFAULT_REGION": "us-gov-west-1"}, "us-gov-west-1"),
        ({}, "", {}, "us-west-2"),
        ({"profile": "empty"}, "", {}, "eu-west-1"),
        ({"profile": "none"}, "http://proxy:8080", {}, "us-east-1"),
        ({}, "", {"AWS_PROFILE": "empty"}, "eu-west-1"),
    ],
)
def test_the_region(place: Place, options: dict[str, Any], url: str, told: dict[str, str], region: str) -> None:
    place.write("config", CONFIG)
    assert region_of(options, url, Surroundings(told, place.home)) == region


@pytest.mark.parametrize("region", [None, "nowhere", "us-east-1.evil.example", "us-east-1/x"])
def test_no_region_or_none_that_is_one(tmp_path: Path, region: str | None) -> None:
    with pytest.raises(NoCredentials, match="region"):
        region_of({"region": region} if region else {}, "", Surroundings({}, tmp_path))


def test_parts_of_the_world_have_their_own_domains() -> None:
    assert domain_of("us-east-1") == domain_of("us-gov-west-1") == "amazonaws.com"
    assert domain_of("cn-north-1") == "amazonaws.com.cn"
    assert domain_of("us-isob-east-1") == "sc2s.sgov.gov"
    assert domain_of("us-iso-east-1") == "c2s.ic.gov"
