from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from nexus.http.errors import UrlNotAllowed
from nexus.http.urls import check_answers, follow, is_allowed, parse_url


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path"),
    [
        ("http://example.com", "http", "example.com", 80, "/"),
        ("HTTPS://Example.COM./a%20b?q=1#frag", "https", "example.com", 443, "/a%20b?q=1"),
        ("http://example.com:8080?q", "http", "example.com", 8080, "/?q"),
        ("http://8.8.8.8/", "http", "8.8.8.8", 80, "/"),
        ("http://[2606:4700::1111]:8443/", "http", "2606:4700::1111", 8443, "/"),
        ("http://example.com/ü", "http", "example.com", 80, "/%C3%BC"),
        ("http://xn--bcher-kva.example/", "http", "xn--bcher-kva.example", 80, "/"),
        ("http://my_host.internal:9000/x", "http", "my_host.internal", 9000, "/x"),
        ("http://example.com/a@b:c", "http", "example.com", 80, "/a@b:c"),
    ],
)
def test_urls_are_read_in_one_way(url: str, scheme: str, host: str, port: int, path: str) -> None:
    target = parse_url(url)
    assert (target.scheme, target.host, target.port, target.path) == (scheme, host, port, path)


MALFORMED = [
    "",
    "example.com",
    "//example.com",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://127.0.0.1:6379/_INFO",
    "data:text/plain,x",
    "javascript:alert(1)",
    "http:/example.com",
    "http:///etc/passwd",
    "http://",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1:6666\\@1.1.1.1/",
    "http://1.1.1.1\\@127.0.0.1/",
    "http://1.1.1.1 @127.0.0.1/",
    "http://exa mple.com/",
    "http://example.com/\r\nHost: evil",
    "http://example.com/\x00",
    "http://example.com:0/",
    "http://example.com:22/",
    "http://example.com:25/",
    "http://example.com:99999/",
    "http://example.com:80:80/",
    "http://example.com:\uff18\uff10/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://127.1/",
    "http://0/",
    "http://0177.0.0.1/",
    "http://127.0.0.1.../",
    "http://256.0.0.1/",
    "http://1.2.3.4.5/",
    "http://①②⑦.⓪.⓪.①/",
    "http://example。com/",
    "http://[::1/",
    "http://[::ffff:127.0.0.1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://-bad-.com/",
    "http://a..b/",
    "http://" + "a" * 64 + ".com/",
    "http://example.com/" + "a" * 9000,
    "http://%31%32%37.0.0.1/",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_whatever_parsers_disagree_on_is_refused(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        parse_url(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_inner_addresses_are_not_reached(address: str) -> None:
    assert not is_allowed(ip_address(address))
    with pytest.raises(UrlNotAllowed):
        check_answers([address])
    with pytest.raises(UrlNotAllowed):
        check_answers(["8.8.8.8", address])


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are(address: str) -> None:
    assert is_allowed(ip_address(address))


def test_the_operator_can_allow_networks() -> None:
    allow = [ip_network("127.0.0.0/8"), ip_network("fd00::/8")]
    assert check_answers(["127.0.0.1", "fd00::1", "::ffff:127.0.0.2"], allow)
    with pytest.raises(UrlNotAllowed):
        check_answers(["127.0.0.1", "10.0.0.1"], allow)
    with pytest.raises(UrlNotAllowed):
        check_answers([], allow)


def test_redirects_are_judged_like_urls() -> None:
    start = parse_url("https://example.com/a/b?c")
    assert follow(start, "../d").url == "https://example.com/d"
    assert follow(start, "//other.example/x").url == "https://other.example/x"
    for location in ("http://example.com/", "file:///etc/passwd", "https://u@h/", "\\\\127.0.0.1", "https://x/\n"):
        with pytest.raises(UrlNotAllowed):
            follow(start, location)
