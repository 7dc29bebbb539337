"""Invites: typed by hand and still right, or refused in words that help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.protocols import invite, limits, packing
from covey.protocols.invite import Invite
from tests.protocols.examples import SECRET

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)
INVITES = st.builds(
    Invite,
    PRINTABLE.map(lambda text: text[:64]),
    st.binary(min_size=32, max_size=32),
    st.lists(PRINTABLE.map(lambda text: text[:128]), max_size=8).map(tuple),
    st.integers(0, 2**40),
)
PLAIN = Invite("lab", SECRET, ("192.168.1.7:4711",), 1000)


@given(INVITES)
def test_parse_inverts_text(made: Invite) -> None:
    assert invite.parse(made.text, now=0.0) == made
    assert made.text.startswith(invite.PREFIX)
    assert set(made.text.removeprefix(invite.PREFIX)) <= set("abcdefghijklmnopqrstuvwxyz234567")


def test_case_and_breaks_do_not_matter() -> None:
    text = PLAIN.text
    spread = " " + text[:20].upper() + "\n   " + text[20:50] + "\t" + text[50:] + "\r\n"
    assert invite.parse(spread, now=0.0) == PLAIN


def test_every_wrong_letter_and_every_cut_is_found() -> None:
    text = PLAIN.text
    for place in range(len(invite.PREFIX), len(text)):
        letter = "a" if text[place] != "a" else "b"
        with pytest.raises(ValueError, match=r"mistyped or cut off|no invite has"):
            invite.parse(text[:place] + letter + text[place + 1 :], now=0.0)
        with pytest.raises(ValueError, match=r"mistyped or cut off|no invite has"):
            invite.parse(text[:place], now=0.0)


def test_an_expired_one_says_how_to_get_another() -> None:
    assert invite.parse(PLAIN.text, now=1000.0) == PLAIN
    with pytest.raises(ValueError, match="expired; run `covey invite` on a member"):
        invite.parse(PLAIN.text, now=1000.5)
    never = Invite("lab", SECRET)
    assert invite.parse(never.text, now=1e12) == never


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an invite begins with 'covey1-'"),
        ("hello", "an invite begins with"),
        ("covey2-abc", "an invite begins with"),
        ("covey1-", "letters that no invite has"),
        ("covey1-a0b", "letters that no invite has"),
        ("covey1-äöü", "letters that no invite has"),
        ("covey1-" + "a" * 5000, "letters that no invite has"),
        ("covey1-a", "mistyped or cut off"),
        ("covey1-abc", "mistyped or cut off"),
        ("covey1-aaaaaaaaaaaaaaaa", "mistyped or cut off"),
        (invite.spelled(b""), "mistyped or cut off"),
    ],
)
def test_what_is_no_invite(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        invite.parse(text, now=0.0)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        [],
        ["lab", SECRET, []],
        ["lab", SECRET[:-1], [], 0],
        ["", SECRET, [], 0],
        ["\x1b[2J", SECRET, [], 0],
        ["lab", SECRET, ["h:1"] * 9, 0],
        ["lab", SECRET, ["h" * 129], 0],
        ["lab", SECRET, ["h\n"], 0],
        ["lab", SECRET, [1], 0],
        ["lab", SECRET, [], -1],
        ["lab", SECRET, [], 0.5],
    ],
)
def test_a_right_checksum_over_wrong_fields(fields: object) -> None:
    with pytest.raises(ValueError, match="made by another version of covey"):
        invite.parse(invite.spelled(packing.pack(fields)), now=0.0)


def test_a_newer_version_may_say_more() -> None:
    line = invite.spelled(packing.pack(["lab", SECRET, [], 0, "more", {"still": "more"}]))
    assert invite.parse(line, now=0.0) == Invite("lab", SECRET)


def test_the_largest_invite_that_people_see_is_accepted() -> None:
    longest = "[fe80:1234:5678:9abc:def0:1234:5678:9abc%wlp0s20f3]:65535"
    addresses = (longest,) * limits.ADDRESSES_PER_PEER_MAX
    largest = Invite("n" * limits.NAME_CHARS_MAX, SECRET, addresses, 2**40)
    assert invite.parse(largest.text, now=0.0) == largest
