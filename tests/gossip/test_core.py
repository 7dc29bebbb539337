"""What all algorithms share: the model, the period's end, and that two of them never mix."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from covey.gossip.core import Core, candidates_of, refusal
from covey.gossip.replica import Saved
from covey.gossip.screening import Bound
from covey.protocols import limits
from covey.protocols.identity import PeerId
from covey.protocols.messages import Lineage, Refuse

if TYPE_CHECKING:
    from tests.gossip.conftest import Flock

Flocks = type["Flock"]


def two(flocks: Flocks) -> tuple[Core, Core]:
    """Two nodes of a flock, the smaller id first."""
    flock = flocks(2, seed=3).scattered(0.01)
    return flock.cores[0], flock.cores[1]


def test_it_begins_restores_and_measures(flocks: Flocks) -> None:
    core, _ = two(flocks)
    vector = np.full(200, 2, np.float32)
    core.begin(vector, Lineage(b"f" * 32, 7))
    assert core.lineage == Lineage(b"f" * 32, 7)
    assert core.relative(1.0) == pytest.approx(1 / np.linalg.norm(vector))
    momentum = np.ones(200, np.float32)
    core.restore(Saved(vector, vector * 3, momentum), Lineage(b"g" * 32, 9))
    assert np.array_equal(core.replica.slow, vector * 3)
    assert np.array_equal(core.replica.momentum, momentum)
    core.begin(np.zeros(200, np.float32), Lineage(b"f" * 32))
    assert core.relative(1.0) == 0.0


def test_another_model_of_the_same_beginning_keeps_the_yard_stick(flocks: Flocks) -> None:
    core, other = two(flocks)
    for _ in range(4):
        core._note(other.me, (0.5, 0.0))
    reach = core._bounds().parameters.reach
    core.begin(np.full(200, 2, np.float32), core.lineage)
    assert core._bounds().parameters == Bound(reach, reach)
    core.begin(np.full(200, 2, np.float32), Lineage(b"g" * 32))
    assert core._bounds().parameters.reach > 2 * reach, "of another it knows nothing"


def test_a_period_closes_with_an_outer_step_or_alone(flocks: Flocks) -> None:
    core, _ = two(flocks)
    start = core.replica.slow.copy()
    moved = core.replica.x - start
    core.close_period(partners=20)
    ahead = np.float32(0.7 * (1 + core.outer(20).momentum))
    assert np.allclose(core.replica.x, start + ahead * moved, atol=1e-6)
    assert core.lineage.age == 1
    assert core.progress(core.replica.learner + 1, applied=False)
    before = core.replica.x.copy()
    core.close_period(partners=0)
    assert np.array_equal(core.replica.x, before), "alone it trains plainly"
    assert not core.replica.momentum.any()
    assert core.lineage.age == 2


def test_at_the_end_the_last_step_looked_ahead_for_nothing(flocks: Flocks) -> None:
    core, _ = two(flocks)
    start = core.replica.slow.copy()
    moved = core.replica.x - start
    core.close_period(partners=20)
    known = core.replica.learner
    core.look_back()
    assert np.allclose(core.replica.x, start + np.float32(0.7) * moved, atol=1e-6)
    assert np.array_equal(core.replica.learner, known), "the increment is yet to come"
    assert not core.replica.momentum.any()
    back = core.replica.x.copy()
    core.look_back()
    assert np.array_equal(core.replica.x, back), "once"


def test_first_movements_are_measured_until_there_is_a_history(flocks: Flocks) -> None:
    """Of a model without buffers too, which has no distances between them."""
    core, _ = two(flocks)
    screen, _ = core._screens
    before = screen.moved
    core.progress(core.replica.learner + 1, applied=False)
    assert screen.moved == pytest.approx(before + 200**0.5)
    for number in range(core.config.screening.unscreened):
        core._note(PeerId(bytes([number]) * 32), (1.0, 0.0))
    before = screen.moved
    core.progress(core.replica.learner + 1, applied=False)
    assert screen.moved == before


def test_a_greatest_age_heard_of_breaks_nothing(flocks: Flocks) -> None:
    core, _ = two(flocks)
    core.begin(core.replica.x, Lineage(b"f" * 32, limits.AGE_MAX - 1))
    core.heard(Lineage(b"f" * 32, limits.AGE_MAX))
    core.close_period(partners=0)
    assert core.lineage.age == limits.AGE_MAX


def test_the_age_is_heard_within_a_flock_only(flocks: Flocks) -> None:
    core, _ = two(flocks)
    core.begin(core.replica.x, Lineage(b"f" * 32, 20))
    for founder, age, after in ((b"g", 22, 20), (b"f", 18, 20), (b"f", 22, 22), (b"f", 2000, 22)):
        core.heard(Lineage(founder * 32, age))
        assert core.lineage == Lineage(b"f" * 32, after)


def test_candidates_are_of_ones_own_flock() -> None:
    mine = Lineage(b"f" * 32, 10)
    a, b, c, d = (PeerId(bytes([i]) * 32) for i in range(4))
    standings = [
        (d, mine),
        (b, Lineage()),
        (c, Lineage(b"g" * 32, 10)),
        (a, Lineage(b"f" * 32, 20)),
    ]
    assert candidates_of(mine, standings) == [a, d]


def test_a_peer_does_not_name_our_counters() -> None:
    assert refusal(Refuse(bytes(16), "algorithm", "why")) == "algorithm"
    assert refusal(Refuse(bytes(16), "made up", "why")) == "refused"
