from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from nexus.testing.images import encoded, gradient, png_header
from nexus.vision.errors import ImageTooLarge, ImageUnreadable
from nexus.vision.images import decode, encode_png, sniff, upright
from nexus.vision.settings import VisionSettings

# pytest puts its own filters around every test; outside of it Pillow is silenced once.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

LIMITS = VisionSettings()
SIXTEEN = (np.arange(64 * 48, dtype=np.uint32).reshape(48, 64) * 21).astype(np.uint16)


def truncated(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def noisy() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 255, (200, 300, 3), np.uint8)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 90}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_every_format_gives_the_same_picture(kind: str, options: dict[str, object]) -> None:
    image = decode(encoded(gradient(), kind, **options), LIMITS)
    assert (image.width, image.height, image.format) == (64, 48, kind.lower())
    assert image.pixels.shape == (48, 64, 3)
    assert image.pixels.dtype == np.uint8
    assert np.abs(image.pixels.astype(int) - gradient()).mean() < 6


def odd() -> dict[str, bytes]:
    colour = Pillow.fromarray(gradient())
    see_through = colour.convert("RGBA")
    see_through.putalpha(Pillow.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))))
    frames = [colour, Pillow.new("RGB", (64, 48), "black")]
    palette = colour.convert("P")
    return {
        "grey": encoded(colour.convert("L")),
        "grey jpeg": encoded(colour.convert("L"), "JPEG"),
        "one bit": encoded(colour.convert("1")),
        "palette": encoded(palette),
        "palette, see-through": encoded(palette, transparency=3),
        "rgba": encoded(see_through),
        "grey with alpha": encoded(see_through.convert("LA")),
        "rgba webp": encoded(see_through, "WEBP", lossless=True),
        "16-bit grey png": encoded(SIXTEEN),
        "16-bit grey tiff": encoded(SIXTEEN, "TIFF"),
        "32-bit tiff": encoded(SIXTEEN.astype(np.int32), "TIFF"),
        "float tiff": encoded((SIXTEEN / 65535).astype(np.float32), "TIFF"),
        "cmyk jpeg": encoded(colour.convert("CMYK"), "JPEG", quality=95),
        "cmyk tiff": encoded(colour.convert("CMYK"), "TIFF"),
        "animated gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "animated png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "bytes after the end": encoded(gradient(), "JPEG") + b"\0" * 100,
    }


@pytest.mark.parametrize("name", odd())
def test_odd_pictures_are_read(name: str) -> None:
    image = decode(odd()[name], LIMITS)
    assert image.pixels.shape == (48, 64, 3)
    assert image.pixels.std() > 5


@pytest.mark.parametrize("name", ["animated gif", "animated webp", "animated png", "cmyk jpeg", "cmyk tiff", "rgba"])
def test_the_first_frame_keeps_its_colours(name: str) -> None:
    pixels = decode(odd()[name], LIMITS).pixels
    red, white = pixels[10, 30], pixels[40, 60]
    assert red[0] > red[1] + 60
    assert red[0] > red[2] + 60
    assert white.min() > 200


def test_what_is_see_through_becomes_white() -> None:
    ink = Pillow.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert decode(encoded(ink), LIMITS).pixels.min() == 255
    half = Pillow.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert decode(encoded(half), LIMITS).pixels[0, 0].tolist() == [255, 127, 127]


