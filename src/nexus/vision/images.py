"""From bytes that a stranger sent to an upright RGB picture.

The real format comes from the first bytes, never from a name or a content type. Width and height
are read from the header and judged before anything is decoded, so that a small file that unfolds
into gigabytes is refused for its header alone. EXIF orientation is applied here, once.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any, Final

import numpy as np

from nexus.vision.errors import ImageTooLarge, ImageUnreadable
from nexus.vision.opencv import opencv
from nexus.vision.settings import VisionSettings
from nexus.vision.types import Image, Pixels

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_ORIENTATION: Final = 0x0112
_EIGHT_BIT_RGB: Final = ("RGB", "L")


def sniff(data: bytes) -> str | None:
    """Return the format that the first bytes tell, or None when it is none that is read here."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in {b"GIF87a", b"GIF89a"}:
        return "GIF"
    if data[:4] in {b"II*\x00", b"MM\x00*"}:
        return "TIFF"
    return "BMP" if data[:2] == b"BM" else None


def decode(data: bytes, limits: VisionSettings, *, enough: int | None = None) -> Image:
    """Return the first frame, upright, alpha laid over white, as 8-bit RGB.

    `enough` is the side in pixels that the model needs: a JPEG more than twice as large may be
    decoded at a half, a quarter or an eighth, which saves most of the work. Blocking; runs in a
    worker thread. Raises `ImageTooLarge` and `ImageUnreadable`, both naming the field `image`.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"The image is larger than {limits.max_bytes} bytes.", field="image")
    kind = sniff(data)
    if kind is None:
        raise ImageUnreadable(field="image")
    opened = _open(data, kind)
    width, height = opened.size
    _judge(width, height, limits)
    try:
        if kind == "JPEG" and opened.mode in _EIGHT_BIT_RGB:
            orientation, pixels = _orientation(opened), _jpeg(data, max(width, height), enough)
        else:
            opened.load()
            # Only now: Pillow turns some formats by itself while it loads, and takes the tag out.
            orientation, pixels = _orientation(opened), _pixels(opened)
            height, width = pixels.shape[:2]
    except Exception:  # noqa: BLE001  decoders of foreign formats raise anything at all on hostile bytes
        raise ImageUnreadable(field="image") from None
    if orientation >= 5:
        width, height = height, width
    return Image(upright(pixels, orientation), width, height, kind.lower())


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation 1 to 8 (CIPA DC-008, tag 0x0112); anything else is taken as 1."""
    if orientation in {2, 5, 7, 4}:
        pixels = pixels[:, ::-1] if orientation in {2, 5, 7} else pixels[::-1]
    turns = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels, turns))


def encode_png(pixels: Pixels) -> bytes:
    """Return RGB pixels as a PNG file."""
    cv2 = opencv()
    done, buffer = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise ImageUnreadable(field="image")
    return bytes(buffer)


def _open(data: bytes, kind: str) -> Any:
    """Read the header only."""
    pillow = _pillow()
    try:
        return pillow.open(io.BytesIO(data), formats=[kind])
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        raise ImageTooLarge("The image has too many pixels.", field="image") from None
    except Exception:  # noqa: BLE001  see decode
        raise ImageUnreadable(field="image") from None


@cache
def _pillow() -> Any:
    from PIL import Image as Pillow

    # It warns on the console of large or broken pictures, which are judged and refused here.
    warnings.filterwarnings("ignore", module="PIL")
    return Pillow


def _judge(width: int, height: int, limits: VisionSettings) -> None:
    if width < 1 or height < 1:
        raise ImageUnreadable(field="image")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"The image has {width} x {height} pixels; at most {limits.max_pixels} are taken.", field="image"
        )
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"A side of the image is longer than {limits.max_side} pixels.", field="image")


def _orientation(opened: Any) -> int:
    try:
        value = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  a broken EXIF block is no reason to refuse the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _pixels(opened: Any) -> Pixels:
    """Bring every mode that Pillow knows to RGB."""
    mode = opened.mode
    if mode.startswith("I") or mode == "F":
        return _deep(np.asarray(opened))
    if mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in opened.info:
        return _over_white(opened.convert("RGBA"))
    return np.asarray(opened if mode == "RGB" else opened.convert("RGB"), np.uint8)


def _jpeg(data: bytes, side: int, enough: int | None) -> Pixels:
    """Decode plain JPEG, by far the most common, with OpenCV, which takes a third less time than Pillow."""
    # The end marker cannot occur inside coded data, and the decoder fills what is missing with grey.
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise ImageUnreadable(field="image")
    cv2 = opencv()
    flags = cv2.IMREAD_COLOR_RGB
    for share, reduced in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if enough and side >= share * enough:
            flags = reduced
            break
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ImageUnreadable(field="image")
    if flags != cv2.IMREAD_COLOR_RGB:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return np.asarray(pixels, np.uint8)


def _deep(values: Any) -> Pixels:
    """Bring 16-bit, 32-bit and floating grey to 8 bits, in three equal channels."""
    if values.dtype.kind == "f":
        top = 1.0 if values.size and np.nanmax(values) <= 1.0 else 255.0
        grey = np.nan_to_num(values) * (255.0 / top)
    else:
        wide = values.astype(np.int64)
        grey = wide >> 8 if values.dtype.itemsize == 2 or (wide.size and wide.max() > 255) else wide
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _over_white(opened: Any) -> Pixels:
    values = np.asarray(opened, np.uint16)
    alpha = values[..., 3:]
    return ((values[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
