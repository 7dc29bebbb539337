"""Identities: the text of an id and its typing errors, order, signatures."""

import string
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.protocols.errors import Forged
from covey.protocols.identity import Identity, PeerId, verify

LETTERS = string.ascii_uppercase + "234567"
KEYS = st.binary(min_size=32, max_size=32)


@given(KEYS)
def test_parse_inverts_text(key: bytes) -> None:
    peer = PeerId(key)
    assert PeerId.parse(peer.text) == peer
    assert PeerId.parse(peer.text.lower().replace("-", "")) == peer
    assert PeerId.parse(f" {peer.text.replace('-', ' ')} ") == peer
    assert [len(group) for group in peer.text.split("-")] == [7] * 8
    assert peer.text.startswith(peer.short)
    assert str(peer) == peer.text


@given(KEYS, st.integers(0, 55), st.sampled_from(LETTERS))
@settings(max_examples=300)
def test_every_wrong_letter_is_found(key: bytes, place: int, letter: str) -> None:
    plain = PeerId(key).text.replace("-", "")
    wrong = plain[:place] + letter + plain[place + 1 :]
    if wrong != plain:
        groups = place // 14 * 2 + 1
        with pytest.raises(ValueError, match=f"a typing error in groups {groups} to {groups + 1}"):
            PeerId.parse(wrong)


@given(KEYS, st.integers(0, 54))
@settings(max_examples=300)
def test_every_swap_of_neighbours_is_found_but_one(key: bytes, place: int) -> None:
    plain = PeerId(key).text.replace("-", "")
    a, b = plain[place], plain[place + 1]
    wrong = plain[:place] + b + a + plain[place + 2 :]
    if a != b and {a, b} != {"A", "7"}:
        with pytest.raises(ValueError, match="a typing error"):
            PeerId.parse(wrong)


@pytest.mark.parametrize("text", ["", "A", "A" * 55, "A" * 57, "1" * 56, "Ä" * 56, "ß" * 28 + "1"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="56 letters A-Z and digits 2-7"):
        PeerId.parse(text)


def test_one_id_has_one_text() -> None:
    """The last letter before the check carries four bits that no key fills."""
    plain = PeerId(bytes(32)).text.replace("-", "")
    accepted = []
    for last in LETTERS:
        for check in LETTERS:
            with suppress(ValueError):
                accepted.append(
                    (plain[:54] + last + check, PeerId.parse(plain[:54] + last + check))
                )
    assert len(accepted) == 2  # the one bit that the key does fill
    assert all(peer.text.replace("-", "") == text for text, peer in accepted)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_an_id_is_32_bytes(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PeerId(key)


@given(KEYS, KEYS)
def test_ids_are_ordered_by_their_bytes(one: bytes, other: bytes) -> None:
    assert (PeerId(one) < PeerId(other)) == (one < other)
    assert (hash(PeerId(one)) == hash(PeerId(other))) or one != other


def test_only_the_owner_signs() -> None:
    one, other = Identity(b"1" * 32), Identity(b"2" * 32)
    signature = one.sign(b"data")
    assert len(signature) == 64
    verify(one.peer, b"data", signature)
    for peer, data, given_signature in (
        (other.peer, b"data", signature),
        (one.peer, b"dato", signature),
        (one.peer, b"data", signature[:-1] + bytes([signature[-1] ^ 1])),
        (one.peer, b"data", signature[:-1]),
        (one.peer, b"data", b""),
        (PeerId(bytes(32)), b"data", bytes(64)),  # a key of small order signs nothing
        (PeerId(b"\x01" + bytes(31)), b"data", b"\x01" + bytes(63)),
        (PeerId(b"\xff" * 32), b"data", signature),  # no point of the curve
    ):
        with pytest.raises(Forged, match=peer.short):
            verify(peer, data, given_signature)


def test_the_known_key_of_rfc_8032() -> None:
    """Section 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    identity = Identity(seed)
    public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert identity.peer.key.hex() == public
    assert identity.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540")


def test_an_identity_does_not_show_its_seed() -> None:
    identity = Identity(b"secretsecretsecretsecretsecretse")
    assert repr(identity) == f"Identity({identity.peer.short})"
    assert identity.seed.hex() not in repr(identity)
