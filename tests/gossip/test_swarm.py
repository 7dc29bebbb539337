"""The promises of a swarm of cores: the mean, its dynamics, contraction, crashes, replays."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.config import Config, OuterStep, Screening
from covey.gossip.core import Core, Outgoing
from covey.protocols.envelope import Hash, ReplayWindow, Scope, Sealer, announced, open_sealed
from covey.protocols.errors import Stale
from covey.protocols.identity import Identity, PeerId
from covey.protocols.messages import Accept, Commit, More, Propose, Refuse, Settled
from tests.protocols.examples import Sealed, sealed

if TYPE_CHECKING:
    from tests.gossip.conftest import Flight, Flock

CODECS = ["mod4", "f32"]
Flocks = type["Flock"]
Configs = Callable[..., Config]


def losing(kind: type) -> Callable[["Flight"], "Flight | None"]:
    """A network that loses all messages of one kind."""
    return lambda flight: None if isinstance(flight.out.message, kind) else flight


@settings(max_examples=30)
@given(
    size=st.integers(2, 9),
    parameters=st.integers(1, 300),
    buffers=st.integers(0, 70),
    codec=st.sampled_from(CODECS),
    apart=st.sampled_from([1e-4, 0.1, 30.0]),
    seed=st.integers(0, 2**32),
)
def test_exchanges_preserve_the_mean(
    flocks: Flocks, size: int, parameters: int, buffers: int, codec: str, apart: float, seed: int
) -> None:
    """Gate and clip on, everybody proposing at once: only float32 rounding is left."""
    config = Config(codec=codec, exchanges=2, screening=Screening(first_reach=16.0))
    flock = flocks(size, parameters, buffers, config, seed).scattered(apart)
    before, largest = flock.x.mean(axis=0), np.abs(flock.x).max()
    for _ in range(3):
        for core in flock.cores:
            core.open_period()
        flock.mingle()
    assert not flock.errors
    assert {outcome.reason for outcome in flock.outcomes} <= {"", "busy", "abandoned"}
    assert np.abs(flock.x.mean(axis=0) - before).max() < 1e-5 * largest
    assert flock.spread() < size * parameters * apart**2 / 2 or parameters < 20


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("lost", [Propose, Accept, Commit, More])
def test_a_message_lost_before_the_last_changes_nothing(
    flocks: Flocks, codec: str, lost: type
) -> None:
    flock = flocks(6, 5000, 10, Config(codec=codec), seed=4).scattered(0.3, rested=lost is More)
    flock.tamper = losing(lost)
    before = flock.x
    for _ in range(6):
        flock.match()
        flock.wait()
    if codec == "mod4" or lost is not More:
        assert any(outcome.reason == "lost" for outcome in flock.outcomes)
        assert np.array_equal(flock.x, before)


@pytest.mark.parametrize("codec", CODECS)
def test_a_crash_at_any_message_costs_half_a_difference_at_most(flocks: Flocks, codec: str) -> None:
    seen = set()
    for lost in (Propose, Accept, Commit, More, Settled):
        for seed in range(6):
            flock = flocks(2, 5000, 10, Config(codec=codec), seed=seed)
            flock.scattered(0.3, rested=lost is More)
            flock.tamper = losing(lost)
            before, apart = flock.x.sum(axis=0), np.linalg.norm(flock.x[0] - flock.x[1])
            flock.exchange(0, 1)
            flock.wait()
            drift = np.linalg.norm(flock.x.sum(axis=0) - before)
            assert drift <= apart / 2 * 1.02  # the code's noise included
            if drift > 1e-3 * apart:
                seen.add(lost)
    assert seen == {Settled}


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), loss=st.floats(0.05, 0.5), codec=st.sampled_from(CODECS))
def test_drift_under_loss_is_at_most_what_was_lost(
    flocks: Flocks, seed: int, loss: float, codec: str
) -> None:
    """Every lost answer moves the sum by half of that one difference, no more."""
    flock = flocks(5, 300, 5, Config(codec=codec), seed, loss).scattered(0.1)
    before = flock.x.sum(axis=0)
    for _ in range(10):
        flock.match()
        flock.wait()
    halves = [o.distance * o.factor / 2 for o in flock.outcomes if not o.reason and not o.proposed]
    proposed = [o for o in flock.outcomes if not o.reason and o.proposed]
    lost = len(halves) - len(proposed)
    assert lost >= 0
    most = sum(sorted(halves, reverse=True)[:lost])
    drift = np.linalg.norm((flock.x.sum(axis=0) - before)[: flock.layout.parameters])
    assert drift <= most + 1e-3


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [2, 7])
def test_the_mean_follows_one_centralised_nesterov_step(
    flocks: Flocks, unscreened: Configs, codec: str, size: int
) -> None:
    """Whatever the pairing, the losses before the last message, and the quantiser."""
    step = OuterStep(momentum=0.6, rate=0.8)
    config = unscreened(Config(codec=codec, exchanges=2, outer=step))
    flock = flocks(size, 150, 0, config, seed=3).scattered(0.0)
    rng = np.random.default_rng(8)
    # A Settled is never lost here: that is the one message that may move one side alone.
    flock.tamper = lambda flight: (
        None if not isinstance(flight.out.message, Settled) and rng.random() < 0.1 else flight
    )
    slow, momentum = flock.x.mean(axis=0), np.zeros(150)
    for _ in range(25):
        moves = rng.standard_normal((size, 150)).astype(np.float32) * np.float32(0.01)
        flock.period(list(moves))
        assert all(core.outer(20) == step for core in flock.cores)
        moved = moves.mean(axis=0, dtype=np.float64)
        momentum = step.momentum * momentum + moved
        slow = slow + step.rate * (moved + step.momentum * momentum)
        assert np.abs(flock.x.mean(axis=0) - slow).max() < 1e-5
    assert any(outcome.reason == "lost" for outcome in flock.outcomes)
    assert sum(not outcome.reason for outcome in flock.outcomes) > 25 * size


@pytest.mark.parametrize("size", [4, 8, 16])
def test_random_matchings_contract_as_the_formula_says(
    flocks: Flocks, unscreened: Configs, size: int
) -> None:
    """E V'/V = (n - 2) / (2 (n - 1)), of float32 exactly and of the codes but for their noise."""
    for codec in CODECS:
        ratios = []
        for seed in range(60):
            flock = flocks(size, 64, 0, unscreened(Config(codec=codec)), seed).scattered(1.0)
            before = flock.spread()
            flock.match()
            ratios.append(flock.spread() / before)
        error = np.std(ratios) / np.sqrt(len(ratios))
        expected = (size - 2) / (2 * (size - 1))
        noise = 0.03 if codec == "mod4" else 0.0
        assert abs(np.mean(ratios) - expected) < 4 * error + noise


