"""Pulling several and mixing robustly: what a round does, and what liars cannot do."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.aggregation import robust_mean
from covey.gossip.config import Config
from covey.gossip.core import Core
from covey.protocols.errors import Malformed, Unsupported
from covey.protocols.messages import Lineage, Pull, Pulled, Refuse, Settled
from tests.gossip.test_learning import PARAMETERS, School

if TYPE_CHECKING:
    from tests.gossip.conftest import Flight, Flock

CODECS = ["mod4", "f32"]
EXACT = Config(algorithm="robust-pull", codec="f32")
CODED = replace(EXACT, codec="mod4")
Flocks = type["Flock"]


def round_of(flock: "Flock", core: Core) -> None:
    core.open_period(1)
    while flock.propose(core):
        flock.run()


@pytest.mark.parametrize("size", [2, 3, 6, 12])
def test_a_round_is_the_robust_mean_of_all_pulled(flocks: Flocks, size: int) -> None:
    config = replace(EXACT, pulls=20)  # more than there are: everybody
    flock = flocks(size, 150, 30, config, seed=size).scattered(0.1)
    for core in flock.cores:
        core.close_period(partners=0)
    before = [core.replica.x.copy() for core in flock.cores]
    round_of(flock, flock.cores[0])
    own = before[0].copy()
    hostile = size // 5
    robust_mean(own[:150], [x[:150] for x in before[1:]], hostile)
    robust_mean(own[150:], [x[150:] for x in before[1:]], hostile)
    assert np.allclose(flock.cores[0].replica.x, own, atol=1e-6)
    for core, x in zip(flock.cores[1:], before[1:], strict=True):
        assert np.array_equal(core.replica.x, x), "who is asked does not move"
    assert [o.reason for o in flock.outcomes] == [""] * (size - 1)
    assert flock.cores[0].due == 0


def test_a_look_back_is_no_progress_to_be_mixed_again(flocks: Flocks) -> None:
    flock = flocks(3, 150, 30, EXACT, seed=3).scattered(0.1)
    core = flock.cores[0]
    for other in flock.cores:
        other.close_period(partners=20 if other is core else 0)
    ahead = core.replica.x.copy()
    core.look_back()
    assert not np.allclose(core.replica.x, ahead)
    before = [other.replica.x.copy() for other in flock.cores]
    round_of(flock, core)
    own = before[0].copy()
    robust_mean(own[:150], [x[:150] for x in before[1:]], 0)
    assert np.allclose(core.replica.x[:150], own[:150], atol=1e-6)


def test_who_alone_has_moved_keeps_its_progress(flocks: Flocks) -> None:
    """To a trimmed mean of where all are now it would be the liar."""
    flock = flocks(9, 150, 30, EXACT, seed=2).scattered(0.0)
    core = flock.cores[0]
    before, moved = core.replica.x.copy(), flock.moves(0.1)[0]
    flock.learn(core, moved)
    core.open_period(2)
    while flock.propose(core):
        flock.run()
    assert np.allclose(core.replica.x, before + moved, atol=1e-6)


def test_it_asks_as_many_as_configured_and_replaces_who_fails(flocks: Flocks) -> None:
    flock = flocks(12, config=replace(EXACT, pulls=4, attempts=3), seed=2).scattered()
    dead = {core.me for core in flock.cores[1:]}
    flock.tamper = lambda flight: None if flight.out.peer in dead else flight
    core = flock.cores[0]
    before = core.replica.x.copy()
    round_of(flock, core)
    assert len(flock.outcomes) == 6, "two more than wanted"
    assert len({outcome.peer for outcome in flock.outcomes}) == 6
    assert np.array_equal(core.replica.x, before)
    flock.outcomes.clear()
    dead = {flock.cores[1].me}
    round_of(flock, core)
    assert [o.reason for o in flock.outcomes].count("") == 4
    assert not np.array_equal(core.replica.x, before)


def test_too_few_answers_mix_nothing(flocks: Flocks) -> None:
    flock = flocks(11, config=EXACT, seed=2).scattered()
    answered = 0

    def few(flight: "Flight") -> "Flight | None":
        nonlocal answered
        answered += not flight.request
        return flight if flight.request or answered <= 3 else None

    flock.tamper = few
    before = flock.cores[0].replica.x.copy()
    round_of(flock, flock.cores[0])  # 2 of them may lie: 5 vectors at least must be there
    assert [o.reason for o in flock.outcomes].count("") == 3
    assert np.array_equal(flock.cores[0].replica.x, before)


def test_both_pull_from_each_other_at_once(flocks: Flocks) -> None:
    flock = flocks(8, config=CODED, seed=4).scattered(0.1, rested=True)
    before = flock.spread()
    for core in flock.cores:
        core.open_period()
    flock.mingle()
    assert not flock.errors
    assert {o.reason for o in flock.outcomes} <= {"", "undecoded"}
    for _ in range(11):  # the first few only find out how far apart they are
        for core in flock.cores:
            core.open_period()
        flock.mingle()
    assert flock.spread() < 1e-4 * before


def test_x_is_held_while_an_answer_is_awaited(flocks: Flocks) -> None:
    flock = flocks(3, config=EXACT, seed=2).scattered()
    a = flock.cores[0]
    a.open_period()
    assert flock.propose(a)
    assert a.busy
    assert not flock.propose(a)
    with pytest.raises(AssertionError, match="held"):
        a.progress(a.replica.learner, applied=False)
    a.failed(flock.cores[1].me, "lost", exchange=b"another")
    assert a.busy
    a.begin(np.ones(200, np.float32), Lineage(b"f" * 32))
    assert not a.busy, "a new model drops it"
    flock.run()
    assert np.array_equal(a.replica.x, np.ones(200))


def test_who_may_not_be_asked_says_so(flocks: Flocks) -> None:
    flock = flocks(2, config=EXACT, seed=2).scattered()
    a, b = flock.cores
    b.accepting = False
    round_of(flock, a)
    b.accepting, b.lineage = True, Lineage(b"z" * 32)
    round_of(flock, a)
    b.lineage = a.lineage
    strange = b.receive(a.me, Pull(bytes(16), "top-k", a.lineage), b"", 0.0)
    assert strange is not None
    assert isinstance(strange.message, Refuse)
    assert strange.message.reason == "codec"
    assert [o.reason for o in flock.outcomes] == ["not_ready", "lineage"]


def test_messages_that_nobody_asked_for(flocks: Flocks) -> None:
    flock = flocks(3, config=EXACT, seed=2).scattered()
    a, b, c = flock.cores
    assert a.receive(b.me, Pulled(bytes(16), bytes(16)), b"", 0.0) is None
    a.open_period()
    out = a.propose([b.me], 0.0)
    assert out is not None
    assert a.receive(c.me, Pulled(out.message.exchange, bytes(16)), b"", 0.0) is None
    assert a.busy
    with pytest.raises(Unsupported):
        a.receive(b.me, Settled(out.message.exchange, 1.0), b"", 0.0)
    assert not a.busy


@settings(max_examples=200)
@given(payload=st.binary(max_size=300), codec=st.sampled_from(CODECS))
def test_any_payload_is_taken_or_refused(flocks: Flocks, payload: bytes, codec: str) -> None:
    flock = flocks(2, 40, 5, replace(EXACT, codec=codec), seed=2).scattered()
    a, b = flock.cores
    a.open_period()
    out = a.propose([b.me], 0.0)
    assert out is not None
    for sender, receiver, message in (
        (b, a, Pulled(out.message.exchange, bytes(16))),
        (a, b, Pull(bytes(16), codec, a.lineage)),
    ):
        with suppress(Malformed):
            receiver.receive(sender.me, message, payload, 0.0)
    assert np.isfinite(a.replica.x).all()
    assert not a.busy


def test_numbers_beyond_all_bounds_are_refused(flocks: Flocks) -> None:
    flock = flocks(2, 40, 5, EXACT, seed=2).scattered()
    before = flock.x[0]
    flock.cores[1].replica.moving()[:] = 3e38
    round_of(flock, flock.cores[0])
    assert [o.reason for o in flock.outcomes] == ["implausible"]
    assert np.array_equal(flock.x[0], before)


def negate(core: Core) -> None:
    np.negative(core.replica.slow, out=core.replica.moving()[: len(core.replica.slow)])


def noise(core: Core) -> None:
    wild = np.random.default_rng(core.lineage.age).standard_normal(len(core.replica.x))
    core.replica.moving()[:] = wild.astype(np.float32) * 100


def outgrow(core: Core) -> None:
    core.replica.moving()[:] *= np.float32(1.5)


@pytest.mark.parametrize(
    ("attack", "codec"), [(negate, "mod4"), (noise, "mod4"), (outgrow, "mod4"), (negate, "f32")]
)
def test_a_fifth_of_liars_spoils_nothing(
    flocks: Flocks, attack: Callable[[Core], None], codec: str
) -> None:
    config = replace(EXACT, codec=codec)
    learners = School(flocks(20, PARAMETERS, 0, config, seed=3), seed=5)
    liars = learners.flock.cores[16:]
    for _ in range(20):
        learners.train(1)
        for liar in liars:
            attack(liar)
    assert np.mean(learners.accuracies[:16]) > learners.centralised - 0.05


@pytest.mark.parametrize("codec", CODECS)
def test_it_learns_as_one_would_with_all_data(flocks: Flocks, codec: str) -> None:
    learners = School(flocks(8, PARAMETERS, 0, replace(EXACT, codec=codec), seed=3), seed=5)
    learners.train(25)
    assert min(learners.accuracies) > learners.centralised - 0.04


def test_it_learns_though_nodes_move_one_after_the_other(flocks: Flocks) -> None:
    """As they do without a common clock."""
    flock = flocks(8, PARAMETERS, 0, CODED, seed=3)
    learners = School(flock, seed=5)
    for _ in range(25):
        for core, shard in zip(flock.cores, learners.shards, strict=True):
            flock.learn(core, shard.descend(core.replica.learner, 10))
            round_of(flock, core)
            core.close_period(partners=20)
            flock.hand_over(core)
    assert min(learners.accuracies) > learners.centralised - 0.04


def test_the_code_is_seven_times_smaller(flocks: Flocks) -> None:
    sizes = {}
    for config in (EXACT, CODED):
        flock = flocks(2, 64_000, 0, config, seed=2).scattered(0.1)
        carried: list[int] = []

        def weigh(flight: "Flight", carried: list[int] = carried) -> "Flight":
            carried.append(len(flight.out.payload))
            return flight

        flock.tamper = weigh
        round_of(flock, flock.cores[0])
        sizes[config.codec] = sum(carried) / 64_000
    assert sizes["f32"] == 4.0
    assert sizes["mod4"] == pytest.approx(0.5 + 1 / 64 + 2 * 2 / 64, abs=0.001)
