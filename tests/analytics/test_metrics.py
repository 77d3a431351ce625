"""The measures, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nexus.analytics import metrics
from nexus.analytics.reference import naive2

A = np.array([1.0, 2.0, 3.0])
F = np.array([2.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (metrics.mae(A, F), 1.0),
        (metrics.rmse(A, F), (5 / 3) ** 0.5),
        (metrics.smape(A, F), 200 * (1 / 3 + 0 + 2 / 4) / 3),
        (metrics.smape(np.zeros(2), np.zeros(2)), 0.0),
        (metrics.mase(A, F, np.array([0.0, 2, 4, 6]), 1), 0.5),
        (metrics.mase(A, F, np.array([0.0, 2, 3, 5]), 2), 1 / 3),
        (metrics.mase(A, F, np.full(5, 7.0), 1), 1.0),
        (metrics.owa(10, 2, 20, 1), 1.25),
        (metrics.coverage(A, np.array([0.0, 3, 3]), np.array([1.0, 4, 3])), 2 / 3),
        (metrics.pinball(A, F, 0.9), (0.1 * 1 + 0 + 0.9 * 2) / 3),
        (metrics.r2(A, np.full(3, 2.0)), 0.0),
        (metrics.accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]])), 0.5),
        (metrics.log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), np.log(2)),
        (metrics.auc(np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.1])), 0.875),
    ],
)
def test_by_hand(value: float, expected: float) -> None:
    assert value == pytest.approx(expected)


def test_auc_of_one_class_is_not_a_number() -> None:
    assert np.isnan(metrics.auc(np.array([True]), np.array([0.1])))


def test_naive2_repeats_a_plain_series_and_follows_a_seasonal_one() -> None:
    assert list(naive2(np.array([1.0, 5, 2, 9]), 3, 4)) == [9, 9, 9]
    seasonal = np.tile([50.0, 100.0, 150.0, 100.0], 8)
    assert naive2(seasonal, 4, 4) == pytest.approx([50, 100, 150, 100])
