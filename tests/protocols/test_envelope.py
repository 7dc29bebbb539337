"""Envelopes: what is signed is what is read, once, from whom it is."""

from array import array
from collections import defaultdict
from random import Random

import pytest

from covey.protocols import limits, packing
from covey.protocols.envelope import (
    ENVELOPE_BYTES,
    Hash,
    Opened,
    ReplayWindow,
    Scope,
    Sealer,
    announce,
    announced,
    open_sealed,
)
from covey.protocols.errors import Forged, Malformed, RemoteError, Stale, TooLarge, Unsupported
from covey.protocols.identity import Identity, PeerId
from covey.protocols.messages import Busy, ExchangeMessage
from tests.protocols.examples import EXCHANGE, Sealed, sealed

NODE, OTHER = Identity(b"n" * 32), Identity(b"o" * 32)
SCOPE = Scope(b"s" * 32, b"l" * 32)
BUSY = Busy(b"e" * 16)


def made(message: ExchangeMessage = BUSY, payload: bytes | memoryview = b"") -> Sealed:
    return sealed(Sealer(NODE, b"i" * 16), SCOPE, message, payload)


def read(letter: Sealed, sender: PeerId = NODE.peer, swarm: bytes = SCOPE.swarm) -> Opened:
    return open_sealed(letter.envelope, letter.announcement, sender, swarm)


@pytest.mark.parametrize("message", EXCHANGE, ids=lambda message: type(message).__name__)
def test_what_is_sealed_is_opened(message: ExchangeMessage) -> None:
    letter = made(message, b"payload")
    assert len(letter.envelope) == ENVELOPE_BYTES
    opened = read(letter)
    assert opened == Opened(
        layout=SCOPE.layout,
        instance=b"i" * 16,
        sequence=1,
        payload_length=7,
        payload_hash=Hash(b"payload").digest(),
    )
    opened.check(Hash(b"payload").digest())
    for wrong in (b"", b"payloae", b"payload\0"):
        with pytest.raises(Forged, match="does not match its signed hash"):
            opened.check(Hash(wrong).digest())


@pytest.mark.parametrize("part", Sealed._fields)
def test_every_bit_is_signed(part: str) -> None:
    letter = made()
    data = getattr(letter, part)
    for place in range(len(data)):
        for bit in range(8):
            wrong = bytearray(data)
            wrong[place] ^= 1 << bit
            with pytest.raises((Forged, Unsupported)):  # the latter of the version
                read(letter._replace(**{part: bytes(wrong)}))


def test_a_seal_is_for_one_announcement() -> None:
    letter = made()
    for other in (b"", letter.announcement + b"\0", announce(Busy(b"f" * 16))):
        with pytest.raises(Forged):
            read(letter._replace(announcement=other))


def test_a_seal_is_of_one_sender_for_one_swarm() -> None:
    for sender, swarm in ((OTHER.peer, SCOPE.swarm), (NODE.peer, b"o" * 32)):
        with pytest.raises(Forged, match="the signature is not"):
            read(made(), sender, swarm)


def test_a_signature_of_something_else_is_worth_nothing() -> None:
    """The domain in front keeps signatures of other protocols from being envelopes."""
    letter = made()
    head = letter.envelope[:-64]
    plain = SCOPE.swarm + NODE.peer.key + head + letter.announcement
    for signed in (head, head + letter.announcement, plain):
        with pytest.raises(Forged):
            read(letter._replace(envelope=head + NODE.sign(signed)))


def test_other_versions_and_lengths_are_named() -> None:
    letter = made()
    newer = b"\x03" + letter.envelope[1:]
    for envelope in (newer, newer + b"more"):
        with pytest.raises(Unsupported, match="envelope version 3, not 2"):
            read(letter._replace(envelope=envelope))
    for envelope in (b"", letter.envelope[:-1], letter.envelope + b"\0"):
        with pytest.raises(Malformed, match=f"of {len(envelope)} bytes, not {ENVELOPE_BYTES}"):
            read(letter._replace(envelope=envelope))


