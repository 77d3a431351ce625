"""Signatures of webhooks: known vectors, everything that is forged or stale, and properties of what is parsed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.automation.errors import HookStale, HookUnsigned, TriggerInvalid
from nexus.automation.signatures import HmacScheme, Signed, check_secret, new_secret, sign_standard, verify

NOW = 1_764_000_000
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()
PLAIN = "a shared secret of the two"
BODY = b'{"id": "evt_1", "type": "invoice.paid"}'
SLACK = HmacScheme(
    header="X-Slack-Signature",
    prefix="v0=",
    content="v0:{timestamp}:{body}",
    timestamp_header="X-Slack-Request-Timestamp",
)
SHOP = HmacScheme(header="X-Shop-Hmac", encoding="base64", id_header="X-Shop-Id")

Change = Callable[[dict[str, str]], Any]


def standard(body: bytes = BODY, at: int = NOW, secret: str = SECRET, message: str = "msg_1") -> dict[str, str]:
    signature = sign_standard(secret, message, at, body)
    return {"webhook-id": message, "webhook-timestamp": str(at), "webhook-signature": signature}


def github(body: bytes = BODY, secret: str = PLAIN, delivery: str = "d-1") -> dict[str, str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": f"sha256={signature}", "x-github-delivery": delivery, "x-github-event": "push"}


def stripe(body: bytes = BODY, at: int = NOW, secret: str = PLAIN) -> dict[str, str]:
    signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={at},v1={'0' * 64},v1={signature},v0=abc"}


def slack(body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    signature = hmac.new(PLAIN.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    return {"x-slack-signature": f"v0={signature}", "x-slack-request-timestamp": str(at)}


def shop(body: bytes = BODY, delivery: str = "s-1") -> dict[str, str]:
    signature = base64.b64encode(hmac.new(PLAIN.encode(), body, hashlib.sha256).digest()).decode()
    return {"x-shop-hmac": signature, "x-shop-id": delivery}


def check(
    preset: Any, headers: dict[str, str], *, body: bytes = BODY, now: float = NOW, keys: list[str] | None = None
) -> Signed:
    scheme = {"slack": SLACK, "shop": SHOP}.get(preset)
    keys = keys or [SECRET if preset == "standard" else PLAIN]
    return verify("hmac" if scheme else preset, scheme, keys, headers, body, now)


def test_the_vectors_of_the_senders() -> None:
    """The examples of the Standard Webhooks libraries and of GitHub's documentation."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    keys = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
    body = b'{"test": 2432232314}'
    assert verify("standard", None, keys, headers, body, 1614265330).id == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signed = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    given = {"x-hub-signature-256": signed, "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
    found = verify("github", None, ["It's a Secret to Everybody"], given, b"Hello, World!", 0)
    assert found.id == "72d3162e-cc78-11e3-81ab-4c9367dc0958"


@pytest.mark.parametrize(
    ("preset", "headers", "id_", "bound"),
    [
        ("standard", standard(), "msg_1", True),
        ("github", github(), "d-1", False),
        ("stripe", stripe(), "evt_1", True),
        ("slack", slack(), hashlib.sha256(f"v0:{NOW}:".encode() + BODY).hexdigest(), True),
        ("shop", shop(), "s-1", False),
    ],
)
def test_what_is_signed_is_taken(preset: str, headers: dict[str, str], id_: str, bound: bool) -> None:
    found = check(preset, headers)
    assert found.id == id_
    assert (found.fingerprint is None) is bound


@pytest.mark.parametrize("late", [-300, -299, 0, 299, 300])
def test_five_minutes_either_way(late: int) -> None:
    for preset, headers in (("standard", standard()), ("stripe", stripe()), ("slack", slack())):
        assert check(preset, headers, now=NOW + late)


@pytest.mark.parametrize("late", [-3600, -301, 301, 360, 86_400])
def test_stale_is_refused_though_truly_signed(late: int) -> None:
    for preset, headers in (("standard", standard()), ("stripe", stripe()), ("slack", slack())):
        with pytest.raises(HookStale):
            check(preset, headers, now=NOW + late)


@pytest.mark.parametrize(
    ("preset", "headers"),
    [
        ("standard", standard(secret=OTHER)),
        ("standard", {**standard(), "webhook-id": "msg_2"}),
        ("standard", {**standard(), "webhook-timestamp": str(NOW + 1)}),
        ("standard", {**standard(), "webhook-timestamp": f" {NOW}"}),
        ("standard", {**standard(), "webhook-timestamp": "٣"}),
        ("standard", {**standard(), "webhook-timestamp": ""}),
        ("standard", {**standard(), "webhook-signature": standard()["webhook-signature"].replace("v1,", "v2,")}),
        ("standard", {**standard(), "webhook-signature": "v1,"}),
        ("standard", {**standard(), "webhook-signature": "v1,not base64"}),
        ("standard", {**standard(), "webhook-signature": ""}),
        ("standard", standard(message="msg.1")),
        ("standard", {}),
        ("github", github(secret="another secret altogether")),
        ("github", github(body=BODY + b" ")),
        ("github", {**github(), "x-hub-signature-256": github()["x-hub-signature-256"].removeprefix("sha256=")}),
        ("github", {**github(), "x-hub-signature-256": "sha1=" + "0" * 40}),
        ("github", {**github(), "x-hub-signature-256": "sha256="}),
        ("github", {**github(), "x-github-delivery": ""}),
        ("github", {**github(), "x-github-delivery": "d" * 300}),
        ("github", {}),
        ("stripe", stripe(secret="another secret altogether")),
        ("stripe", {"stripe-signature": stripe()["stripe-signature"].replace(f"t={NOW}", f"t={NOW + 1}")}),
        ("stripe", {"stripe-signature": stripe()["stripe-signature"] + f",t={NOW}"}),
        ("stripe", {"stripe-signature": stripe()["stripe-signature"].replace("v1=", "v0=")}),
        ("stripe", {"stripe-signature": f"t={NOW}"}),
        ("stripe", {}),
        ("slack", {**slack(), "x-slack-request-timestamp": str(NOW + 1)}),
        ("slack", {**slack(), "x-slack-signature": slack()["x-slack-signature"].removeprefix("v0=")}),
        ("shop", shop(body=b"{}")),
        ("shop", {"x-shop-id": "s-1"}),
    ],
)
def test_forged_is_refused(preset: str, headers: dict[str, str]) -> None:
    with pytest.raises(HookUnsigned):
        check(preset, headers)


def test_a_body_that_was_written_anew_does_not_fit() -> None:
    with pytest.raises(HookUnsigned):
        check("standard", standard(), body=BODY.replace(b": ", b":"))


def test_either_secret_and_any_of_several_signatures_will_do() -> None:
    for secret in (SECRET, OTHER):
        assert check("standard", standard(secret=secret), keys=[SECRET, OTHER])
    both = f"{standard(secret=OTHER)['webhook-signature']} v1a,abc {standard()['webhook-signature']}"
    assert check("standard", {**standard(), "webhook-signature": both})
    with pytest.raises(HookUnsigned):
        verify("standard", None, [], standard(), BODY, NOW)


@pytest.mark.parametrize("preset", ["standard", "github", "stripe", "hmac"])
def test_secrets(preset: Any) -> None:
    made = {new_secret(preset) for _ in range(10)}
    assert len(made) == 10
    for secret in made:
        check_secret(preset, secret)
    for bad in ("short", "whsec_" + base64.b64encode(b"x" * 23).decode() if preset == "standard" else "x" * 256):
        with pytest.raises(TriggerInvalid):
            check_secret(preset, bad)


@pytest.mark.parametrize(
    "scheme",
    [
        {"content": "{timestamp}"},
        {"content": "{body}{body}"},
        {"content": "{timestamp}.{body}"},
        {"content": "{id}.{body}"},
        {"timestamp_header": "x-time"},
    ],
)
def test_schemes_that_prove_nothing(scheme: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="content"):
        HmacScheme(header="x-sig", **scheme)


_TEXTS = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=80)


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256", "x-shop-hmac",
                         "x-github-delivery", "stripe-signature", "x-slack-signature", "x-slack-request-timestamp"]),
        _TEXTS | st.just(str(NOW)) | st.just("msg_1") | st.just(f"t={NOW},v1={'0' * 64}"),
    ),
    st.binary(max_size=40),
)  # fmt: skip
def test_nothing_made_up_is_taken_and_nothing_breaks(headers: dict[str, str], body: bytes) -> None:
    for preset in ("standard", "github", "stripe", "slack", "shop"):
        with pytest.raises((HookUnsigned, HookStale)):
            check(preset, headers, body=body)


@given(st.binary(max_size=200), st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60))
def test_whatever_is_signed_is_taken_and_one_bit_more_is_not(body: bytes, message: str) -> None:
    message = message.replace(".", "-")
    headers = standard(body, message=message)
    assert check("standard", headers, body=body).id == message
    with pytest.raises(HookUnsigned):
        check("standard", headers, body=body + b"\0")
    signature = headers["webhook-signature"]
    turned = signature[:3] + ("A" if signature[3] != "A" else "B") + signature[4:]
    with pytest.raises(HookUnsigned):
        check("standard", {**headers, "webhook-signature": turned}, body=body)
