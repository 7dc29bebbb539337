"""Where a vector lies: it goes from place to place without being copied."""

import numpy as np
import pytest

from covey.gossip.places import Places


def test_it_begins_at_home() -> None:
    made = Places(5)
    assert made.x is made.home
    assert not made.home.any()
    assert not made.in_room


def test_it_goes_where_it_is_sent() -> None:
    made = Places(5)
    lent = np.ones(5, np.float32)
    made.go(lent)
    assert made.x is lent
    made.go(made.room())
    assert made.in_room
    assert made.room() is made.x, "there is one"
    made.go(made.home)
    assert not made.in_room


def test_a_view_is_not_written() -> None:
    made = Places(5)
    made.go(np.ones(5, np.float32))
    assert made.view[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        made.view[0] = 2
    made.x[0] = 3
    assert made.view[0] == 3
