"""The address book: what is dialed when, what is forgotten, and what a flood of hints can do."""

import json
import random

import pytest

from covey.node import addresses
from covey.node.addresses import AddressBook, Source, format_address, parse_address
from covey.protocols import limits
from covey.protocols.identity import PeerId

ME, PEER, OTHER = (PeerId(bytes([n]) * 32) for n in (1, 2, 3))
A, B = "192.0.2.1:4001", "192.0.2.2:4001"


def book() -> AddressBook:
    return AddressBook(ME, random.Random(7))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("192.0.2.1:4001", ("192.0.2.1", 4001)),
        ("[fe80::1%eth0]:9", ("fe80::1%eth0", 9)),
        ("nas.local:65535", ("nas.local", 65535)),
    ],
)
def test_parse_and_format_are_inverse(text: str, parsed: tuple[str, int]) -> None:
    assert parse_address(text) == parsed
    assert format_address(*parsed) == text


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "::1:4", "h:x"]
)
def test_parse_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets|between 1 and 65535"):
        parse_address(text)


def test_a_new_address_is_due_at_once_and_no_more_once_proven() -> None:
    known = book()
    known.learn(A, Source.MDNS, 10.0)
    assert known.due(10.0) == [A]
    assert known.entries(None)[0].address == A
    known.reached(A, PEER, 11.0)
    assert known.due(1e9) == []
    assert known.of(PEER) == known.working(PEER) == [A]
    assert known.entries(None) == []


def test_failures_back_off_with_jitter_up_to_a_minute() -> None:
    known, now = book(), 0.0
    known.learn(A, Source.STATIC, now)
    waits = []
    for _ in range(2000):
        known.failed(A, "refused", now)
        entry = known.entries(None)[0]
        waits.append(entry.due_at - now)
        now = entry.due_at
    assert 0.75 <= waits[0] <= 1.25
    assert 1.5 <= waits[1] <= 2.5
    assert all(45 <= wait <= 75 for wait in waits[6:])
    assert len(set(waits)) == len(waits)


def test_a_failure_is_news_once() -> None:
    known = book()
    known.learn(A, Source.STATIC, 0.0)
    assert known.failed(A, "refused", 1.0)
    assert not known.failed(A, "refused", 2.0)
    assert known.failed(A, "timeout", 3.0)
    assert not known.failed(B, "refused", 3.0)  # never heard of


def test_an_address_that_never_worked_is_forgotten_unless_the_operator_named_it() -> None:
    known = book()
    known.learn(A, Source.MDNS, 0.0)
    known.learn(B, Source.STATIC, 0.0)
    for _ in range(addresses.FAILURES_MAX):
        known.failed(A, "timeout", 0.0)
        known.failed(B, "timeout", 0.0)
    assert [entry.address for entry in known.entries(None)] == [B]


def test_an_address_that_worked_is_kept_for_a_day() -> None:
    known = book()
    known.learn(A, Source.MDNS, 0.0)
    known.reached(A, PEER, 0.0)
    for _ in range(2 * addresses.FAILURES_MAX):
        known.failed(A, "timeout", addresses.FORGET_S)
    assert known.of(PEER) == [A]
    assert known.working(PEER) == []
    known.failed(A, "timeout", addresses.FORGET_S + 1)
    assert known.of(PEER) == []


def test_the_best_address_comes_first() -> None:
    known = book()
    for address in (A, B, "192.0.2.3:1"):
        known.learn(address, Source.EXCHANGE, 0.0, PEER)
    known.reached(A, PEER, 1.0)
    known.reached(B, PEER, 2.0)
    assert known.of(PEER) == [B, A, "192.0.2.3:1"]
    known.failed(B, "timeout", 3.0)
    assert known.of(PEER) == [A, "192.0.2.3:1", B]
    known.reached(B, PEER, 4.0)
    assert known.of(PEER)[0] == B


