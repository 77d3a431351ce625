"""Tiny pictures for tests and the smoke test, drawn here so that no foreign file is shipped."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np

from nexus.vision.types import Pixels


def gradient(width: int = 64, height: int = 48) -> Pixels:
    """Return a picture whose every quarter has its own colour: red, green / blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    middle_y, middle_x = height // 2, width // 2
    pixels[:middle_y, :middle_x] = 230, 20, 20
    pixels[:middle_y, middle_x:] = 20, 200, 20
    pixels[middle_y:, :middle_x] = 20, 20, 220
    pixels[middle_y:, middle_x:] = 250, 250, 250
    return pixels


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    """Return an array (any shape that Pillow takes) or a Pillow image as a file of this format."""
    from PIL import Image as Pillow

    picture = Pillow.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def page(lines: list[str], *, width: int = 640, size: int = 32) -> bytes:
    """Return a white page with these lines of text in black, as PNG: something to read for OCR."""
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    sheet = Pillow.new("RGB", (width, (len(lines) + 1) * size * 2), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for number, line in enumerate(lines):
        pen.text((size, size + number * size * 2), line, fill="black", font=font)
    return encoded(sheet)


def png_header(width: int, height: int, *, rows: int = 0) -> bytes:
    """Return a PNG that claims to be width x height (8-bit RGB) and holds `rows` black rows of it.

    With all rows it is a valid file a thousandth of its unfolded size: a decompression bomb.
    """

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 + width * 3)) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
