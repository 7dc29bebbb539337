"""Sizes on the wire, against messages that are really sealed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.core import Outgoing
from covey.protocols.envelope import Scope, Sealer
from covey.protocols.identity import Identity, PeerId
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    ExchangeMessage,
    Lineage,
    Propose,
    Push,
    Refuse,
    Settled,
)
from covey.simulate.wire import Wire
from tests.protocols.examples import sealed

NAME = b"e" * 16
PEER = PeerId(b"p" * 32)


def carried(message: ExchangeMessage, payload: bytes) -> int:
    identity, scope = Identity(b"i" * 32), Scope(b"s" * 32, b"l" * 32)
    parts = sealed(Sealer(identity, b"b" * 16), scope, message, payload)
    return len(parts.announcement) + len(payload) + len(parts.envelope)


def propose(age: int) -> Propose:
    return Propose(NAME, "mod4", Lineage(b"f" * 32, age), 1.5, 0.5)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 70_000)), min_size=1, max_size=8))
def test_a_size_is_that_of_the_sealed_message(drawn: list[tuple[int, int]]) -> None:
    wire = Wire()  # remembers envelopes from one message to the next
    for age, length in drawn:
        for message in (propose(age), Commit(NAME), Accept(NAME, NAME, age + 0.5, 1.0)):
            payload = bytes(length)
            assert wire.size(Outgoing(PEER, message, payload)) == carried(message, payload)


def test_a_whole_number_is_shorter_than_a_fraction() -> None:
    wire, length = Wire(), 100
    for weight in (0.25, 1, 0.75, 1.0):
        push = Push(NAME, weight, Lineage(b"f" * 32, 3))
        assert wire.size(Outgoing(PEER, push, bytes(length))) == carried(push, bytes(length))


@pytest.mark.parametrize(
    "message",
    [
        Busy(NAME),
        Settled(NAME, 0.5),
        Refuse(NAME, "lineage"),
        Refuse(NAME, "lineage", "far behind"),
    ],
)
def test_answers_without_payload_count_too(message: ExchangeMessage) -> None:
    wire = Wire()
    wire.size(Outgoing(PEER, Refuse(NAME, "algorithm", "another of these, and longer")))
    assert wire.size(Outgoing(PEER, message)) == carried(message, b"")
