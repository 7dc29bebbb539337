"""Virtual time: calls in order, ties by who came first."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.simulate.agenda import Agenda


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5])))
def test_calls_come_in_order_and_ties_as_they_were_made(times: list[float]) -> None:
    agenda, seen = Agenda(), list[tuple[float, int]]()
    for number, when in enumerate(times):
        agenda.at(when, lambda number=number: seen.append((agenda.now, number)))  # type: ignore[misc]
    agenda.run(2.0)
    assert seen == sorted((when, number) for number, when in enumerate(times) if when <= 2.0)
    assert agenda.now == 2.0
    agenda.run(4.0)
    assert len(seen) == len(times)


def test_a_call_may_plan_others() -> None:
    agenda, seen = Agenda(), list[float]()

    def tick() -> None:
        seen.append(agenda.now)
        agenda.at(agenda.now + 0.25, tick)

    agenda.at(0.0, tick)
    agenda.run(1.0)
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_the_past_is_over() -> None:
    agenda = Agenda()
    agenda.run(3.0)
    agenda.at(3.0, lambda: None)
    with pytest.raises(AssertionError, match="past"):
        agenda.at(2.9, lambda: None)


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_a_run_as_before_it(collects: bool) -> None:
    agenda, seen = Agenda(), list[bool]()
    agenda.at(1.0, lambda: seen.append(gc.isenabled()))
    agenda.at(2.0, lambda: [].pop())
    assert gc.isenabled()
    if not collects:
        gc.disable()
    try:
        agenda.run(1.0)
        with pytest.raises(IndexError):
            agenda.run(2.0)
        assert (seen, gc.isenabled()) == ([False], collects)
    finally:
        gc.enable()