def test_a_payload_is_counted_in_bytes() -> None:
    floats = memoryview(array("f", range(10)))
    opened = read(made(BUSY, floats))
    assert opened.payload_length == 40
    opened.check(Hash(floats.cast("B")).digest())


def test_sequences_grow_within_a_boot() -> None:
    sealer = Sealer(NODE, b"i" * 16)
    found = [read(sealed(sealer, SCOPE, BUSY)).sequence for _ in range(5)]
    assert found == [1, 2, 3, 4, 5]


# --- replays ------------------------------------------------------------------------------------


def admitted(window: ReplayWindow, sender: PeerId, instance: bytes, sequence: int) -> bool:
    try:
        window.admit(sender, instance, sequence)
    except Stale:
        return False
    return True


@pytest.mark.parametrize("seed", range(5))
def test_window_against_a_plain_set(seed: int) -> None:
    """In any order, loss or repetition: once each, unless too far below the highest."""
    rng, window = Random(seed), ReplayWindow()
    senders = [(PeerId(bytes([n]) * 32), bytes([boot]) * 16) for n in range(3) for boot in range(2)]
    seen: dict[tuple[PeerId, bytes], set[int]] = defaultdict(set)
    at = dict.fromkeys(senders, 0)
    for _ in range(4000):
        sender = rng.choice(senders)
        at[sender] += rng.choice((0, 1, 1, 2, 50, 2000) if rng.random() < 0.05 else (0, 1, 2))
        sequence = max(0, at[sender] - rng.choice((0, 0, 1, 5, 1000, 1023, 1024, 1025, 5000)))
        highest = max(seen[sender], default=-1)
        fresh = sequence not in seen[sender] and highest - sequence < limits.REPLAY_WINDOW
        assert admitted(window, *sender, sequence) == fresh
        if fresh:
            seen[sender].add(sequence)


def test_a_huge_jump_forgets_nothing_it_must_refuse() -> None:
    window, peer, boot = ReplayWindow(), NODE.peer, b"i" * 16
    assert admitted(window, peer, boot, 5)
    assert admitted(window, peer, boot, 2**62)
    assert not admitted(window, peer, boot, 2**62)
    assert not admitted(window, peer, boot, 5)
    assert admitted(window, peer, boot, 2**62 - 1)
    assert not admitted(window, peer, boot, 2**62 - limits.REPLAY_WINDOW)


def test_boots_do_not_mix() -> None:
    window = ReplayWindow()
    assert admitted(window, NODE.peer, b"1" * 16, 1)
    assert admitted(window, NODE.peer, b"2" * 16, 1)
    assert not admitted(window, NODE.peer, b"1" * 16, 1)


def test_senders_are_bounded_and_the_longest_silent_goes_first() -> None:
    window = ReplayWindow()
    peers = [PeerId(n.to_bytes(32, "big")) for n in range(limits.PEERS_MAX + 10)]
    for peer in peers:
        assert admitted(window, peer, b"i" * 16, 1)
        assert not admitted(window, peers[0], b"i" * 16, 1)  # even a replay is a sign of life
    assert len(window._seen) == limits.PEERS_MAX
    assert not admitted(window, peers[-1], b"i" * 16, 1)
    assert admitted(window, peers[1], b"i" * 16, 1)


@pytest.mark.parametrize("message", EXCHANGE, ids=lambda message: type(message).__name__)
def test_what_is_announced_is_read(message: ExchangeMessage) -> None:
    assert announced(announce(message)) == message


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Malformed),
        (packing.pack(["busy"]), Malformed),
        (packing.pack([5, {}]), Malformed),
        (packing.pack(["busy", {}]), Malformed),
        (packing.pack(["rumour", {}]), Unsupported),
        (bytes(limits.MESSAGE_BYTES_MAX + 1), TooLarge),
    ],
)
def test_announcements_that_make_no_sense(data: bytes, error: type[RemoteError]) -> None:
    with pytest.raises(error):
        announced(data)
