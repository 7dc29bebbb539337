"""Where a vector lies: it goes from place to place without being copied."""

import numpy as np
import pytest

from covey.gossip.places import Places, zeros


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


@pytest.mark.parametrize("place", range(4))
def test_large_vectors_begin_at_their_place_of_a_page(place: int) -> None:
    for size in (1 << 16, 100_001):
        made = zeros(size, place)
        assert made.ctypes.data % 4096 == 1024 * place
        assert made.shape == (size,)
        assert made.dtype == np.float32
        assert not made.any()
    assert zeros(5, place).nbytes == 20
    assert zeros(5, place).base is None, "nothing beside it is kept"
