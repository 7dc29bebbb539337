"""Bytes do not depend on the size of the flock; the time to agree grows like its logarithm."""

import math

import numpy as np
import pytest

from covey.simulate import scaling
from covey.simulate.result import Point
from covey.simulate.scaling import Cost

SIZES = (10, 30, 90)


@pytest.fixture(scope="module")
def costs() -> list[Cost]:
    return [scaling.measure(nodes, 48) for nodes in SIZES]


def test_agreement_takes_time_like_log_n(costs: list[Cost]) -> None:
    a, b = scaling.fit(costs)
    assert 1.0 < b < 3.0, "periods per doubling"
    for cost in costs:
        assert cost.periods == pytest.approx(a + b * math.log2(cost.nodes), rel=0.05)
        assert cost.bytes_per_period == pytest.approx(costs[0].bytes_per_period, rel=0.05)


def test_bytes_per_node_are_those_of_a_small_flock() -> None:
    small, large = (scaling.measure(nodes, 12) for nodes in (16, 128))
    assert large.bytes_per_period == pytest.approx(small.bytes_per_period, rel=0.05)
    assert 600 < large.bytes_per_period < 1500, "about one exchange, signed"
    assert math.isnan(large.periods), "not yet"


def test_the_fit_is_of_the_logarithm() -> None:
    costs = [Cost(nodes, 1.0, 5 + 1.5 * math.log2(nodes)) for nodes in (16, 256, 10_000)]
    assert scaling.fit(costs) == pytest.approx((5, 1.5))


def test_agreement_is_found_between_periods() -> None:
    def point(apart: float) -> Point:
        return Point(0, 0, 0, 0, 0, 0, 0, 0, apart)

    apart = 4.0 * np.exp2(-np.arange(12.0))
    found = scaling._agreed([point(value) for value in apart])
    assert found == pytest.approx(1 + math.log2(4.0 / 0.01)), "the first point is after a period"


def test_rows_hold_each_size_against_all(
    costs: list[Cost], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {(cost.nodes, 48): cost for cost in costs}
    monkeypatch.setattr(scaling, "measure", lambda *asked: known[asked])
    rows = list(scaling.rows(SIZES, periods=48))
    assert [row.setting.split(",")[0] for row in rows] == ["n = 10", "n = 30", "n = 90"] * 2
    assert max(row.difference for row in rows) < 0.05
