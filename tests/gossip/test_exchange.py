"""One exchange, message by message: what each side may send when, and what it moves."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip import quantiser
from covey.gossip.codecs import Buffer, payload_limit
from covey.gossip.exchange import Accepter, Proposer, State
from covey.gossip.screening import Bound, Bounds
from covey.protocols.errors import Forged, Malformed
from covey.protocols.identity import PeerId
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    Lineage,
    More,
    Propose,
    Refuse,
    Settled,
)
from tests.gossip.exchanges import BUFFERS, CODECS, ID, MOST, NONCE, OPEN, PARAMETERS, Pair

SHORT = [Propose, Accept, Commit, Settled]
LONG = [Propose, Accept, Commit, More, Commit, Settled]


@pytest.mark.parametrize(
    ("codec", "fine", "kinds"),
    [
        ("f32", 1.0, SHORT),
        ("mod4", 1.0, SHORT),
        ("mod4", 1 / 16, LONG),
        ("mod4", 1 / 256, LONG),
        ("mod4", 1e-5, LONG),
    ],
)
def test_the_messages_and_what_they_move(codec: str, fine: float, kinds: list[type]) -> None:
    pair = Pair(codec, fine)
    pair.run()
    assert pair.kinds == kinds
    a, b = pair.proposer, pair.accepter
    assert a.state is b.state is State.DONE
    assert a.factors == b.factors
    assert a.distances == b.distances
    limit = payload_limit(PARAMETERS, BUFFERS)
    assert all(len(payload) <= limit for _, payload in pair.messages)
    if fine < 1e-4:
        assert a.factors == (0.0, 0.0), "too many blocks were not decoded"
        assert not pair.moved[0].any()
        assert not pair.moved[1].any()
    else:
        assert a.factors == (1.0, 1.0)
        assert a.largest is not None
        assert b.largest is not None
        assert np.array_equal(a.largest, b.largest)
        assert np.abs(pair.x - pair.y).max() < 0.1 * fine
        assert np.allclose(pair.moved[0], -pair.moved[1], atol=1e-6)


@pytest.mark.parametrize(("fine", "kinds"), [(1 / 16, SHORT), (1 / 256, LONG)])
def test_a_few_unsure_blocks_cost_a_round_trip_only_if_two_layers_do_not_tell(
    fine: float, kinds: list[type]
) -> None:
    pair = Pair(fine=fine, few=True)
    pair.run()
    assert pair.kinds == kinds
    assert pair.proposer.factors == pair.accepter.factors == (1.0, 1.0)
    assert np.abs(pair.x - pair.y).max() < 0.1
    assert np.abs(pair.x - pair.y)[:64].max() < 0.1 * fine
    assert np.allclose(pair.moved[0], -pair.moved[1], atol=1e-6)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("mine", [True, False])
def test_the_gentler_side_clips_for_both(codec: str, mine: bool) -> None:
    tight = Bounds(Bound(1e18, 0.3), Bound(1e18, 0.1))
    pair = Pair(codec, 1.0, *((tight, OPEN) if mine else (OPEN, tight)))
    pair.run()
    for part, clip in ((slice(0, PARAMETERS), 0.3), (slice(PARAMETERS, None), 0.1)):
        for moved in pair.moved:
            assert np.linalg.norm(moved[part]) == pytest.approx(clip / 2, rel=1e-4)
    assert np.allclose(pair.moved[0], -pair.moved[1], atol=1e-6)


@pytest.mark.parametrize("codec", CODECS)
def test_the_gate_refuses_each_part_on_its_own(codec: str) -> None:
    split = PARAMETERS
    pair = Pair(codec, 1.0, Bounds(Bound(0.1, 0.1), Bound(1e18, 1e18)))
    pair.run()
    assert not pair.moved[0][:split].any()
    assert pair.moved[0][split:].any()
    pair = Pair(codec, 1.0, Bounds(Bound(1e18, 1e18), Bound(0.1, 0.1)))
    pair.run()
    assert pair.moved[1][:split].any()
    assert not pair.moved[1][split:].any()


@settings(max_examples=60)
@given(
    codec=st.sampled_from(CODECS),
    clips=st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)),
    factors=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_lying_factor_is_gentler_or_forged(
    codec: str, clips: tuple[float, float], factors: tuple[float, float]
) -> None:
    bounds = Bounds(Bound(1e18, clips[0]), Bound(1e18, clips[1]))
    pair = Pair(codec, 1.0, bounds)
    honest, payload = pair.settle()
    allowed = honest.factor, honest.buffers_factor
    lie = replace(honest, factor=factors[0], buffers_factor=factors[1])
    if any(f > most * 1.001 for f, most in zip(factors, allowed, strict=True)):
        with pytest.raises(Forged, match="a factor of"):
            pair.settled(lie, payload)
        assert not pair.moved[0].any()
    elif all(f <= most for f, most in zip(factors, allowed, strict=True)):
        pair.settled(lie, payload)
        split = slice(0, PARAMETERS), slice(PARAMETERS, None)
        for part, clip in zip(split, clips, strict=True):
            assert np.linalg.norm(pair.moved[0][part]) <= clip / 2 * 1.001


@pytest.mark.parametrize("fine", [1.0, 1 / 16, 1 / 256])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("mine", [True, False])
def test_no_exchange_undoes_much_of_what_either_side_learned(
    codec: str, fine: float, mine: bool
) -> None:
    """The other side is where this one began forty periods ago: a twentieth of the way counts."""
    pair = Pair(codec, fine)
    side, other = (pair.proposer, pair.y) if mine else (pair.accepter, pair.x)
    side._progress = pair.beginning(other, periods=40)
    answer, payload = pair.settle()
    assert answer.factor == pytest.approx(0.05, rel=0.02 if codec == "mod4" else 1e-4)
    assert answer.buffers_factor == 1.0
    if mine:
        lie = replace(answer, factor=answer.factor * 1.01)
        with pytest.raises(Forged, match="a factor of"):
            pair.settled(lie, payload)
    pair.settled(answer, payload)
    assert np.allclose(pair.moved[0], -pair.moved[1], atol=1e-6)


@pytest.mark.parametrize(("ratio", "factor"), [(1.0, 1.0), (1.1, 0.547), (1.3, 0.0)])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("mine", [True, False])
def test_an_outlier_moves_neither_side_by_more_than_either_grants(
    codec: str, mine: bool, ratio: float, factor: float
) -> None:
    """What it states now is what it always did; others state what we do."""
    usual, farther = Bound(60.0, 20.0), Bound(60.0 * ratio, 20.0 * ratio)
    ours, its = (Bounds(bound, OPEN.buffers) for bound in (usual, farther))
    pair = Pair(codec, mine=ours if mine else its, theirs=its if mine else ours)
    judge = pair.outliers[0 if mine else 1]
    for number in range(24):
        judge.note(PeerId(bytes([number]) * 32), usual, usual)
    answer, payload = pair.settle()
    assert answer.factor == pytest.approx(factor, abs=1e-3)
    assert answer.buffers_factor == 1.0
    pair.settled(answer, payload)
    assert np.allclose(pair.moved[0], -pair.moved[1], atol=1e-6)
    assert pair.moved[0][:PARAMETERS].any() == bool(factor)


@pytest.mark.parametrize("most", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_proposers_most_is_a_share(most: float) -> None:
    pair = Pair()
    payload = bytes(pair.commit())[:-4] + struct.pack("<f", most)
    with pytest.raises(Malformed, match="count for"):
        pair.committed(payload)


def test_a_refusal_of_the_gate_cannot_be_overruled() -> None:
    pair = Pair(mine=Bounds(Bound(0.1, 0.1), Bound(1e18, 1e18)))
    honest, payload = pair.settle()
    with pytest.raises(Forged, match="where 0 is allowed"):
        pair.settled(replace(honest, factor=1e-9), payload)


def test_a_peers_scales_do_not_become_ours() -> None:
    """What is remembered of a difference is at most what our own scales could express."""
    pair = Pair()
    huge = quantiser.pack_scales(
        np.full(quantiser.blocks_in(PARAMETERS), 1e20, np.float32)
    ).tobytes()
    propose, _ = pair.proposer.propose(Lineage())
    pair.accepter.accept(propose, huge, NONCE)
    size = pair.accepter.coder.layer_size()
    pair.committed(bytes(size) + struct.pack("<f", 1.0))
    assert pair.accepter.largest is not None
    assert pair.accepter.largest.max() <= quantiser.RANGE_PER_SCALE * 0.11


def test_what_each_state_expects() -> None:
    pair = Pair(fine=1 / 256)
    every = {
        Propose: pair.proposer.propose(Lineage())[0],
        Accept: Accept(ID, NONCE, 1.0, 1.0),
        Commit: Commit(ID),
        More: More(ID),
        Settled: Settled(ID, 1.0),
        Busy: Busy(ID),
        Refuse: Refuse(ID, "codec"),
    }

    def expected(role: Proposer | Accepter) -> set[type]:
        return {kind for kind, message in every.items() if role.expects(message)}

    assert expected(pair.proposer) == {Accept, Busy, Refuse}
    payload = pair.commit()
    assert expected(pair.proposer) == {More, Settled}
    assert expected(pair.accepter) == {Commit, Refuse}
    pair.committed(payload)
    assert pair.accepter.state is State.CONTINUED
    assert expected(pair.accepter) == {Commit, Refuse}
    done = Pair()
    done.run()
    assert expected(done.proposer) == expected(done.accepter) == set()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("change", [-1, 1])
def test_any_payload_of_another_size_is_malformed(codec: str, change: int) -> None:
    def resized(payload: Buffer) -> bytes:
        return bytes(payload)[:-1] if change < 0 else bytes(payload) + b"\0"

    pair = Pair(codec)
    propose, scales = pair.proposer.propose(Lineage())
    if codec == "mod4" or change > 0:
        with pytest.raises(Malformed):
            pair.accepter.accept(propose, resized(scales), NONCE)
    pair = Pair(codec)
    accept, payload = pair.accept()
    with pytest.raises(Malformed):
        pair.accepted(accept, resized(payload))
    pair = Pair(codec)
    payload = pair.commit()
    with pytest.raises(Malformed):
        pair.committed(resized(payload))
    pair = Pair(codec)
    settled, payload = pair.settle()
    if change > 0:
        with pytest.raises(Malformed):
            pair.settled(settled, resized(payload))
    assert not pair.moved[0].any()


@pytest.mark.parametrize("codec", CODECS)
def test_more_layers_than_are_needed_are_malformed(codec: str) -> None:
    pair = Pair(codec)
    pair.commit()
    for payload in (b"", bytes(33)):
        with pytest.raises(Malformed):
            pair.proposer.more(payload)


def test_settling_early_is_malformed() -> None:
    pair = Pair(fine=1 / 256)
    pair.commit()
    with pytest.raises(Malformed):
        pair.settled(Settled(ID, 1.0), b"")
    garbage = bytes(pair.proposer.coder.layer_size())
    with pytest.raises(Malformed, match="unsure"):
        pair.settled(Settled(ID, 1.0), garbage)
    assert not pair.moved[0].any()


def test_a_second_more_is_malformed() -> None:
    pair = Pair(fine=1 / 256)
    payload = pair.commit()
    more, payload = pair.committed(payload)
    assert isinstance(more, More)
    pair.proposer.more(payload)
    for again in (payload, b""):
        with pytest.raises(Malformed):
            pair.proposer.more(again)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("fine", [1.0, 1 / 16])
def test_both_layers_may_come_and_go_in_any_pieces(codec: str, fine: float) -> None:
    """The proposer's codes leave before the accepter's have come; the outcome is the same."""
    whole, pair = Pair(codec, fine), Pair(codec, fine)
    whole.run()
    accept, payload = pair.accept()
    block, scales = quantiser.layer_bytes(1), len(pair.proposer.coder.scales())
    view = memoryview(payload)
    pair.proposer.answered(accept)
    for place in range(scales):
        assert pair.proposer.layer is None
        pair.proposer.take(view[place : place + 1])
    assert pair.proposer.layer is not None
    sent = list(pair.proposer.layer)
    for place in range(scales, len(view), block):
        pair.proposer.take(view[place : place + block])
    sent.append(memoryview(pair.proposer.accepted()[1]))
    for piece in sent:
        pair.accepter.take(piece)
    settled, rest = pair.accepter.commit(MOST)
    if isinstance(settled, More):
        settled, rest = pair.committed(pair.proposer.more(rest)[1])
    else:
        pair.accepter.coder.apply(pair.y, pair.accepter.half())
    assert isinstance(settled, Settled)
    pair.settled(settled, rest)
    assert np.array_equal(pair.x, whole.x)
    assert np.array_equal(pair.y, whole.y)
    assert pair.moved[0].any()
