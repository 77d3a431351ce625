from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from nexus.testing.images import gradient
from nexus.vision.inputs import InputSpec, fit, tensor

RED, BLUE = (230, 20, 20), (20, 20, 220)


def spec(**fields: Any) -> InputSpec:
    return InputSpec.model_validate({"size": 32, **fields})


def test_a_letterbox_leaves_its_border_below() -> None:
    pixels, placed = fit(gradient(64, 48), spec(resize="letterbox-topleft", pad=114))
    assert pixels.shape == (32, 32, 3)
    assert placed.height == 24
    assert (pixels[24:] == 114).all()
    assert pixels[2, 2].tolist() == list(RED)


def test_a_centred_letterbox_leaves_it_on_both_sides() -> None:
    pixels, _ = fit(gradient(64, 48), spec(resize="letterbox-centre"))
    assert (pixels[:4] == 0).all()
    assert (pixels[28:] == 0).all()
    assert pixels[6, 2].tolist() == list(RED)


def test_a_crop_keeps_the_middle() -> None:
    pixels, _ = fit(gradient(128, 64), spec(resize="crop"))
    assert pixels.shape == (32, 32, 3)
    assert pixels[2, 2].tolist() == list(RED)
    assert pixels[30, 2].tolist() == list(BLUE)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3000, 2)])
@pytest.mark.parametrize("resize", ["letterbox-topleft", "letterbox-centre", "stretch", "crop"])
def test_any_shape_of_picture_fits(resize: str, size: tuple[int, int]) -> None:
    pixels, _ = fit(gradient(*size), spec(resize=resize))
    assert pixels.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("fields", "shape", "dtype", "first"),
    [
        ({}, (1, 3, 32, 32), "float32", RED),
        ({"colour": "bgr"}, (1, 3, 32, 32), "float32", RED[::-1]),
        ({"layout": "nhwc"}, (1, 32, 32, 3), "float32", RED),
        ({"dtype": "uint8", "layout": "nhwc"}, (1, 32, 32, 3), "uint8", RED),
        ({"dtype": "int32", "layout": "nhwc"}, (1, 32, 32, 3), "int32", RED),
        ({"colour": "grey"}, (1, 1, 32, 32), "float32", (83,)),
        ({"mean": 127.5, "std": 127.5}, (1, 3, 32, 32), "float32", [(v - 127.5) / 127.5 for v in RED]),
        (
            {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            (1, 3, 32, 32),
            "float32",
            [(230 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (20 / 255 - 0.406) / 0.225],
        ),
    ],
)
def test_a_tensor_has_the_layout_order_and_range_of_its_network(
    fields: dict[str, Any], shape: tuple[int, ...], dtype: str, first: Any
) -> None:
    made = tensor(fit(gradient(), spec(**fields))[0], spec(**fields))
    assert made.shape == shape
    assert made.dtype == np.dtype(dtype)
    assert made.flags.c_contiguous
    corner = made[0, 0, 0] if fields.get("layout") == "nhwc" else made[0, :, 0, 0]
    assert corner == pytest.approx(np.array(first), abs=1e-3)


@pytest.mark.parametrize("fields", [{"size": 0}, {"size": [1, 2, 3]}, {"resize": "squash"}, {"sized": 3}, {"pad": 300}])
def test_a_wrong_description_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**fields)