@pytest.mark.parametrize("codec", CODECS)
def test_settling_brings_everybody_to_the_mean(flocks: Flocks, codec: str) -> None:
    flock = flocks(8, 500, 20, Config(codec=codec), seed=1).scattered(0.02, rested=True)
    mean = flock.x.mean(axis=0)
    for _ in range(60):
        flock.match()
    assert np.abs(flock.x - mean).max() < 1e-5


def test_the_same_seed_and_events_give_the_same_bytes(flocks: Flocks) -> None:
    def run(seed: int) -> tuple[str, bytes]:
        config = Config(exchanges=2)
        flock = flocks(5, 300, 7, config, seed, loss=0.1).scattered(0.05)
        for _ in range(5):
            flock.period(flock.moves(0.05))
        return flock.wire.hexdigest(), flock.x.tobytes()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_everybody_ends_free_whatever_is_lost(flocks: Flocks) -> None:
    """Nobody waits for one while holding another, so nothing can lock up."""
    for seed in range(10):
        flock = flocks(7, 64, 0, Config(exchanges=3), seed, loss=0.3).scattered()
        for _ in range(3):
            for core in flock.cores:
                core.open_period()
            flock.mingle()
            flock.wait()  # asserts that nobody is busy


def test_without_loss_nobody_even_waits(flocks: Flocks) -> None:
    for seed in range(10):
        flock = flocks(7, 64, 0, Config(exchanges=3), seed).scattered()
        for core in flock.cores:
            core.open_period()
        flock.mingle()
        assert not any(core.busy for core in flock.cores)
        done = sum(not outcome.reason for outcome in flock.outcomes)
        assert done >= 2 * 7  # each exchange counts on both sides


class Wire:
    """Envelopes round the messages of one flock, and a network that repeats them at will."""

    def __init__(self, flock: "Flock") -> None:
        self.flock = flock
        self.scope = Scope(bytes(32), flock.layout.digest)
        self.identities = [Identity(bytes([i]) * 32) for i in range(len(flock.cores))]
        for core, identity in zip(flock.cores, self.identities, strict=True):
            core.me = identity.peer
        flock.of = {core.me: core for core in flock.cores}
        self.sealers = {i.peer: Sealer(i, bytes(16)) for i in self.identities}
        self.windows = {i.peer: ReplayWindow() for i in self.identities}
        self.recorded: list[tuple[Core, PeerId, Sealed, bytes]] = []
        flock.tamper = self.seal

    def seal(self, flight: "Flight") -> "Flight":
        out = flight.out
        payload = bytes(out.payload)
        parts = sealed(self.sealers[flight.sender], self.scope, out.message, payload)
        self.recorded.append((self.flock.of[out.peer], flight.sender, parts, payload))
        return replace(flight, out=self.open(*self.recorded[-1]))

    def open(self, receiver: Core, sender: PeerId, parts: Sealed, payload: bytes) -> Outgoing:
        opened = open_sealed(parts.envelope, parts.announcement, sender, self.scope.swarm)
        opened.check(Hash(payload).digest())
        self.windows[receiver.me].admit(sender, opened.instance, opened.sequence)
        return Outgoing(receiver.me, announced(parts.announcement), payload)


def test_replays_in_any_order_are_stale(flocks: Flocks) -> None:
    flock = flocks(3, 100, 3, Config(), seed=2)
    wire = Wire(flock)
    flock.scattered()
    flock.match()
    flock.match()
    before = flock.x
    assert len(wire.recorded) >= 8
    flock.rng.shuffle(wire.recorded)
    for recorded in list(wire.recorded):
        with pytest.raises(Stale):
            wire.open(*recorded)
    assert np.array_equal(flock.x, before)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), codec=st.sampled_from(CODECS))
def test_late_messages_without_their_envelope_move_nothing(
    flocks: Flocks, seed: int, codec: str
) -> None:
    """Even if the replay window had forgotten them."""
    flock = flocks(3, 100, 3, Config(codec=codec), seed)
    recorded: list[Flight] = []

    def record(flight: "Flight") -> "Flight":
        recorded.append(flight)
        return flight

    flock.tamper = record
    flock.scattered()
    for _ in range(3):
        flock.match()
    before = flock.x
    flock.rng.shuffle(recorded)
    for flight in recorded:
        try:
            answer = flock.of[flight.out.peer].receive(
                flight.sender, flight.out.message, flight.out.payload, flock.now
            )
        except Stale:
            continue
        assert answer is None or isinstance(answer.message, Refuse)
    assert np.array_equal(flock.x, before)
    assert not any(core.busy for core in flock.cores)
