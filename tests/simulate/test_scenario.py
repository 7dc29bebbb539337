"""Scenarios: what is refused, and what is read from text."""

from collections.abc import Callable
from typing import Any

import pytest

from covey.simulate.scenario import ATTACKS, Attack, Churn, Cut, Network, Outer, Scenario


@pytest.mark.parametrize(
    ("make", "bad"),
    [
        (Network, {"latency_s": -0.1}),
        (Network, {"latency_s": float("nan")}),
        (Network, {"bytes_per_s": 0}),
        (Network, {"loss": 1.0}),
        (Churn, {"on_s": 0, "off_s": 1}),
        (Churn, {"on_s": 1, "off_s": float("inf")}),
        (Cut, {"begin": 0.5, "end": 0.5}),
        (Cut, {"begin": 0.5, "end": 1.1}),
        (Attack, {"kind": "shout"}),
        (Attack, {"kind": "noise", "share": 1.0}),
        (Outer, {"momentum": 1.0}),
        (Outer, {"rate": 0.0}),
        (Scenario, {"nodes": 0}),
        (Scenario, {"steps": 0}),
        (Scenario, {"period_s": 0.0}),
        (Scenario, {"spread": 0.5}),
        (Scenario, {"spread": float("nan")}),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[..., object], bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"above|at least|in \(|in \[|unknown"):
        make(**bad)


def test_text_is_read() -> None:
    assert Churn.parse("30:7.5") == Churn(30.0, 7.5)
    assert Cut.parse("0.25:0.5") == Cut(0.25, 0.5)
    assert Attack.parse("noise:0.1") == Attack("noise", 0.1)
    assert [Attack.parse(kind).share for kind in ATTACKS] == [0.2] * len(ATTACKS)


@pytest.mark.parametrize("text", ["", "3", "3:", ":3", "a:b", "1:2:3"])
def test_what_is_not_two_numbers_is_refused(text: str) -> None:
    for parse in (Churn.parse, Cut.parse):
        with pytest.raises(ValueError, match="number"):
            parse(text)


def test_times_follow_from_periods() -> None:
    scenario = Scenario(periods=5, period_s=3.0, steps=6)
    assert (scenario.duration_s, scenario.step_s) == (15.0, 0.5)
