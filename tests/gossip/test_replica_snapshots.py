"""What a snapshot does to x: whether lent or copied, and whether finite or not."""

import numpy as np
import pytest

from covey.gossip.config import OuterStep
from covey.gossip.quantiser import Floats
from covey.gossip.replica import Replica, Saved
from tests.gossip.replicas import LAYOUT, difference, replica, vector


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_snapshot_that_is_not_finite_changes_nothing(bad: float) -> None:
    made = replica()
    made.moving()[:] += 1
    assert made.increment(np.empty_like(made.x))
    before = made.x.copy()
    snapshot = vector(1)
    snapshot[-1] = bad
    assert not made.progress(snapshot, applied=True)
    assert np.array_equal(made.x, before)
    assert np.array_equal(made.learner, vector(0))
    assert made._unapplied is not None, "the next snapshot will say so again"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, LAYOUT.parameters - 1, LAYOUT.size - 1])
def test_nor_does_one_after_an_outer_step(bad: float, place: int) -> None:
    """It is found out while x already follows it."""
    made, twin = replica(), replica()
    area = np.empty(LAYOUT.size, np.float32)
    for each in (made, twin):
        assert each.progress(vector(0) + vector(1), applied=True)
        assert each.outer_step(OuterStep(), area)
        each.applied()
    assert made._follows
    snapshot = made.learner + vector(2)
    wrong = snapshot.copy()
    wrong[place] = bad
    assert not made.progress(wrong, applied=True)
    assert np.array_equal(made.x, twin.x)
    assert np.array_equal(made.learner, twin.learner)
    assert np.array_equal(made.movement(), twin.movement())
    assert np.array_equal(made.sizes(), twin.sizes())
    assert made.lengths() == pytest.approx(twin.lengths())
    assert made.progress(snapshot, applied=True)
    assert twin.progress(snapshot, applied=True)
    assert np.array_equal(made.x, twin.x)
    assert np.array_equal(made.movement(), twin.movement())


def test_sizes_are_the_vectors_until_a_period_has_closed() -> None:
    made, area = replica(), np.empty(LAYOUT.size, np.float32)

    def sizes() -> list[float]:
        split = np.split(np.abs(made.x[: LAYOUT.parameters]), [64, 128])
        return [float(part.max()) for part in split]

    assert made.sizes().tolist() == sizes()
    assert made.progress(made.x + vector(1), applied=True)
    assert made.sizes().tolist() == sizes()
    made.mix(difference(made.x, 3)[0], (0.5, 0.5))
    assert made.sizes().tolist() == sizes()
    assert made.outer_step(OuterStep(), area)
    known = sizes()
    assert made.sizes().tolist() == known
    made.applied()
    assert made.progress(made.x + vector(2), applied=True)
    assert made.sizes().tolist() == known


def closed() -> tuple[Replica, Floats]:
    """One whose first period is over, and the area of its increments."""
    made, area = replica(), np.empty(LAYOUT.size, np.float32)
    assert made.progress(vector(0) + vector(1), applied=True)
    assert made.outer_step(OuterStep(), area)
    made.applied()
    return made, area


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("use", ["x", "outer_step", "rest", "moving", "restore"])
def test_a_snapshot_that_turns_out_not_to_be_finite_is_taken_back(use: str, called: bool) -> None:
    """Whether x was where its last period ended, or a peer had called meanwhile."""
    made, area = closed()
    twin, room = closed()
    for each, out in ((made, area), (twin, room)):
        if called:
            each.mix(difference(each.x, 3)[0], (0.5, 0.5))
            assert each.increment(out)
            each.applied()
    slot = made.learner + vector(2)
    slot[77] = np.nan
    assert made.progress(slot, applied=True, lent=True, later=True)
    assert np.isnan(made.unchecked[77])
    assert made.lent
    assert not made.spoiled
    for each, out in ((made, area), (twin, room)):
        if use == "x":
            assert np.isfinite(each.x).all()
        elif use == "outer_step":
            each.outer_step(OuterStep(), out)
        elif use == "rest":
            each.rest()
        elif use == "moving":
            each.moving()[:] += 1
        else:
            each.restore(Saved.fresh(vector(5), LAYOUT.parameters))
    assert made.spoiled
    assert not made.lent
    for one, other in ((made.x, twin.x), (made.slow, twin.slow), (made.learner, twin.learner)):
        assert np.array_equal(one, other)
    assert np.array_equal(made.momentum, twin.momentum)
    assert not made.progress(slot, applied=True, lent=True, later=True), "the next at once"


def test_what_was_found_finite_is_not_looked_through_again() -> None:
    made, _ = closed()
    slot = made.learner + vector(2)
    assert made.progress(slot, applied=True, lent=True, later=True)
    made.found_finite()
    slot[77] = np.nan  # which nobody would do
    assert np.isnan(made.x[77])


def test_a_lent_snapshot_is_x_until_the_period_closes() -> None:
    made, area, slot = replica(), np.empty(LAYOUT.size, np.float32), vector(1)
    assert made.progress(slot, applied=True, lent=True)
    assert made.lent
    assert np.shares_memory(made.x, slot)
    made.mix(difference(made.x, 3)[0], (0.5, 0.5))
    assert made.outer_step(OuterStep(), area)
    assert not made.lent
    after = made.x.copy()
    slot.fill(np.nan)
    assert np.array_equal(made.x, after)
    made.applied()
    np.copyto(slot, after)
    slot[0] = np.inf
    assert not made.progress(slot, applied=True, lent=True)
    assert not made.lent, "what is not finite is not kept"
    assert np.array_equal(made.x, after)
    slot[0] = after[0]
    assert made.progress(slot, applied=True, lent=True)
    made.rest()
    assert not made.lent
    slot.fill(np.nan)
    assert np.array_equal(made.x, after)


def test_movement_is_the_learners_until_a_period_has_closed() -> None:
    made = replica()
    made.moving()[:64] += 5  # an exchange is no movement
    for _ in range(2):
        snapshot = made.learner.copy()
        snapshot[3] -= 1
        snapshot[129] += 0.5
        snapshot[-1] += 9  # a buffer is not quantised
        made.progress(snapshot, applied=False)
    assert np.allclose(made.movement(), [2, 0, 1], atol=1e-6)
    made.rest()
    assert not made.movement().any(), "without training scales follow the distance alone"


def test_then_movement_is_the_last_periods() -> None:
    made, area = replica(), np.empty(LAYOUT.size, np.float32)
    for period, by in enumerate((1.0, 2.0, 4.0)):
        before = made.movement().copy()
        snapshot = made.x.copy()
        snapshot[70] += by
        snapshot[-1] += 9
        assert made.progress(snapshot, applied=True)
        if period:
            assert np.array_equal(made.movement(), before)
        made.outer_step(OuterStep(), area)
        made.applied()
        assert np.allclose(made.movement(), [0, by, 0], atol=1e-6)
    made.replace(vector(1))
    assert not made.movement().any(), "of another model"


def test_a_snapshot_is_at_hand_where_x_follows_and_nothing_moved_it() -> None:
    made, area = replica(), np.empty(LAYOUT.size, np.float32)
    assert not made.at_hand, "nothing tells how far blocks move"
    assert made.progress(made.learner + vector(1), applied=True)
    assert made.outer_step(OuterStep(), area)
    assert not made.at_hand, "the learner has yet to add an increment"
    made.applied()
    assert made.at_hand
    mine, _ = difference(made.x, 2)
    made.mix(mine, (0.5, 0.5))
    assert not made.at_hand
