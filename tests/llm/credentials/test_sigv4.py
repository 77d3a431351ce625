"""Signatures against AWS's published vectors and AWS's own signer."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core.secrets import Secret
from nexus.llm.credentials.sigv4 import AwsCredentials, signed

# The key and the moment of AWS's Signature Version 4 test suite.
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
PLAIN = AwsCredentials(access_key_id=KEY, secret_access_key=Secret(SECRET))
TOKEN = AwsCredentials(access_key_id=KEY, secret_access_key=Secret(SECRET), session_token=Secret("the/token=="))
FORM = (("Content-Type", "application/x-www-form-urlencoded"),)


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "signature"),
    [
        ("GET", "/", (), b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("GET", "/?Param2=value2&Param1=value1", (), b"",
         "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        ("POST", "/", (), b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("POST", "/", FORM, b"Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
    ],
)  # fmt: skip
def test_published_vectors(
    method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes, signature: str
) -> None:
    done = dict(
        signed(
            f"https://example.amazonaws.com{url}", body, headers, PLAIN,
            region="us-east-1", service="service", method=method, now=NOW,
        )
    )  # fmt: skip
    assert done["authorization"].endswith(f"Signature={signature}")
    assert done["authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
    )


def by_botocore(method: str, url: str, body: bytes, headers: dict[str, str], credentials: AwsCredentials) -> str:
    token = credentials.session_token
    signer = SigV4Auth(Credentials(KEY, SECRET, token and token.reveal()), "bedrock", "eu-central-1")
    request = AWSRequest(method, url, data=body, headers=headers)
    with patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        signer.add_auth(request)
    return str(request.headers["Authorization"])


PATHS = st.lists(
    st.sampled_from(["model", "us.amazon.nova-lite-v1%3A0", "a%2Fb", "x%20y", ".", "..", "", "~-_.", "%C3%A9"]),
    max_size=6,
).map("/".join)
QUERIES = st.dictionaries(
    st.sampled_from(["a", "b", "A", "a%20b", "x-y"]), st.sampled_from(["", "1", "%2F", "a-b"]), max_size=3
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs.items()))
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "x-amz-custom", "Accept", "user-agent", "x-Odd-Case"]),
    st.sampled_from(["application/json", "  two   spaces ", "a,b", "é"]),
    max_size=4,
)


@settings(max_examples=150)
@given(
    st.sampled_from(["POST", "GET"]),
    st.sampled_from(["bedrock-runtime.eu-central-1.amazonaws.com", "127.0.0.1:8443", "Upper.example:9000"]),
    PATHS,
    QUERIES,
    HEADERS,
    st.binary(max_size=50),
    st.sampled_from([PLAIN, TOKEN]),
)
def test_as_awss_own_signer(
    method: str, host: str, path: str, query: str, headers: dict[str, str], body: bytes, credentials: AwsCredentials
) -> None:
    url = f"https://{host.lower()}/{path}" + (f"?{query}" if query else "")
    ours = signed(
        url, body, headers.items(), credentials, region="eu-central-1", service="bedrock", method=method, now=NOW
    )
    assert dict(ours)["authorization"] == by_botocore(method, url, body, headers, credentials)


def test_the_token_travels_and_the_secret_does_not() -> None:
    done = signed("https://x.amazonaws.com/", b"", (), TOKEN, region="us-east-1", service="bedrock", now=NOW)
    assert dict(done)["x-amz-security-token"] == "the/token=="
    assert SECRET not in str(done)
    assert SECRET not in repr(TOKEN)
    assert "token==" not in repr(TOKEN)
