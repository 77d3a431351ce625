"""Messages of Amazon's event stream. Source: https://smithy.io/2.0/aws/amazon-eventstream.html."""

from __future__ import annotations

import struct
import zlib


def frame(payload: bytes, **headers: str) -> bytes:
    """Write one event-stream message; `event_type` becomes the header `:event-type`."""
    head = b""
    for name, value in headers.items():
        key = ":" + name.replace("_", "-")
        head += struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))
