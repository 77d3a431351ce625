"""Addresses at which nothing can be had: each of `UNREACHABLE` makes a base_url that fails in its own way."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from nexus.testing.upstream import FakeUpstream


@contextmanager
def refused() -> Iterator[str]:
    """Give an address that refuses connections: a port that is taken, but not listened to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@contextmanager
def unknown_host() -> Iterator[str]:
    """Give an address whose name cannot be resolved (RFC 6761)."""
    yield "http://no-such-host.invalid/v1"


@contextmanager
def silent() -> Iterator[str]:
    """Give an address that never accepts: its queue of connections is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(full.getsockname())
            waiting.append(client)
        try:
            yield f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        finally:
            for client in waiting:
                client.close()


@contextmanager
def not_tls() -> Iterator[str]:
    """Give an https address behind which no TLS is spoken."""
    with FakeUpstream() as upstream:
        yield upstream.url.replace("http://", "https://")


@contextmanager
def untrusted() -> Iterator[str]:
    """Give an https address whose certificate nobody vouches for."""
    with FakeUpstream(tls=server_context()) as upstream:
        yield upstream.url


UNREACHABLE: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "refused": refused,
    "unknown_host": unknown_host,
    "silent": silent,
    "not_tls": not_tls,
    "untrusted": untrusted,
}


def server_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return a server's side of TLS for 127.0.0.1, self-signed; `ca_file` gets what a client must trust."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake upstream")])
    names = [x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        both = Path(folder, "both.pem")
        both.write_bytes(public + key.private_bytes(serialization.Encoding.PEM, form, plain))
        context.load_cert_chain(both)
    if ca_file is not None:
        ca_file.write_bytes(public)
    return context
