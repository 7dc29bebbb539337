"""What an exchange may undo: nothing forward, little back, and never more than was said."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.config import Screening
from covey.gossip.progress import Progress
from covey.gossip.quantiser import BLOCK, Floats, gathered

SIZE = 5 * BLOCK + 7
CONFIG = Screening(undone_periods=2.0, undone_share=0.05)


def vector(seed: int, size: int = SIZE) -> Floats:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def progress(began: Floats, periods: int) -> Progress:
    made = Progress(CONFIG, len(began), Random(0))
    made.begin(began)
    for _ in range(periods):
        made.close_period()
    return made


def factor(made: Progress, mine: Floats, theirs: Floats) -> float:
    return made.factor(mine, gathered(theirs, made.blocks) - gathered(mine, made.blocks))


@given(
    seed=st.integers(0, 2**16), periods=st.integers(0, 500), scale=st.sampled_from([1e-3, 1, 30])
)
def test_an_exchange_undoes_no_more_than_its_share(seed: int, periods: int, scale: float) -> None:
    """Whatever the peer sends; what does not lead back is not scaled."""
    began, moved, theirs = (vector(3 * seed + k) for k in range(3))
    mine = began + moved
    theirs *= np.float32(scale)
    made = progress(began, periods)
    found = factor(made, mine, theirs)
    undone = -float((theirs - mine) @ (mine - began)) / float((mine - began) @ (mine - began))
    assert 0 < found <= 1
    assert found * undone <= made.undone_most * (1 + 1e-4)
    if undone < made.undone_most * (1 - 1e-4):
        assert found == 1.0


@pytest.mark.parametrize(
    ("periods", "most"), [(1, 1.0), (3, 0.5), (19, 0.1), (39, 0.05), (900, 0.05)]
)
def test_what_may_be_undone_is_two_periods_worth_or_a_twentieth(periods: int, most: float) -> None:
    began, mine = vector(1), vector(2)
    made = progress(began, periods)
    assert made.undone_most == pytest.approx(most)
    assert factor(made, mine, began) == pytest.approx(most)  # a peer that never left
    assert factor(made, mine, mine) == 1.0
    assert factor(made, mine, mine + (mine - began)) == 1.0  # one that is ahead


def test_without_a_way_nothing_is_undone() -> None:
    began = vector(1)
    assert factor(progress(began, 9), began, vector(2)) == 1.0


def test_a_new_beginning_forgets_the_way() -> None:
    made = progress(vector(1), 50)
    made.begin(vector(2))
    assert made.undone_most == 2.0
    assert factor(made, vector(2), vector(1)) == 1.0


def test_some_blocks_stand_for_all_of_a_large_model() -> None:
    """Another draw for every node, so that nobody knows where to lie."""
    size = 3000 * BLOCK
    began, mine = vector(1, size), vector(2, size)
    drawn = []
    for seed in range(2):
        made = Progress(CONFIG, size, Random(seed))
        made.begin(began)
        for _ in range(9):
            made.close_period()
        assert factor(made, mine, began) == pytest.approx(0.2, rel=0.01)
        assert len(made.blocks) == 1024
        drawn.append(made.blocks)
    assert not np.array_equal(drawn[0], drawn[1])


def test_a_model_without_parameters() -> None:
    nothing = np.empty(0, np.float32)
    assert factor(progress(nothing, 3), nothing, nothing) == 1.0
