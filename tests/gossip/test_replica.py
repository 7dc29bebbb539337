"""The node's vectors: no progress lost or counted twice, whatever order the learner's news have."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.config import OuterStep
from covey.gossip.quantiser import Floats
from covey.gossip.replica import Saved
from tests.gossip.replicas import LAYOUT, difference, replica, vector


def test_it_begins_at_rest() -> None:
    made = replica()
    assert np.array_equal(made.x, vector(0))
    assert np.array_equal(made.slow, made.x[: LAYOUT.parameters])
    assert not made.momentum.any()
    assert not made.movement().any()
    assert not made.history.typical().any()


def test_restoring_copies() -> None:
    saved = Saved.fresh(vector(1), LAYOUT.parameters)
    made = replica()
    made.restore(saved)
    saved.x[:] = 0
    assert np.array_equal(made.x, vector(1))
    made.restore(made.saved)
    assert np.array_equal(made.x, vector(1))


def test_progress_is_added_to_what_exchanges_did() -> None:
    made = replica()
    made.moving()[:] += 1  # an exchange
    snapshot = vector(0) + vector(1)
    assert made.progress(snapshot, applied=False)
    assert np.allclose(made.x, vector(0) + 1 + vector(1), atol=1e-6)
    assert np.array_equal(made.learner, snapshot)


def test_an_increment_is_what_the_learner_lacks() -> None:
    made = replica()
    out = np.empty_like(made.x)
    assert not made.increment(out), "nothing to hand over"
    made.moving()[:] += vector(1)
    assert made.increment(out)
    assert np.array_equal(out, made.x - made.learner)
    with pytest.raises(AssertionError):
        made.increment(out)
    made.applied()
    assert np.allclose(made.learner, made.x, atol=1e-6)
    made.applied()
    assert np.allclose(made.learner, made.x, atol=1e-6), "applied once only"


@given(st.integers(0, 2**32))
def test_nothing_is_lost_or_counted_twice(seed: int) -> None:
    """In any order of steps, exchanges, snapshots, increments and news of them, x ends as the sum
    of all that happened and the learner with it."""
    rng = Random(seed)
    made = replica()
    live = made.x.copy()  # the learner's own parameters
    total = live.astype(np.float64)
    increment, waiting = np.zeros_like(live), False  # given to the learner, which has not added it
    told = True  # the node knows that the last increment was added
    for turn in range(40):
        action = rng.randrange(5)
        move = vector(turn) * np.float32(0.1)
        if action == 0:
            live += move
            total += move
        elif action == 1:
            made.moving()[:] += move
            total += move
        elif action == 2:
            assert made.progress(live.copy(), applied=not waiting)
            told = told or not waiting
        elif action == 3 and made._unapplied is None:
            increment = np.empty_like(live)
            waiting = made.increment(increment)
            told = not waiting
        elif action == 4 and waiting:
            live += increment
            waiting = False
            if rng.random() < 0.5:
                made.applied()
                told = True
    if waiting:
        live += increment
    made.progress(live.copy(), applied=not told)
    if made.increment(out := np.empty_like(live)):
        live += out
    assert np.allclose(made.x, total, atol=1e-4)
    assert np.allclose(live, total, atol=1e-4)


class Plain:
    """What a replica is to do, each vector kept on its own; float64."""

    def __init__(self, begin: Floats) -> None:
        split = LAYOUT.parameters
        self.x, self.learner = begin.astype(np.float64), begin.astype(np.float64)
        self.slow, self.momentum = self.x[:split].copy(), np.zeros(split)

    def progress(self, snapshot: Floats) -> None:
        self.x += snapshot - self.learner
        self.learner = snapshot.astype(np.float64)

    def outer_step(self, step: OuterStep) -> None:
        split = LAYOUT.parameters
        moved = self.x[:split] - self.slow
        self.momentum = step.momentum * self.momentum + moved
        self.slow += step.rate * (moved + step.momentum * self.momentum)
        self.x[:split] = self.slow


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_what_passes_once_is_what_passes_each_for_itself(seed: int) -> None:
    """In any order of progress, exchanges, outer steps and increments, whoever looks in between."""
    rng, step = Random(seed), OuterStep(momentum=0.5, rate=0.7)
    made = replica()
    plain, live = Plain(made.x), made.x.copy()
    area, pending, told = np.zeros_like(live), False, True  # told: nothing is outstanding
    slot, lends = np.empty_like(live), rng.random() < 0.7
    for turn in range(30):
        action = rng.randrange(6)
        if not made.lent:
            slot.fill(np.nan)  # the learner may write there again
        if action == 0:
            live += vector(turn) * np.float32(0.01)
        elif action == 1:
            lent = lends and not made.lent
            place = slot if lent else np.empty_like(live)
            np.copyto(place, live)
            wrong, later = rng.random() < 0.2, lent and rng.random() < 0.7
            if wrong:
                place[rng.randrange(LAYOUT.parameters)] = np.inf
            fits = made.progress(place, applied=not pending, lent=lent, later=later)
            assert fits or wrong
            assert later or fits is not wrong
            if not wrong:
                plain.progress(live)
                told = told or not pending
        elif action == 2:
            codes, values = difference(made.x, rng.randrange(100))
            weights = rng.choice([(0.5, 0.5), (0.35, 0.0), (0.0, 0.5)])
            made.mix(codes, weights)
            split = LAYOUT.parameters
            plain.x += values * np.repeat(weights, (split, LAYOUT.size - split))
        elif action == 3:
            ready = made.outer_step(step, area if told else None)
            plain.outer_step(step)
            pending, told = pending or ready, told and not ready
        elif action == 4 and told:
            pending = made.increment(area)
            told = not pending
        elif action == 5 and pending:
            live += area
            plain.learner += area
            pending = False
            if rng.random() < 0.7:
                made.applied()
                told = True
        if rng.random() < 0.2:
            assert np.allclose(made.x, plain.x, atol=1e-5)
        lengths = [np.linalg.norm(part) for part in np.split(plain.x, [LAYOUT.parameters])]
        if rng.random() < 0.2:
            assert made.lengths() == pytest.approx(lengths, rel=1e-5)
    if pending:
        live += area
    assert made.progress(live.copy(), applied=not told)
    plain.learner += area if pending else 0
    plain.progress(live)
    assert np.allclose(made.x, plain.x, atol=1e-5)
    assert np.allclose(made.slow, plain.slow, atol=1e-5)
    assert np.allclose(made.momentum, plain.momentum, atol=1e-5)
    assert np.allclose(made.learner, live, atol=1e-6)


def test_x_is_written_by_those_who_say_so() -> None:
    with pytest.raises(ValueError, match="read-only"):
        replica().x[0] = 1


def test_in_step_with_its_learner_a_replica_keeps_no_second_model() -> None:
    """A round's vectors pass once: no copy of the learner's is made or read."""
    made, area = replica(), np.empty(LAYOUT.size, np.float32)
    live = made.x.copy()
    for turn in range(4):
        assert made._known is None
        live += vector(turn)
        assert made.progress(live.copy(), applied=True)
        made.mix(difference(made.x, turn)[0], (0.5, 0.5))
        assert made.outer_step(OuterStep(), area)
        live += area
        assert np.allclose(live, made.x, atol=1e-5)


def test_a_second_model_is_let_go_of_when_they_are_level_again() -> None:
    made, area = replica(), np.empty(LAYOUT.size, np.float32)
    made.moving()[:] += 1
    assert made._known is not None
    assert np.array_equal(made._known, vector(0)[: LAYOUT.parameters])
    assert made.increment(area)
    made.applied()
    assert made._known is None
    assert np.array_equal(made.learner, made.x)


def test_the_outer_step_leaves_buffers_alone() -> None:
    made = replica()
    made.moving()[:] += 1
    made.outer_step(OuterStep(momentum=0.5, rate=0.7))
    split = LAYOUT.parameters
    assert np.allclose(made.x[:split], vector(0)[:split] + 0.7 * 1.5, atol=1e-6)
    assert np.allclose(made.x[split:], vector(0)[split:] + 1, atol=1e-6)
    made.moving()[:split] += 1
    made.rest()
    assert np.array_equal(made.slow, made.x[:split])
    assert not made.momentum.any()


def test_restoring_forgets_how_far_others_were() -> None:
    made = replica()
    made.history.remember(np.array([1, 5, 0], np.float32))
    assert made.history.typical().any()
    made.restore(made.saved)
    assert not made.history.typical().any()


def test_who_is_given_another_model_trains_on_from_it_later() -> None:
    made, out = replica(), np.empty(LAYOUT.size, np.float32)
    assert made.trains_on(applied=False)
    made.replace(vector(1))
    assert not made.momentum.any()
    assert np.array_equal(made.slow, vector(1)[: LAYOUT.parameters])
    assert made.increment(out)
    assert not made.trains_on(applied=False)
    assert not made.trains_on(applied=True), "it stepped at the old one before it added this"
    assert made.progress(vector(2), applied=True, counts=False)
    assert np.array_equal(made.x, vector(1)), "what does not count moves nothing"
    assert np.array_equal(made.learner, vector(2))
    assert made.increment(out)
    assert not made.trains_on(applied=False)
    assert made.trains_on(applied=True), "near it before, at it since"
    assert made.progress(made.learner + out + 1, applied=True)
    assert np.allclose(made.x, vector(1) + 1, atol=1e-5)
    assert made.trains_on(applied=False)


@pytest.mark.parametrize("far", [1.0, 1e4, 1e8])
def test_a_model_given_to_a_learner_far_away_stays_what_it_is(far: float) -> None:
    """The learner's rounding, at its old place, must not become the model's."""
    made, out = replica(), np.empty(LAYOUT.size, np.float32)
    live = vector(2) * np.float32(far)
    assert made.progress(live.copy(), applied=True)
    made.replace(vector(1))
    for _ in range(2):
        if made.increment(out):
            live += out
            made.applied()
        assert made.progress(live.copy(), applied=True)
        assert np.allclose(made.x, vector(1), atol=1e-6)
    assert np.allclose(live, vector(1), atol=1e-6)


@pytest.mark.parametrize("size", [1e-24, 1.0, 1e30])
def test_lengths_are_told_whatever_the_size(size: float) -> None:
    made = replica()
    made.moving()[:] = np.float32(size)
    made.outer_step(OuterStep(0.0, 1.0))
    split = LAYOUT.parameters
    lengths = [size * np.sqrt(count) for count in (split, LAYOUT.size - split)]
    assert made.lengths() == pytest.approx(lengths, rel=1e-5)


def test_an_increment_from_before_does_not_take_the_learner_to_another_model() -> None:
    made, out = replica(), np.empty(LAYOUT.size, np.float32)
    made.moving()[:] += 1
    assert made.increment(out)
    made.replace(vector(1))
    made.applied()
    assert made.increment(out)
    made.applied()
    assert not made.trains_on(applied=False)


def test_who_is_where_it_was_sent_trains_on_from_there() -> None:
    made, out = replica(), np.empty(LAYOUT.size, np.float32)
    made.replace(made.x.copy())
    assert not made.trains_on(applied=False)
    assert not made.increment(out)
    assert made.trains_on(applied=False)
    made.restore(Saved.fresh(vector(1), LAYOUT.parameters))
    assert not made.trains_on(applied=False)
    made.learner_has(made.x)
    assert made.trains_on(applied=False)
