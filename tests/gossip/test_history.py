"""How far blocks are expected to be apart: a median that few cannot move."""

import numpy as np

from covey.gossip.history import History


def test_the_typical_difference_is_a_median_of_the_last_nine() -> None:
    made = History(3)
    assert not made.typical().any()
    made.remember(np.array([1, 5, 0], np.float32))
    assert np.array_equal(made.typical(), [1, 5, 0])
    made.remember(np.array([3, 2, 0], np.float32))
    assert np.array_equal(made.typical(), [3, 5, 0]), "of two the larger"
    for value in range(100, 109):
        made.remember(np.full(3, value, np.float32))
    assert np.array_equal(made.typical(), [104] * 3)
    for _ in range(4):  # liars
        made.remember(np.full(3, 1e30, np.float32))
    assert made.typical().max() == 108
    made.forget()
    assert not made.typical().any()
    made.remember(np.array([1, 5, 0], np.float32))
    assert np.array_equal(made.typical(), [1, 5, 0])


def test_what_came_since_it_was_asked_counts_in_order() -> None:
    made, each = History(1), History(1)
    for value in (4, 8, 1, 9, 3, 7, 2, 6, 5, 10, 11, 12):
        made.remember(np.array([value], np.float32))
        each.remember(np.array([value], np.float32))
        each.typical()
    assert made.typical() == each.typical() == [7]
    made.remember(np.array([1], np.float32))
    made.forget()
    assert made.typical() == [0]
