"""Every decoder against hostile inputs: only declared errors, bounded memory, nothing half right.

A few thousand inputs each by default; COVEY_FUZZ=200000 for the long run.
"""

import string
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from covey.protocols import certificates, invite, limits, link, messages, packing
from covey.protocols.envelope import Opened, Scope, Sealer, announce, announced, open_sealed
from covey.protocols.errors import RemoteError
from covey.protocols.identity import Identity, PeerId
from covey.protocols.invite import Invite
from covey.protocols.layout import Layout
from tests.protocols.examples import EXCHANGE, LAYOUT, MESSAGES, SECRET
from tests.protocols.fuzzing import COUNT, Mutator, Target, fuzz

pytestmark = pytest.mark.timeout(240 + COUNT // 200)

R = TypeVar("R")
LETTERS = string.ascii_letters + string.digits + "-=ıß \n"


def tree_bytes(data: bytes) -> int:
    """What decoding ``data`` may take: 72 bytes for an empty map, 20 times for short texts."""
    return 72 * min(len(data), limits.CONTAINERS_MAX) + 21 * len(data) + 64 * limits.KIB


def test_unpack() -> None:
    mutator = Mutator(1, [packing.pack(packing.to_map(message)) for message in MESSAGES])

    def make() -> bytes:
        if mutator.rng.random() < 0.7:
            return mutator.data()
        return packing.pack([mutator.value(6)] * mutator.rng.randrange(20))

    def check(value: Any) -> None:
        again = packing.unpack(packing.pack(value), limits.LAYOUT_BYTES_MAX)
        assert repr(again) == repr(value)  # equal but for NaN

    def decode(data: bytes) -> Any:
        return packing.unpack(data, limits.MESSAGE_BYTES_MAX)

    outcomes = fuzz(Target(decode, RemoteError, tree_bytes, check), make)
    assert set(outcomes) >= {"accepted", "Malformed"}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_from_map(message: Any) -> None:
    mutator, valid = Mutator(2), packing.to_map(message)

    def decode(value: Any) -> Any:
        return packing.from_map(type(message), value)

    def check(read: Any) -> None:
        sent = packing.unpack(packing.pack(packing.to_map(read)), limits.CONTROL_BYTES_MAX)
        assert packing.from_map(type(message), sent) == read

    def bytes_max(value: Any) -> int:
        return 2 * sys.getsizeof(value) + 64 * limits.KIB

    outcomes = fuzz(Target(decode, RemoteError, bytes_max, check), lambda: mutator.tree(valid))
    assert set(outcomes) >= {"accepted", "Malformed"}


def test_layout() -> None:
    mutator = Mutator(3, [LAYOUT.encoded])
    rows = packing.unpack(LAYOUT.encoded, limits.LAYOUT_BYTES_MAX)

    def make() -> bytes:
        return mutator.data() if mutator.rng.random() < 0.5 else mutator.packed(rows)

    def check(layout: Layout) -> None:
        assert Layout.decode(layout.encoded) == layout
        assert 0 <= layout.parameters <= layout.size <= limits.PARAMETERS_MAX
        difference = layout.difference(LAYOUT)
        assert (difference is None) == (layout.digest == LAYOUT.digest)
        assert difference is None or difference.isprintable()

    target = Target(Layout.decode, RemoteError, lambda data: 2 * tree_bytes(data), check)
    assert set(fuzz(target, make)) >= {"accepted", "Malformed"}


def test_open_sealed() -> None:
    """Also envelopes that a member has signed properly, whatever they say."""
    attacker, swarm, announcement = Identity(b"a" * 32), b"s" * 32, announce(EXCHANGE[0])
    sealer, scope = Sealer(attacker, b"i" * 16), Scope(swarm, LAYOUT.digest)
    valid = [sealer.seal(scope, announcement, length, bytes(32)) for length in (0, 7, 10**7)]
    mutator = Mutator(4, valid)
    inside = Mutator(5, [envelope[:-64] for envelope in valid])

    def make() -> bytes:
        if mutator.rng.random() < 0.5:
            return mutator.data()
        head = inside.data()
        signed = b"covey/envelope/2\0" + swarm + attacker.peer.key + head + announcement
        return head + attacker.sign(signed)

    def decode(envelope: bytes) -> Opened:
        return open_sealed(envelope, announcement, attacker.peer, swarm)

    def check(opened: Opened) -> None:
        assert opened.payload_length >= 0
        assert (len(opened.layout), len(opened.instance), len(opened.payload_hash)) == (32, 16, 32)

    outcomes = fuzz(Target(decode, RemoteError, tree_bytes, check), make)
    assert set(outcomes) >= {"accepted", "Malformed", "Unsupported", "Forged"}


def test_announced() -> None:
    valid = [announce(message) for message in EXCHANGE]
    trees = [packing.unpack(data, limits.MESSAGE_BYTES_MAX) for data in valid]
    mutator = Mutator(6, valid)

    def make() -> bytes:
        if mutator.rng.random() < 0.4:
            return mutator.data()
        return mutator.packed(mutator.rng.choice(trees))

    def check(message: messages.ExchangeMessage) -> None:
        assert announced(announce(message)) == message

    outcomes = fuzz(Target(announced, RemoteError, tree_bytes, check), make)
    assert set(outcomes) >= {"accepted", "Malformed", "Unsupported"}


class Undeclared(Exception):
    """A kind of ValueError that nobody promised."""


def plainly(parse: Callable[[str], R]) -> Callable[[str], R]:
    """``parse`` with only ValueError itself let through, not UnicodeError and its like."""

    def parsed(text: str) -> R:
        try:
            return parse(text)
        except ValueError as error:
            if type(error) is not ValueError:
                raise Undeclared from error
            raise

    return parsed


def test_invite() -> None:
    valid = [
        Invite("lab", SECRET, ("192.168.1.7:4711", "[fe80::1]:4711"), 2_000_000_000),
        Invite("a swarm", SECRET),
    ]
    mutator = Mutator(6, [packing.pack([i.name, i.secret, i.addresses, i.expires]) for i in valid])

    def make() -> str:
        if mutator.rng.random() < 0.4:
            return mutator.text([i.text for i in valid], LETTERS)
        data = mutator.data()
        if mutator.rng.random() < 0.5:
            data = mutator.packed(["lab", SECRET, ["h:1"], 0])
        return invite.spelled(data)  # with its checksum

    def check(read: Invite) -> None:
        assert invite.parse(read.text, now=0.0) == read

    parse = plainly(lambda text: invite.parse(text, now=1_900_000_000.0))
    target = Target(parse, ValueError, lambda text: 80 * len(text) + 64 * limits.KIB, check)
    assert set(fuzz(target, make)) >= {"accepted", "ValueError"}


def test_peer_id() -> None:
    valid = [Identity(bytes([n]) * 32).peer.text for n in range(20)]
    mutator = Mutator(7)

    def parse(text: str) -> tuple[str, PeerId]:
        return text, PeerId.parse(text)

    def check(read: tuple[str, PeerId]) -> None:
        text, peer = read
        assert peer.text.replace("-", "") == text.upper().replace("-", "").replace(" ", "")
        assert PeerId.parse(peer.text) == peer

    target = Target(plainly(parse), ValueError, lambda text: 64 * limits.KIB, check)
    outcomes = fuzz(target, lambda: mutator.text(valid, LETTERS))
    assert set(outcomes) >= {"accepted", "ValueError"}


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_certificate() -> None:
    """TLS shows us only leaves that the swarm's CA has signed, but any member can sign one."""
    valid = [certificates.leaf(SECRET, Identity(b"n" * 32)), certificates.authority(SECRET)]
    mutator = Mutator(8, valid)
    target: Target[bytes, PeerId] = Target(
        certificates.peer_of, RemoteError, lambda data: 4 * len(data) + 64 * limits.KIB
    )
    assert set(fuzz(target, mutator.data)) >= {"accepted", "Forged"}


FRAMES: list[link.Frame] = [
    link.Attach(1, LAYOUT.encoded, "digits", 77, "20 steps", messages.Lineage(b"f" * 32, 5)),
    link.Start(True, messages.Lineage(b"f" * 32, 5)),
    link.Snapshot(3, 60, 2),
    link.Pace(0.25),
    link.Log(("loss", "accuracy"), (0.5, 0.9)),
    link.SettledReport(None, 0, 0),
    link.Detach(),
]


def test_link_frames() -> None:
    streams = [link.encode(frame) for frame in FRAMES]
    streams += [b"".join(streams)]
    trees = [packing.unpack(link.encode(f)[4:], limits.LINK_FRAME_BYTES_MAX) for f in FRAMES]
    mutator = Mutator(9, streams)

    def make() -> bytes:
        if mutator.rng.random() < 0.5:
            return mutator.data()
        body = mutator.packed(mutator.rng.choice(trees))
        return len(body).to_bytes(4, "big") + body

    def decode(stream: bytes) -> list[link.Frame]:
        decoder, cut = link.Decoder(), mutator.rng.randrange(len(stream) + 1)
        return decoder.feed(stream[:cut]) + decoder.feed(stream[cut:])

    def check(frames: list[link.Frame]) -> None:
        assert link.Decoder().feed(b"".join(map(link.encode, frames))) == frames

    outcomes = fuzz(Target(decode, RemoteError, tree_bytes, check), make)
    assert set(outcomes) >= {"accepted", "Malformed", "Unsupported"}
