from __future__ import annotations

import pytest

from nexus.http.heads import STATUS_LINES, write_headers


def test_headers_are_lines() -> None:
    for _ in range(2):  # names unknown, then known
        lines, fields = write_headers([(b"x-a", b"1\t2 \xe9"), (b"content-length", b"5"), (b"x-b", b"")])
        assert lines == b"x-a: 1\t2 \xe9\r\ncontent-length: 5\r\nx-b: \r\n"
        assert fields[b"content-length"] == b"5"


def test_what_frames_the_body_is_found_in_any_writing() -> None:
    headers = [(b"Content-Length", b"5"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"6")]
    lines, fields = write_headers([*headers, (b"Connection", b"x"), (b"connection", b"close")])
    assert lines.count(b"set-cookie: ") == 2
    assert fields == {b"content-length": b"5", b"connection": b"x,close"}


@pytest.mark.parametrize(
    "bad",
    [
        *[(b"x-a", b"1" + byte + b"2") for byte in (b"\r", b"\n", b"\r\n", b"\0", b"\x7f", b"\x1b")],
        *[(name, b"1") for name in (b"", b"x a", b"x:a", b"x\r\na", b"x-a ", b"\xe9", b"x(a")],
    ],
)
def test_no_header_breaks_out_of_its_line(bad: tuple[bytes, bytes]) -> None:
    for headers in ([bad], [(b"x-a", b"0"), bad, (b"x-c", b"0")], [bad, bad]):
        for _ in range(2):
            with pytest.raises(RuntimeError):
                write_headers(headers)  # type: ignore[arg-type]


def test_every_status_has_a_line() -> None:
    assert STATUS_LINES[200] == b"HTTP/1.1 200 OK\r\n"
    assert STATUS_LINES[599] == b"HTTP/1.1 599 \r\n"
