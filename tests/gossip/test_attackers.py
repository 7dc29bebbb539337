"""Members that lie: nothing but RemoteError comes of them, and no node moves beyond its bound.

The long run: COVEY_FUZZ=200000 pytest -o timeout=0 tests/gossip -k "fuzz or hostile"
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.gossip.core import Core, Outgoing
from covey.protocols.errors import RemoteError
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    ExchangeMessage,
    More,
    Propose,
    Refuse,
    Settled,
)

if TYPE_CHECKING:
    from tests.gossip.conftest import Flight, Flock

FUZZ = int(os.environ.get("COVEY_FUZZ", "2000"))
CODECS = ["mod4", "f32"]
Flocks = type["Flock"]
SPLIT, SIZE = 300, 320
NAN = np.float32("nan").tobytes()


def trained(flocks: Flocks, codec: str, size: int = 5, seed: int = 1) -> "Flock":
    """A flock with a history of exchanges, its last node about to turn."""
    flock = flocks(size, SPLIT, SIZE - SPLIT, Config(codec=codec), seed).scattered(0.0)
    for _ in range(12):
        flock.period(flock.moves(0.01))
    flock.outcomes.clear()
    return flock


def clips(core: Core) -> tuple[float, float]:
    bounds = core._bounds()
    return bounds.parameters.clip, bounds.buffers.clip


def learn(flock: "Flock", attack: Callable[[Core], None], periods: int = 25) -> float:
    """Periods in which the honest learn and the last node attacks as often as it may.

    Every exchange with it is checked against the clip of the node it meets; returns how far the
    honest mean went beyond the honest progress, relative to one honest exchange.
    """
    *honest, liar = flock.cores
    for _ in range(periods):
        for core, moved in zip(honest, flock.moves(0.01), strict=False):
            flock.learn(core, moved)
            core.open_period()
        for core in honest:
            flock.propose(core)
            flock.run()
        for victim in flock.rng.sample(honest, 2):
            attack(liar)
            liar.open_period(1)
            before, allowed = victim.replica.x.astype(np.float64), clips(victim)
            flock.propose(liar, [victim])
            flock.run()
            went = victim.replica.x - before
            assert np.linalg.norm(went[:SPLIT]) <= allowed[0] / 2 * 1.001
            assert np.linalg.norm(went[SPLIT:]) <= allowed[1] / 2 * 1.001
            assert np.isfinite(victim.replica.x).all()
        flock.wait()
        for core in honest:
            core.close_period(partners=20)
            flock.hand_over(core)
    assert all(isinstance(error, RemoteError) for error in flock.errors)
    return float(np.mean([clips(core)[0] for core in honest]))


def negate(core: Core) -> None:
    np.negative(core.replica.slow, out=core.replica.moving()[:SPLIT])


def noise(core: Core) -> None:
    spread = np.random.default_rng(core.due).standard_normal(SIZE) * 100
    core.replica.moving()[:] = spread.astype(np.float32)


def creep(core: Core) -> None:
    """Boiling the frog: always a little farther than is clipped."""
    core.replica.moving()[:] *= np.float32(1.02)


def buffers_only(core: Core) -> None:
    core.replica.moving()[SPLIT:] = 3e38


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("attack", [negate, noise, creep, buffers_only])
def test_a_liars_vector_moves_nobody_beyond_the_bound(
    flocks: Flocks, codec: str, attack: Callable[[Core], None]
) -> None:
    flock = trained(flocks, codec)
    before = float(np.mean([clips(core)[0] for core in flock.cores[:-1]]))
    centre = flock.x[:-1].mean(axis=0)
    after = learn(flock, attack)
    assert after < 12 * before, "the yard-stick of the honest stays an honest one"
    # The honest stay together: of 25 periods' progress, not of the liar's making.
    spread = np.linalg.norm(flock.x[:-1, :SPLIT] - flock.x[:-1, :SPLIT].mean(axis=0), axis=1)
    assert spread.max() < 20 * before
    drift = np.linalg.norm((flock.x[:-1].mean(axis=0) - centre)[:SPLIT])
    assert drift < 0.65 * np.linalg.norm(centre[:SPLIT])  # who creeps has gone that far itself
    honest = [o for o in flock.outcomes if o.peer != flock.cores[-1].me and not o.reason]
    assert len(honest) > 25, "and they go on exchanging"


@pytest.mark.parametrize("codec", CODECS)
def test_a_liars_scales_and_bounds_change_nothing(flocks: Flocks, codec: str) -> None:
    flock = trained(flocks, codec)
    liar = flock.cores[-1].me

    def exaggerate(flight: "Flight") -> "Flight":
        message, payload = flight.out.message, bytearray(flight.out.payload)
        if flight.sender == liar and isinstance(message, Propose | Accept):
            message = replace(message, reach=1e300, clip=1e300, buffers_clip=1e300)
            if codec == "mod4":
                payload[0:10] = b"\x00\x73" * 5  # the largest scale there is
        return replace(flight, out=Outgoing(flight.out.peer, message, bytes(payload)))

    before = float(np.mean([clips(core)[0] for core in flock.cores[:-1]]))
    flock.tamper = exaggerate
    assert learn(flock, negate) < 12 * before


@pytest.mark.parametrize("codec", CODECS)
def test_a_factor_beyond_the_bounds_is_forged(flocks: Flocks, codec: str) -> None:
    flock = trained(flocks, codec)
    *_, victim, liar = flock.cores

    def push(flight: "Flight") -> "Flight":
        message = flight.out.message
        if flight.sender == liar.me and isinstance(message, Settled):
            message = Settled(message.exchange, 1.0, 1.0)
        return replace(flight, out=flight.out._replace(message=message))

    flock.tamper = push
    before = victim.replica.x.copy()
    negate(liar)
    victim.open_period(1)
    flock.propose(victim, [liar])
    flock.run()
    assert [error.reason for error in flock.errors] == ["forged"]
    assert np.array_equal(victim.replica.x, before)


SPOIL: dict[str, Callable[[bytes], bytes]] = {
    "nan": lambda payload: payload[:-4] + NAN,
    "short": lambda payload: payload[:-1],
    "long": lambda payload: payload + b"\0",
    "empty": lambda payload: b"",
    "doubled": lambda payload: payload * 2,
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", [Propose, Accept, Commit])
@pytest.mark.parametrize("spoil", SPOIL)
def test_a_spoiled_payload_is_malformed_and_moves_nothing(
    flocks: Flocks, codec: str, kind: type, spoil: str
) -> None:
    flock = trained(flocks, codec, size=2)
    liar, victim = flock.cores if kind is not Accept else reversed(flock.cores)

    def spoiled(flight: "Flight") -> "Flight":
        out = flight.out
        if flight.sender == liar.me and isinstance(out.message, kind):
            out = out._replace(payload=SPOIL[spoil](bytes(out.payload)))
        return replace(flight, out=out)

    flock.tamper = spoiled
    before = victim.replica.x.copy()
    flock.exchange(0, 1)
    exact = codec == "f32" and kind is Propose  # no scales: nothing to shorten
    if exact and spoil in ("short", "empty", "doubled"):
        assert not flock.errors
        return
    assert [error.reason for error in flock.errors] == ["malformed"]
    assert np.array_equal(victim.replica.x, before)
    flock.wait()


@pytest.mark.parametrize("codec", CODECS)
def test_silence_and_refusals_cost_the_honest_only_their_time(flocks: Flocks, codec: str) -> None:
    flock = trained(flocks, codec, size=5)
    liar = flock.cores[-1].me
    flock.tamper = lambda flight: None if flight.sender == liar else flight
    for _ in range(5):
        flock.period(flock.moves(0.01))
    met = sum(not outcome.reason for outcome in flock.outcomes)
    assert met >= 0.7 * 5 * 4, "the other four find each other"


def test_fuzzed_messages_raise_remote_errors_only(flocks: Flocks) -> None:
    """Any message in any state, with honest, mutated or random bytes."""
    flock = trained(flocks, "mod4", size=3)
    victim, liar, friend = flock.cores
    rng = flock.noise
    made: list[tuple[ExchangeMessage, bytes]] = []
    bound = 0.0
    raised: set[str] = set()
    ends: set[str] = set()
    for number in range(FUZZ):
        if number % 50 == 0:
            victim.failed(liar.me, "timeout")
            liar.failed(victim.me, "timeout")
            flock.wait()
            victim.close_period(partners=20)
            victim.open_period(3)
            bound = clips(victim)[0]
        liar.config = Config(codec=CODECS[number % 2])
        message, payload = hostile(flock, made)
        before = victim.replica.x.astype(np.float64)
        try:
            answer = victim.receive(liar.me, message, payload, flock.now)
        except RemoteError as error:
            raised.add(error.reason)
        else:
            if answer is not None and rng.random() < 0.7:
                play(flock, answer, made)
        moved = np.linalg.norm((victim.replica.x - before)[:SPLIT])
        assert moved <= bound / 2 * 1.01
        bound = max(bound, clips(victim)[0])
        ends.update(outcome.reason for outcome in victim.outcomes())
        liar.outcomes()
        flock.now += 0.05
        if rng.random() < 0.2 and not victim.busy:
            out = victim.propose([liar.me], flock.now)
            if out is not None:
                made.append((out.message, bytes(out.payload)))
                play(flock, out, made)
    assert np.isfinite(victim.replica.x).all()
    assert {"malformed", "stale", "unsupported"} <= raised
    assert {"", "malformed", "unsupported", "busy", "refused"} <= ends, "it went everywhere"
    victim.failed(liar.me, "timeout")
    liar.failed(victim.me, "timeout")
    flock.wait()
    friend.begin(victim.replica.x, victim.lineage)
    flock.exchange(0, 2)
    assert {outcome.reason for outcome in flock.outcomes[-2:]} == {""}, "with a friend it works"


def play(flock: "Flock", out: Outgoing, made: list[tuple[ExchangeMessage, bytes]]) -> None:
    """The liar's honest code answers, which takes the fuzzer deep into an exchange."""
    victim, liar, _ = flock.cores
    try:
        answer = liar.receive(victim.me, out.message, out.payload, flock.now)
    except RemoteError:
        return
    if answer is not None:
        made.append((answer.message, bytes(answer.payload)))


