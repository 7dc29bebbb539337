"""Push-sum: mass is conserved whatever is lost, the mean is exact, and liars weigh little."""

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from covey.gossip.config import Config
from covey.gossip.core import Core, Outgoing
from covey.gossip.push_sum import PushSum
from covey.protocols import limits
from covey.protocols.errors import Malformed, Unsupported
from covey.protocols.messages import Busy, Lineage, Push, Pushed, Refuse, Settled
from tests.gossip.conftest import open_config
from tests.gossip.test_learning import PARAMETERS, School

if TYPE_CHECKING:
    from tests.gossip.conftest import Flight, Flock

PUSH = open_config(Config(algorithm="push-sum"))
GATED = Config(algorithm="push-sum")
Flocks = type["Flock"]


def of(core: Core) -> PushSum:
    assert isinstance(core, PushSum)
    return core


def mass(flock: "Flock") -> tuple[float, NDArray[np.float64]]:
    """Sums of w and of w x over all nodes."""
    weights = np.array([of(core).weight for core in flock.cores])
    assert (weights > 0).all()
    return float(weights.sum()), weights @ flock.x


def everybody_pushes(flock: "Flock", periods: int = 1) -> None:
    for _ in range(periods):
        for core in flock.cores:
            core.open_period()
        flock.mingle()


def settle_doubts(flock: "Flock") -> None:
    """From now on nothing is lost, and what was in doubt is repeated."""
    flock.loss = 0.0
    flock.tamper = lambda flight: flight
    while any(of(core).in_doubt for core in flock.cores):
        everybody_pushes(flock)


