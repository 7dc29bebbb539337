"""Packing: what is packed comes back, and nothing else is let through or costs much to refuse."""

import math
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.protocols import limits, packing
from covey.protocols.errors import Malformed, RemoteError, TooLarge

LIMIT = limits.CONTROL_BYTES_MAX

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=15
)


@dataclass(frozen=True)
class Inner:
    key: bytes


@dataclass(frozen=True)
class Outer:
    count: int
    ratio: float
    names: tuple[str, ...]
    inner: Inner
    inners: tuple[Inner, ...] = ()
    loss: float | None = None
    flag: bool = False

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("the count is negative")


GOOD = {"count": 1, "ratio": 0.5, "names": ["a"], "inner": {"key": b"k"}}


@given(VALUES)
def test_unpack_inverts_pack(value: Any) -> None:
    assert packing.unpack(packing.pack(value), LIMIT) == value
    assert packing.unpack(memoryview(packing.pack(value)), LIMIT) == value


@given(VALUES, st.data())
def test_a_part_or_more_than_a_value_is_malformed(value: Any, data: st.DataObject) -> None:
    packed = packing.pack(value)
    cut = data.draw(st.integers(0, len(packed) - 1))
    for wrong in (packed[:cut], packed + b"\xc0", packed + packed):
        with pytest.raises(Malformed):
            packing.unpack(wrong, LIMIT)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "OutOfData"),
        (b"\xc1", "FormatError"),
        (b"\xa2\xff\xff", "UnicodeDecodeError"),
        (b"\xa3\xed\xa0\x80", "UnicodeDecodeError"),  # half of a surrogate pair
        (b"\xd4\x05\x00", "ValueError"),  # extensions, empty and not, timestamps too
        (b"\xc7\x00\x05", "extension type 5"),
        (b"\xc7\x00\xff", "ValueError"),
        (b"\xd6\xff\x00\x00\x00\x00", "ValueError"),
        (b"\x81\x01\xc0", "ValueError"),
        (b"\x81\xc0\xc0", "ValueError"),
        (b"\x81\xc4\x01a\xc0", "a map key is not a string"),
        (b"\x91" * 2000 + b"\xc0", "StackError"),
    ],
)
def test_refused_data(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        packing.unpack(data, LIMIT)


def test_more_bytes_than_the_limit_are_not_looked_at() -> None:
    with pytest.raises(TooLarge, match="9 bytes where at most 8 are allowed"):
        packing.unpack(b"\xc1" * 9, 8)


FULL = limits.LAYOUT_BYTES_MAX
HEAD = b"\xdc\x9c\x40"  # of 40 000 items


@pytest.mark.parametrize(
    ("data", "bytes_max"),
    [
        (HEAD * 1000, 100_000),
        (b"\xdd\xff\xff\xff\xff" * 1000, 100_000),
        (b"\xdf\xff\xff\xff\xff", 100_000),
        (b"\xc6\xff\xff\xff\xff", 100_000),
        (b"\xdc\x00\x68" + (HEAD + b"\x90" * 40_000) * 104, 10_000_000),
        (b"\xdc\x00\x68" + (HEAD + b"\x80" * 40_000) * 104, 10_000_000),
        (b"\xdc\x00\x22" + (HEAD + b"\xa2ab" * 40_000) * 34, 21 * FULL),
        (b"\xdc\x00\x14" + (HEAD + b"\xca\x00\x00\x00\x01" * 40_000) * 20, 21 * FULL),
        (b"\xdd\x00\x10\x00\x00" + b"\xc0" * 2**20, 10_000_000),
        (b"\xde\xff\xff" + b"\xa0\xc0" * 65535, 10_000_000),
    ],
)
def test_no_input_takes_much_memory(data: bytes, bytes_max: int) -> None:
    assert len(data) <= FULL
    tracemalloc.start()
    try:
        with suppress(RemoteError):
            packing.unpack(data, FULL)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken <= bytes_max + 64 * limits.KIB


def test_a_dataclass_travels_as_a_map() -> None:
    outer = Outer(1, 0.5, ("a", "b"), Inner(b"k"), (Inner(b"l"),), 0.25, True)
    plain = packing.to_map(outer)
    assert plain["inners"] == [{"key": b"l"}]
    assert packing.from_map(Outer, packing.unpack(packing.pack(plain), LIMIT)) == outer


def test_what_is_new_is_ignored_and_what_is_optional_may_lack() -> None:
    assert packing.from_map(Outer, {**GOOD, "new": [1, 2]}) == Outer(1, 0.5, ("a",), Inner(b"k"))
    assert packing.from_map(Outer, {**GOOD, "loss": None}).loss is None


def test_an_integer_is_a_number_too() -> None:
    ratio = packing.from_map(Outer, {**GOOD, "ratio": 2}).ratio
    assert (ratio, type(ratio)) == (2.0, float)
    assert packing.from_map(Outer, {**GOOD, "ratio": math.inf}).ratio == math.inf


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"count": True}, "Outer.count is not int"),
        ({"count": 1.0}, "Outer.count is not int"),
        ({"count": None}, "Outer.count is not int"),
        ({"count": -1}, "the count is negative"),
        ({"ratio": "1"}, "Outer.ratio is not a number"),
        ({"ratio": True}, "Outer.ratio is not a number"),
        ({"ratio": math.nan}, "Outer.ratio is not a number"),
        ({"loss": math.nan}, "Outer.loss is not a number"),
        ({"names": "ab"}, "Outer.names is not a list"),
        ({"names": [b"a"]}, "Outer.names is not str"),
        ({"names": None}, "Outer.names is not a list"),
        ({"inner": []}, "Inner is not a map"),
        ({"inner": {}}, "Inner lacks key"),
        ({"inner": {"key": "k"}}, "Inner.key is not bytes"),
        ({"inners": [None]}, "Inner is not a map"),
        ({"flag": 1}, "Outer.flag is not bool"),
    ],
)
def test_refused_fields(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(Malformed, match=why):
        packing.from_map(Outer, {**GOOD, **changed})


@pytest.mark.parametrize("value", [None, [], "x", 3, b""])
def test_a_message_is_a_map(value: Any) -> None:
    with pytest.raises(Malformed, match="Outer is not a map"):
        packing.from_map(Outer, value)


def test_packing_is_plain_msgpack() -> None:
    """An independent reading of the same bytes."""
    packed = packing.pack(packing.to_map(Outer(1, 0.5, ("ä",), Inner(b"k"))))
    assert msgpack.unpackb(packed) == {
        "count": 1,
        "ratio": 0.5,
        "names": ["ä"],
        "inner": {"key": b"k"},
        "inners": [],
        "loss": None,
        "flag": False,
    }