def hostile(
    flock: "Flock", made: list[tuple[ExchangeMessage, bytes]]
) -> tuple[ExchangeMessage, bytes]:
    """A message of the liar: one that it would honestly send next, or not."""
    rng, (victim, liar, _) = flock.noise, flock.cores
    if not made and not liar.busy:
        liar.open_period(1)
        out = liar.propose([victim.me], flock.now)
        if out is not None:
            made.append((out.message, bytes(out.payload)))
    elif not made:
        liar.failed(victim.me, "bored")
    exchange = made[-1][0].exchange if made else rng.bytes(16)
    message, payload = made.pop() if made else (Commit(exchange), b"")
    if rng.random() < 0.15:
        kinds = (
            Accept(exchange, rng.bytes(16), *rng.random(2).tolist()),
            Busy(exchange),
            Commit(exchange),
            More(exchange),
            Propose(exchange, CODECS[rng.integers(2)], liar.lineage, *rng.random(2).tolist()),
            Refuse(exchange, "made up"),
            Settled(exchange, *rng.random(2).tolist()),
        )
        message = kinds[rng.integers(len(kinds))]
    return message, mutated(rng, payload)


def mutated(rng: np.random.Generator, payload: bytes) -> bytes:
    kind = rng.integers(10)
    if kind == 0:
        return rng.bytes(len(payload))
    if kind == 1:
        return rng.bytes(int(rng.integers(400)))
    if kind == 2:
        return payload[: int(rng.integers(len(payload) + 1))]
    out = bytearray(payload)
    if kind < 6 and out:
        for _ in range(int(rng.integers(1, 5))):
            out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)