def test_our_own_address_is_forgotten_and_not_learned_again_soon() -> None:
    known = book()
    known.learn(A, Source.MDNS, 0.0)
    known.reached(A, ME, 1.0)
    known.learn(A, Source.MDNS, 2.0)
    known.learn(B, Source.EXCHANGE, 2.0, ME)
    assert known.due(3.0) == []
    known.learn(A, Source.MDNS, 2.0 + addresses.OWN_S)  # perhaps another machine's by now
    assert known.due(1e9) == [A]
    for number in range(2 * addresses.OWN_MAX):
        known.own(f"192.0.2.9:{number + 1}", 0.0)
    assert len(known._own) == addresses.OWN_MAX


def test_a_fresh_announcement_brings_the_next_dial_forward() -> None:
    known = book()
    known.learn(A, Source.MDNS, 0.0)
    for _ in range(6):
        known.failed(A, "refused", 100.0)
    known.learn(A, Source.EXCHANGE, 101.0)
    assert known.due(106.0) == []
    known.learn(A, Source.MDNS, 101.0)
    assert known.due(104.9) == []
    assert known.due(105.1) == [A]


def test_a_claim_does_not_take_an_address_from_who_is_proven_there() -> None:
    known = book()
    known.learn(A, Source.EXCHANGE, 0.0, PEER)
    known.reached(A, PEER, 1.0)
    known.learn(A, Source.EXCHANGE, 2.0, OTHER)
    assert known.of(PEER) == [A]
    known.failed(A, "another node now", 3.0)
    known.learn(A, Source.EXCHANGE, 4.0, OTHER)
    assert known.of(OTHER) == [A]
    known.reached(A, OTHER, 5.0)
    assert known.of(PEER) == []


def test_a_flood_of_hints_is_bounded_and_displaces_only_what_failed() -> None:
    known = book()
    known.learn(A, Source.STATIC, 0.0)
    known.learn(B, Source.MDNS, 0.0)
    known.reached(B, PEER, 0.0)
    for number in range(3 * limits.UNVERIFIED_MAX):
        known.learn(f"198.51.100.{number % 250}:{number + 1}", Source.MDNS, 1.0)
    assert len(known.entries(None)) == limits.UNVERIFIED_MAX
    known.learn("203.0.113.1:1", Source.MDNS, 1.0)
    assert "203.0.113.1:1" not in known.due(2.0)
    known.failed("198.51.100.7:8", "refused", 1.5)
    known.learn("203.0.113.1:1", Source.MDNS, 2.0)
    assert "203.0.113.1:1" in known.due(2.0)
    assert known.of(PEER) == [B]
    assert A in known.due(2.0)


def test_one_peer_has_few_addresses() -> None:
    known = book()
    for number in range(100):
        known.learn(f"198.51.100.1:{number + 1}", Source.EXCHANGE, 0.0, PEER)
    assert len(known.of(PEER)) == limits.ADDRESSES_PER_PEER_MAX
    for number in range(100):
        known.reached(f"198.51.100.2:{number + 1}", PEER, float(number))
    assert known.of(PEER)[0] == "198.51.100.2:100"
    assert len(known.of(PEER)) == limits.ADDRESSES_PER_PEER_MAX


@pytest.mark.parametrize("text", ["no", "host:1\n", "a b:1", "x" * 200 + ":1", "host:99999"])
def test_nonsense_is_not_learned(text: str) -> None:
    known = book()
    known.learn(text, Source.EXCHANGE, 0.0)
    assert known.due(1.0) == []


def test_what_worked_is_remembered() -> None:
    known = book()
    known.learn(A, Source.MDNS, 0.0)
    known.reached(A, PEER, 1.0)
    known.learn(B, Source.MDNS, 0.0)  # never tried
    plain = json.loads(json.dumps(known.plain()))
    again = book()
    again.restore(plain, 5.0)
    assert again.due(5.0) == [A]
    assert again.of(PEER) == [A]
    assert again.entries(PEER)[0].sources == {Source.REMEMBERED}
    assert again.plain() == plain  # its machine may be off this time


@pytest.mark.parametrize(
    "plain",
    [
        None,
        {},
        [1],
        [{}],
        [{"peer": "X", "addresses": [A]}],
        [{"peer": PEER.text, "addresses": [4]}],
    ],
)
def test_a_damaged_memory_is_left_out(plain: object) -> None:
    known = book()
    known.restore(plain, 0.0)
    assert known.due(1.0) == []
