from __future__ import annotations

import numpy as np
import pytest

from nexus.vision.masks import Rle, from_rle, to_rle


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        ([[0, 0], [0, 0]], "4"),
        ([[1, 1], [1, 1]], "04"),
        ([[0, 1], [1, 0]], "121"),
        # Runs 9, 1, 9, 1, 5 as pycocotools writes them: the fourth and fifth relative to the second and third.
        ([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0]], "9190L"),
    ],
)
def test_small_masks_have_known_texts(mask: list[list[int]], counts: str) -> None:
    rle = to_rle(np.array(mask, np.bool_))
    assert rle["counts"] == counts
    assert from_rle(rle).tolist() == np.array(mask, np.bool_).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (480, 640), (1, 500)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_any_mask_comes_back(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(3).random(shape) < share
    rle = to_rle(mask)
    assert rle["size"] == list(shape)
    assert (from_rle(rle) == mask).all()


def test_a_long_run_takes_several_characters() -> None:
    mask = np.zeros((1000, 1000), np.bool_)
    mask[10:900, 300:700] = True
    rle = to_rle(mask)
    assert (from_rle(rle) == mask).all()
    assert len(rle["counts"]) < 2000


def test_runs_that_do_not_fill_the_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="fill"):
        from_rle(Rle(size=[2, 2], counts="3"))
