"""Messages: each survives the wire; their own bounds hold; the largest fit their limits."""

import math
from dataclasses import replace
from typing import Any

import pytest

from covey.protocols import limits, packing
from covey.protocols.envelope import announce
from covey.protocols.messages import (
    Busy,
    Introduction,
    Lineage,
    Phase,
    Propose,
    Refuse,
    Settled,
    Standing,
    StateOffer,
)
from tests.protocols.examples import EXCHANGE, LINEAGE, MESSAGES, STANDING

WIDE = "\U0001f426"  # four bytes in UTF-8


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message: Any) -> None:
    packed = packing.pack(packing.to_map(message))
    value = packing.unpack(packed, limits.CONTROL_BYTES_MAX)
    assert packing.from_map(type(message), value) == message


def test_a_phase_is_a_word_and_a_new_one_is_no_fault() -> None:
    heard = packing.unpack(packing.pack(packing.to_map(STANDING)), limits.CONTROL_BYTES_MAX)
    assert heard["phase"] == "training"
    assert packing.from_map(Standing, heard).phase == Phase.TRAINING
    assert packing.from_map(Standing, {**heard, "phase": "resting"}).phase == "resting"


@pytest.mark.parametrize(
    "wrong",
    [
        {"instance": b"i" * 15},
        {"layout": b"l" * 31},
        {"name": "n" * 65},
        {"name": "\x1b]0;owned\x07"},
        {"version": "v" * 65},
        {"version": "1\n2"},
        {"phase": "p" * 65},
        {"port": -1},
        {"port": 65536},
        {"step": -1},
        {"step": 2**62},
        {"loss": math.inf},
        {"loss": math.nan},
        {"addresses": ("h:1",) * 9},
        {"addresses": ("h" * 129,)},
        {"addresses": ("h\x00:1",)},
        {"introductions": (Introduction(b"p" * 32, ()),) * 33},
    ],
)
def test_a_standing_has_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(STANDING, **wrong)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (LINEAGE, {"founder": b"f"}),
        (LINEAGE, {"age": -1}),
        (LINEAGE, {"age": limits.AGE_MAX + 1}),
        (Introduction(b"p" * 32, ("h:1",)), {"peer": b"p"}),
        (Introduction(b"p" * 32, ("h:1",)), {"addresses": ("h" * 129,)}),
        (Introduction(b"p" * 32, ("h:1",)), {"addresses": ("h:1",) * 9}),
        (StateOffer(b"d" * 32, 4, LINEAGE, 0), {"digest": b""}),
        (StateOffer(b"d" * 32, 4, LINEAGE, 0), {"length": 0}),
        (StateOffer(b"d" * 32, 4, LINEAGE, 0), {"length": 4 * limits.PARAMETERS_MAX + 1}),
        (Propose(b"e" * 16, "mod4", LINEAGE, 1.0, 1.0), {"reach": -1.0}),
        (Propose(b"e" * 16, "mod4", LINEAGE, 1.0, 1.0), {"clip": math.nan}),
        (Settled(b"e" * 16, 1.0), {"factor": 1.1}),
        (Settled(b"e" * 16, 1.0), {"factor": math.nan}),
        (Settled(b"e" * 16, 1.0), {"factor": math.inf}),
        (Busy(b"e" * 16), {"partner": b"p"}),
        (Busy(b"e" * 16, b"p" * 32), {"partner": b"p" * 33}),
        (Refuse(b"e" * 16, "busy"), {"reason": "r" * 65}),
        (Refuse(b"e" * 16, "busy"), {"detail": "d" * 1025}),
        (Refuse(b"e" * 16, "busy"), {"detail": "two\nlines"}),
    ],
)
def test_other_messages_have_bounds(message: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(message, **wrong)


@pytest.mark.parametrize("message", EXCHANGE, ids=lambda message: type(message).__name__)
def test_an_exchange_id_is_16_bytes(message: Any) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        replace(message, exchange=b"e" * 17)


def test_the_largest_standing_fits_a_control_message() -> None:
    address = WIDE * limits.ADDRESS_CHARS_MAX
    addresses = (address,) * limits.ADDRESSES_PER_PEER_MAX
    largest = replace(
        STANDING,
        name=WIDE * limits.NAME_CHARS_MAX,
        version=WIDE * limits.NAME_CHARS_MAX,
        addresses=addresses,
        introductions=(Introduction(b"p" * 32, addresses),) * limits.PEERS_PER_PROBE_MAX,
    )
    assert len(packing.pack(packing.to_map(largest))) <= limits.CONTROL_BYTES_MAX


def test_the_largest_exchange_message_fits_an_announcement() -> None:
    refuse = Refuse(b"e" * 16, WIDE * limits.REASON_CHARS_MAX, WIDE * limits.DETAIL_CHARS_MAX)
    assert len(announce(refuse)) <= limits.MESSAGE_BYTES_MAX


def test_no_lineage_is_the_default() -> None:
    assert Lineage() == Lineage(b"", 0)
