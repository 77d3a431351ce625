from __future__ import annotations

import pytest
from tests.clock import no_runaway

from nexus.files.sniff import HEAD, content_type_of, is_active

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 20


@pytest.mark.parametrize(
    ("head", "declared", "kind"),
    [
        (PNG, "image/png", "image/png"),
        (PNG, "text/html", "image/png"),
        (PNG, "", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/png", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "application/octet-stream", "image/webp"),
        (b"XXXX\x00\x00\x00\x00WEBPVP8 ", "image/webp", "application/octet-stream"),
        (b"%PDF-1.7", "text/plain", "application/pdf"),
        (b"PAR1\x00", "text/csv", "application/vnd.apache.parquet"),
        (
            b"PK\x03\x04xl/",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ),
        (b"PK\x03\x04", "image/png", "application/zip"),
        (b"<!DOCTYPE html><html>", "image/png", "text/html"),
        (b"  <script>alert(1)</script>", "text/plain", "text/html"),
        (b"<!-- x --> <!-- y --><svg onload=alert(1)>", "image/svg+xml", "image/svg+xml"),
        (b"\xef\xbb\xbf<html>", "text/csv", "text/html"),
        (b"a,b\n1,2\n", "text/csv", "text/csv"),
        (b"a,b\n1,2\n", "text/csv; charset=utf-8", "text/csv; charset=utf-8"),
        (b'{"a": 1}', "application/json", "application/json"),
        (b"hello", "image/png", "text/plain"),
        (b"hello", "application/octet-stream", "text/plain"),
        ("grüße".encode(), "", "text/plain"),
        (b"\x00\x01\x02", "text/plain", "application/octet-stream"),
        (b"\x00\x01\x02", "application/x-own", "application/x-own"),
        (b"hello", "text/html\r\nset-cookie: x=1", "text/plain"),
        (b"hello", "text/" + "x" * 500, "text/plain"),
        (b"\x80\x04\x95", "application/json", "application/x-pickle"),
    ],
)
def test_bytes_speak_louder_than_the_sender(head: bytes, declared: str, kind: str) -> None:
    assert content_type_of(head, declared) == kind


def test_a_head_that_ends_inside_a_character_is_text() -> None:
    text = ("é" * HEAD).encode()
    for shift in range(4):
        assert content_type_of((b"a" * shift + text)[:HEAD], "text/csv") == "text/csv"


@pytest.mark.parametrize("unit", [b"<!---->", b"<!--", b"<!-- -->\n", b"<", b" "])
def test_hostile_heads_are_quick(unit: bytes) -> None:
    with no_runaway():
        content_type_of((unit * HEAD)[: 16 * HEAD], "text/plain")


@pytest.mark.parametrize(
    ("kind", "active"),
    [
        ("text/html", True),
        ("text/html; charset=utf-8", True),
        ("image/svg+xml", True),
        ("application/pdf", True),
        ("text/javascript", True),
        ("image/png", False),
        ("text/csv", False),
    ],
)
def test_what_a_browser_would_run(kind: str, active: bool) -> None:
    assert is_active(kind) is active
