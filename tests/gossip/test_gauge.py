"""Movement: measured until a period tells of it, and measured again when none does for long."""

import numpy as np

from covey.gossip.gauge import Gauge


def told(value: float) -> "np.typing.NDArray[np.float32]":
    return np.full(3, value, np.float32)


def test_a_period_tells_of_the_next_ones_movement() -> None:
    made = Gauge(3)
    assert not made.recent
    made.measuring()[:] += 1
    assert (made.movement == 1).all()
    made.close(told(2), plain=True)
    assert made.recent
    assert (made.movement == 2).all()
    made.measuring()[:] = 9
    assert (made.movement == 2).all(), "there is a recent one"
    made.close(told(3), plain=True)
    assert (made.movement == 3).all()


def test_a_block_that_rests_is_expected_to_move_again_but_less() -> None:
    made = Gauge(3)
    made.close(told(4), plain=True)
    made.close(np.array([0, 1, 5], np.float32), plain=True)
    assert np.array_equal(made.movement, [3, 3, 5])


def test_what_exchanges_moved_is_no_movement() -> None:
    made = Gauge(3)
    made.measuring()[:] += 1
    made.close(told(7), plain=False)
    assert made.recent, "it was measured in the period that has closed"
    for _ in range(3):
        made.close(told(7), plain=False)
        assert made.recent
        assert (made.movement == 1).all()
    made.close(told(7), plain=False)
    assert not made.recent
    assert not made.movement.any(), "it is measured anew"
    made.close(told(7), plain=False)
    assert not made.recent, "it was not"


def test_where_it_misleads_some_periods_are_measured() -> None:
    made = Gauge(3)
    made.close(told(4), plain=True)
    made.mislead()
    for _ in range(8):
        assert not made.recent
        assert not made.movement.any()
        made.measuring()[:] += 2
        assert (made.movement == 2).all()
        made.close(told(2), plain=True)
    assert made.recent
    assert (made.movement == 2).all()


def missed(made: Gauge, periods: int, of: int = 8) -> None:
    """Let it mislead, and measure so many periods, in some of which it misleads as well."""
    made.mislead()
    made.mislead()  # what follows in that period has no movement to go by: it tells nothing
    made.close(told(2), plain=True)
    for period in range(of):
        assert not made.recent
        made.measuring()[:] += 2
        for _ in range(3 * (period < periods)):
            made.mislead()
        made.close(told(2), plain=True)


def test_where_measuring_is_no_better_none_is_measured_for_long() -> None:
    made = Gauge(3)
    made.close(told(4), plain=True)
    missed(made, 4)
    assert made.recent
    missed(made, 5)  # so it was not for ever that it helped
    for _ in range(64):
        assert made.recent
        made.mislead()
        assert (made.movement > 0).all()
        made.close(told(2), plain=True)
    missed(made, 0)  # it may be otherwise by now
    assert made.recent


def test_nothing_is_known_of_another_model() -> None:
    made = Gauge(3)
    made.close(told(2), plain=True)
    missed(made, 8)
    made.reset()
    assert not made.recent
    assert not made.movement.any()
    made.close(told(2), plain=True)
    made.mislead()
    assert not made.recent, "nor that measuring was no better"