@settings(max_examples=40)
@given(
    size=st.integers(2, 9),
    loss=st.sampled_from([0.0, 0.1, 0.5]),
    periods=st.integers(1, 6),
    exchanges=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_mass_is_conserved_whatever_is_lost(
    flocks: Flocks, size: int, loss: float, periods: int, exchanges: int, seed: int
) -> None:
    config = replace(PUSH, exchanges=exchanges)
    flock = flocks(size, 60, 5, config, seed, loss).scattered(1.0)
    before = mass(flock)
    everybody_pushes(flock, periods)
    assert mass(flock)[0] <= before[0] + 1e-9, "what is in doubt is not counted twice"
    settle_doubts(flock)
    after = mass(flock)
    assert after[0] == pytest.approx(before[0], abs=1e-9)
    assert np.allclose(after[1], before[1], atol=1e-4)
    assert not flock.errors


@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("size", [2, 3, 16])
def test_all_agree_on_the_exact_mean(flocks: Flocks, size: int, loss: float) -> None:
    flock = flocks(size, 60, 5, PUSH, 7, loss).scattered(1.0)
    mean = flock.x.mean(axis=0)
    everybody_pushes(flock, 60)
    settle_doubts(flock)
    everybody_pushes(flock, 60)
    assert np.abs(flock.x - mean).max() < 1e-5


def test_links_in_one_direction_are_enough(flocks: Flocks) -> None:
    """A ring in which each can call only the next."""
    flock = flocks(5, 60, 0, PUSH, seed=7).scattered(1.0)
    mean = flock.x.mean(axis=0)
    for _ in range(250):
        for core, following in zip(flock.cores, [*flock.cores[1:], flock.cores[0]], strict=True):
            core.open_period()
            flock.propose(core, [following])
        flock.run()
    assert np.abs(flock.x - mean).max() < 1e-4


def test_a_push_moves_half_the_weight_and_the_sender_not_at_all(flocks: Flocks) -> None:
    flock = flocks(2, 60, 5, PUSH, seed=1).scattered(1.0)
    a, b = map(of, flock.cores)
    before = flock.x
    flock.exchange(0, 1)
    assert (a.weight, b.weight) == (0.5, 1.5)
    assert np.array_equal(flock.x[0], before[0])
    assert np.allclose(flock.x[1], before[1] + (before[0] - before[1]) / 3, atol=1e-6)
    assert [(o.reason, o.proposed) for o in flock.outcomes] == [("", True), ("", False)]
    assert flock.outcomes[0].distance == flock.outcomes[1].distance > 0
    assert a.due == 0


def losing(kind: type, times: int = 1) -> "object":
    """A network that loses the first messages of one kind."""
    left = times

    def tamper(flight: "Flight") -> "Flight | None":
        nonlocal left
        if isinstance(flight.out.message, kind) and left:
            left -= 1
            return None
        return flight

    return tamper


@pytest.mark.parametrize("lost", [Push, Pushed])
def test_a_lost_message_is_only_late(flocks: Flocks, lost: type) -> None:
    flock = flocks(3, 60, 0, PUSH, seed=1).scattered(1.0)
    a, b, c = map(of, flock.cores)
    before = mass(flock)
    flock.tamper = losing(lost)  # type: ignore[assignment]
    flock.exchange(0, 1)
    assert a.weight == 0.5
    assert b.weight == (1.5 if lost is Pushed else 1.0)
    assert len(a.in_doubt) == 1
    flock.exchange(0, 2)
    assert (a.weight, c.weight) == (0.25, 1.25), "others are pushed to meanwhile"
    flock.exchange(0, 1)
    assert not a.in_doubt
    assert (a.weight, b.weight) == (0.25, 1.5), "repeated, and taken in once"
    assert mass(flock)[0] == before[0]
    assert np.allclose(mass(flock)[1], before[1], atol=1e-5)


def test_a_repeated_push_is_answered_alike_whatever_has_become_of_us(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, PUSH, seed=1).scattered(1.0)
    a, b = map(of, flock.cores)
    b.accepting = False
    push = Outgoing(b.me, Push(bytes(16), 0.5, a.lineage), a.replica.x.tobytes())
    for _ in range(2):  # accepted the second time it would count, though it was taken back
        made = b.receive(a.me, push.message, push.payload, 0.0)
        assert made is not None
        assert isinstance(made.message, Refuse)
        b.accepting = True
    assert b.weight == 1.0


@pytest.mark.parametrize("answer", [Busy(bytes(16)), Refuse(bytes(16), "lineage")])
def test_what_is_refused_is_taken_back(flocks: Flocks, answer: Busy | Refuse) -> None:
    flock = flocks(2, 60, 0, PUSH, seed=1).scattered(1.0)
    a, b = map(of, flock.cores)
    before = a.replica.x.copy()
    a.open_period()
    out = a.propose([b.me], 0.0)
    assert out is not None
    assert a.busy
    refused = replace(answer, exchange=out.message.exchange)
    assert a.receive(b.me, refused, b"", 0.0) is None
    assert (a.weight, a.busy, a.in_doubt) == (1.0, False, [])
    assert np.allclose(a.replica.x, before, atol=1e-6)
    assert a.propose([b.me], 0.0) is None, "not again in this period"


def test_the_silent_are_given_up_after_a_while(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, PUSH, seed=1).scattered(1.0)
    a, b = map(of, flock.cores)
    flock.tamper = lambda flight: None
    flock.exchange(0, 1)
    assert a.deadline() == 30.0
    a.tick(29.9)
    assert a.weight == 0.5
    a.tick(30.0)
    assert (a.weight, a.in_doubt, a.deadline()) == (1.0, [], float("inf"))
    flock.exchange(0, 1)
    a.open_period()
    assert flock.propose(a, [b])
    a.tick(1e6)
    assert a.weight == 0.5, "not while its answer may still come"


def test_pushes_in_doubt_are_few(flocks: Flocks) -> None:
    flock = flocks(9, 60, 0, PUSH, seed=1).scattered(1.0)
    flock.tamper = lambda flight: None
    for number in range(1, 9):
        flock.cores[0].open_period()
        flock.propose(flock.cores[0], [flock.cores[number]])
        flock.run()
    assert len(of(flock.cores[0]).in_doubt) == 4
    assert of(flock.cores[0]).weight == 1 / 16


def test_who_only_gives_keeps_something(flocks: Flocks) -> None:
    flock = flocks(3, 60, 0, PUSH, seed=1).scattered(1.0)
    for _ in range(50):
        flock.cores[0].open_period()
        flock.propose(flock.cores[0])
        flock.run()
    assert 0 < of(flock.cores[0]).weight < 2.0**-9
    assert mass(flock)[0] == 3.0


def test_a_new_model_weighs_one_node(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, PUSH, seed=1).scattered(1.0)
    a = of(flock.cores[0])
    flock.tamper = lambda flight: None
    flock.exchange(0, 1)
    a.begin(np.ones(60, np.float32), Lineage(b"f" * 32))
    assert (a.weight, a.in_doubt, a.busy) == (1.0, [], False)


# --- liars ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.01, 1e300, float("inf"), float("nan")])
def test_a_weight_out_of_range_is_no_message(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        Push(bytes(16), weight, Lineage())


def test_a_flood_of_weight_is_turned_away(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, PUSH, seed=1).scattered(1.0)
    a, b = map(of, flock.cores)
    kinds = set()
    flock.tamper = lambda flight: None
    for number in range(200):
        if number % 8 == 0:  # the tamest of nodes, that gives but its due
            flock.exchange(1, 0)
            b.tick(1e6)
        push = Push(number.to_bytes(16, "big"), limits.PUSH_WEIGHT_MAX, a.lineage)
        made = b.receive(a.me, push, a.replica.x.tobytes(), 0.0)
        assert made is not None
        kinds.add(type(made.message))
    assert kinds == {Pushed, Busy}
    assert 63.0 <= b.weight <= 64.0


def test_a_node_that_does_not_push_itself_gathers_little(flocks: Flocks) -> None:
    """Such as one whose learner is gone."""
    flock = flocks(4, 60, 0, PUSH, seed=1).scattered(1.0)
    *pushing, idle = flock.cores
    for _ in range(40):
        for core in pushing:
            core.open_period()
            while flock.propose(core):
                flock.run()
    assert sum(o.peer == idle.me and not o.reason for o in flock.outcomes) == 8
    assert of(idle).weight < 3.75
    assert mass(flock)[0] == 4.0


def test_an_implausible_vector_moves_nobody(flocks: Flocks) -> None:
    flock = flocks(5, 60, 5, GATED, seed=1).scattered(0.0)
    for _ in range(10):
        flock.period(flock.moves(0.01))
    *honest, liar = map(of, flock.cores)
    flock.outcomes.clear()
    for victim in honest:
        before, reach = victim.replica.x.copy(), victim._bounds().parameters.reach
        liar.replica.moving()[:] = -before
        flock.exchange(4, flock.cores.index(victim))
        assert np.array_equal(victim.replica.x, before)
        liar.replica.moving()[:] = before
        liar.replica.moving()[0] += np.float32(0.99 * reach)
        flock.exchange(4, flock.cores.index(victim))
        assert np.linalg.norm(victim.replica.x - before) < reach
    assert {o.reason for o in flock.outcomes} == {"", "implausible"}
    assert liar.weight > 0


@settings(max_examples=200)
@given(payload=st.binary(max_size=300))
def test_any_payload_is_taken_or_refused(flocks: Flocks, payload: bytes) -> None:
    flock = flocks(2, 40, 5, PUSH, seed=2).scattered()
    a, b = flock.cores
    with suppress(Malformed):
        b.receive(a.me, Push(bytes(16), 1.0, a.lineage), payload, 0.0)
    assert np.isfinite(b.replica.x).all()


def test_messages_that_nobody_asked_for(flocks: Flocks) -> None:
    flock = flocks(3, config=PUSH, seed=2).scattered()
    a, b, c = map(of, flock.cores)
    assert a.receive(b.me, Pushed(bytes(16), 0.0), b"", 0.0) is None
    a.open_period()
    out = a.propose([b.me], 0.0)
    assert out is not None
    assert a.receive(c.me, Pushed(out.message.exchange, 0.0), b"", 0.0) is None
    assert a.busy
    with pytest.raises(Unsupported):
        a.receive(b.me, Settled(out.message.exchange, 1.0), b"", 0.0)
    assert not a.busy
    assert len(a.in_doubt) == 1


# --- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_it_learns_as_one_would_with_all_data(flocks: Flocks, loss: float) -> None:
    config = replace(GATED, exchanges=2)
    learners = School(flocks(8, PARAMETERS, 0, config, seed=3, loss=loss), seed=5)
    learners.train(30)
    assert np.mean(learners.accuracies) > learners.centralised - 0.05
    for core in learners.flock.cores:
        core.replica.rest()
    settle_doubts(learners.flock)
    everybody_pushes(learners.flock, 10)
    assert min(learners.accuracies) > learners.centralised - 0.03