def test_sixteen_bits_become_eight() -> None:
    pixels = decode(encoded(SIXTEEN), LIMITS).pixels
    assert (pixels[..., 0] == SIXTEEN >> 8).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    data = encoded(gradient(), kind, exif=exif, **lossless)
    image = decode(data, LIMITS)
    expected = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))).convert("RGB"))
    assert (image.height, image.width) == expected.shape[:2]
    assert image.pixels.shape == expected.shape
    assert np.abs(image.pixels.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_an_unknown_orientation_changes_nothing(orientation: int) -> None:
    assert (upright(gradient(), orientation) == gradient()).all()


def test_a_broken_exif_block_does_not_spoil_the_picture() -> None:
    data = encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(data, LIMITS).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not a picture at all",
        b"<!doctype html><html><body>Hello</body></html>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"%PDF-1.7\n",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x10\x00\x00\x00WEBPVP8 ",
        b"GIF89a",
        b"BM",
        b"II*\x00\x08\x00\x00\x00",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        png_header(0, 0),
        png_header(64, 48),  # a header and no rows
        truncated(encoded(noisy(), "JPEG", quality=90)),
        truncated(encoded(noisy(), "JPEG", quality=90, progressive=True)),
        truncated(encoded(noisy(), "PNG")),
        truncated(encoded(noisy(), "WEBP", lossless=True)),
        truncated(encoded(noisy(), "BMP")),
        truncated(encoded(noisy(), "TIFF")),
        encoded(gradient(), "PNG").replace(b"IDAT", b"JUNK"),
    ],
)
def test_what_is_no_whole_picture_is_refused_without_foreign_words(data: bytes) -> None:
    with pytest.raises(ImageUnreadable) as caught:
        decode(data, LIMITS)
    assert caught.value.status == 422
    assert caught.value.code == "image_unreadable"
    assert caught.value.field == "image"
    assert caught.value.message == ImageUnreadable().message


def test_a_bomb_is_refused_for_its_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png_header(30_000, 30_000, rows=30_000 // 50)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _self: pytest.fail("its pixels are looked at"))
    with pytest.raises(ImageTooLarge) as caught:
        decode(bomb, LIMITS)
    assert caught.value.status == 413
    assert caught.value.field == "image"


@pytest.mark.parametrize(
    ("width", "height", "limits"),
    [
        (10_000, 10_000, LIMITS),
        (16_385, 2, LIMITS),
        (2, 16_385, LIMITS),
        (101, 100, VisionSettings(max_pixels=10_000)),
        (65_000, 65_000, LIMITS),
        (2_000_000_000, 2_000_000_000, LIMITS),
    ],
)
def test_too_many_pixels_are_refused(width: int, height: int, limits: VisionSettings) -> None:
    with pytest.raises((ImageTooLarge, ImageUnreadable)) as caught:
        decode(png_header(width, height), limits)
    assert caught.value.field == "image"
    if width < 2_000_000_000:
        assert isinstance(caught.value, ImageTooLarge)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(ImageTooLarge):
        decode(encoded(gradient()), VisionSettings(max_bytes=100))


def test_a_picture_at_the_limit_is_read() -> None:
    assert decode(encoded(gradient(100, 100)), VisionSettings(max_pixels=10_000)).width == 100


@pytest.mark.parametrize(("enough", "side"), [(None, 1600), (1000, 1600), (800, 800), (400, 400), (100, 200)])
def test_a_large_jpeg_is_decoded_no_larger_than_needed(enough: int | None, side: int) -> None:
    data = encoded(gradient(1600, 1200), "JPEG", quality=95)
    image = decode(data, LIMITS, enough=enough)
    assert image.pixels.shape[1] == side
    assert (image.width, image.height) == (1600, 1200)
    assert image.scale == pytest.approx((1600 / side, 1600 / side))
    corner = image.pixels[5, 5]
    assert corner[0] > 200
    assert corner[2] < 60


def test_one_pixel_is_a_picture() -> None:
    assert decode(encoded(gradient(1, 1)), LIMITS).pixels.shape == (1, 1, 3)


def test_png_comes_back_as_it_went() -> None:
    assert (decode(encode_png(gradient()), LIMITS).pixels == gradient()).all()


def test_names_do_not_matter_only_first_bytes_do() -> None:
    assert sniff(encoded(gradient(), "GIF")) == "GIF"
    assert sniff(b"GIF") is None


@pytest.mark.slow
def test_real_photographs_are_read(images: Path) -> None:
    for path in [*images.glob("detect_voc/*.jpg"), *images.glob("ocr/*.png")][::7]:
        image = decode(path.read_bytes(), LIMITS)
        with Pillow.open(path) as original:
            assert image.pixels.shape[:2] == (original.height, original.width)
