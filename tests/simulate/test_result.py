"""Measuring: means, the worst, the averaged model, and how far apart nodes are."""

import numpy as np
import pytest

from covey.gossip.quantiser import Floats
from covey.simulate.result import Result, measure
from covey.simulate.workload import Score
from tests.simulate.strolls import Strolls


class Sums(Strolls):
    """Scores a vector by its first elements."""

    def score(self, vectors: Floats) -> Score:
        return Score(vectors[:, 0].astype(np.float64), vectors[:, 1].astype(np.float64))


def test_what_is_measured() -> None:
    vectors = np.array([[0.2, 4, 3], [0.4, 2, 3], [0.9, 0, 3]], np.float32)
    point = measure(Sums(3, 3), vectors, time_s=7.0, steps=20.0, sent=300.0)
    assert (point.time_s, point.steps, point.sent) == (7.0, 20.0, 300.0)
    assert (point.mean, point.least) == pytest.approx((0.5, 0.2))
    assert (point.loss, point.averaged, point.loss_averaged) == pytest.approx((2.0, 0.5, 2.0))
    spread = np.sqrt((np.square([0.3, 0.1, 0.4]).sum() + 4 + 0 + 4) / 3)
    assert point.apart == pytest.approx(spread / np.sqrt(0.25 + 4 + 9))


def test_models_that_agree_are_not_apart() -> None:
    vectors = np.tile(np.array([1.0, 2.0, 3.0], np.float32), (4, 1))
    assert measure(Sums(4, 3), vectors, 0.0, 0.0, 0.0).apart == 0.0
    assert measure(Sums(4, 3), 0 * vectors, 0.0, 0.0, 0.0).apart == 0.0


def test_bytes_are_per_parameter_of_the_end() -> None:
    points = [
        measure(Sums(2, 3), np.ones((2, 3), np.float32), 0.0, 0.0, sent) for sent in (3.0, 12.0)
    ]
    result = Result(tuple(points), 1.0, {}, 6)
    assert result.final is points[1]
    assert result.bytes_per_parameter == 2.0
