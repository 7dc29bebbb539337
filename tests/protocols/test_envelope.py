"""Envelopes: what is signed is what is read, once, from whom it is."""

from array import array
from collections import defaultdict
from random import Random
from typing import Any

import pytest

from covey.protocols import limits, packing
from covey.protocols.envelope import (
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
from tests.protocols.examples import EXCHANGE

NODE = Identity(b"n" * 32)
SCOPE = Scope(b"s" * 32, b"l" * 32)
BUSY = Busy(b"e" * 16)


def sealed(message: ExchangeMessage = BUSY, payload: bytes | memoryview = b"") -> bytes:
    return Sealer(NODE, b"i" * 16).seal(SCOPE, message, payload)


def forged(**changed: Any) -> bytes:
    """A header that NODE signs although it is wrong."""
    parts = packing.unpack(sealed()[:-64], limits.HEADER_BYTES_MAX)
    parts[0] |= changed
    signed = packing.pack(parts)
    return signed + NODE.sign(b"covey/envelope/1\0" + signed)


@pytest.mark.parametrize("message", EXCHANGE, ids=lambda message: type(message).__name__)
def test_what_is_sealed_is_opened(message: ExchangeMessage) -> None:
    opened = open_sealed(sealed(message, b"payload"))
    assert opened == Opened(
        sender=NODE.peer,
        instance=b"i" * 16,
        sequence=1,
        scope=SCOPE,
        message=message,
        payload_length=7,
        payload_hash=Hash(b"payload").digest(),
    )
    opened.check(b"payload")
    for wrong in (b"", b"payloae", b"payload\0"):
        with pytest.raises(Forged, match="does not match its signed hash"):
            opened.check(wrong)


def test_every_bit_of_a_header_is_signed() -> None:
    data = sealed()
    for place in range(len(data)):
        for bit in (0, 3, 7):
            wrong = bytearray(data)
            wrong[place] ^= 1 << bit
            with pytest.raises(RemoteError):
                open_sealed(bytes(wrong))


def test_a_header_cannot_be_claimed_by_another() -> None:
    with pytest.raises(Forged, match="the signature is not"):
        open_sealed(forged(sender=Identity(b"o" * 32).peer.key))


def test_a_signature_of_something_else_is_worth_nothing() -> None:
    """The domain in front keeps signatures of other protocols from being headers."""
    signed = sealed()[:-64]
    with pytest.raises(Forged):
        open_sealed(signed + NODE.sign(signed))


@pytest.mark.parametrize(
    ("changed", "error", "why"),
    [
        ({"version": 2}, Unsupported, "envelope version 2, not 1"),
        ({"version": None}, Malformed, "version is not int"),
        ({"version": True}, Malformed, "version is not int"),
        ({"kind": "party"}, Unsupported, "unknown message 'party'"),
        ({"kind": "k" * 4000}, Unsupported, "unknown message"),
        ({"kind": "accept"}, Malformed, "Accept lacks nonce"),
        ({"sender": b"x"}, Malformed, "wrong length"),
        ({"instance": b"x"}, Malformed, "wrong length"),
        ({"payload_hash": b"x"}, Malformed, "wrong length"),
        ({"sequence": -1}, Malformed, "out of range"),
        ({"sequence": 2**63}, Malformed, "out of range"),
        ({"payload_length": -1}, Malformed, "out of range"),
    ],
)
def test_signed_nonsense_is_named(
    changed: dict[str, Any], error: type[RemoteError], why: str
) -> None:
    with pytest.raises(error, match=why):
        open_sealed(forged(**changed))


def test_sizes_are_checked_first() -> None:
    with pytest.raises(TooLarge, match="a header of 8193 bytes"):
        open_sealed(bytes(limits.HEADER_BYTES_MAX + 1))
    for short in (b"", bytes(63)):
        with pytest.raises(Malformed, match="shorter than its signature"):
            open_sealed(short)


@pytest.mark.parametrize("inside", [None, [], [1], [{}, {}, {}], {}, [{}, {}], [[], {}]])
def test_a_header_has_two_parts(inside: object) -> None:
    with pytest.raises(Malformed):
        open_sealed(packing.pack(inside) + bytes(64))


def test_a_deeply_nested_version_is_only_malformed() -> None:
    """To show it in the error recursed too deeply."""
    nested = b"\x92\x81\xa7version" + b"\x91" * 1000 + b"\xc0\xc0"
    with pytest.raises(Malformed):
        open_sealed(nested + bytes(64))


def test_a_payload_is_counted_in_bytes() -> None:
    floats = memoryview(array("f", range(10)))
    opened = open_sealed(sealed(BUSY, floats))
    assert opened.payload_length == 40
    opened.check(floats)


def test_sequences_grow_within_a_boot() -> None:
    sealer = Sealer(NODE, b"i" * 16)
    found = [open_sealed(sealer.seal(SCOPE, BUSY)).sequence for _ in range(5)]
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
        (bytes(limits.HEADER_BYTES_MAX + 1), TooLarge),
    ],
)
def test_announcements_that_make_no_sense(data: bytes, error: type[RemoteError]) -> None:
    with pytest.raises(error):
        announced(data)
