"""Layouts: order, digest, the difference in words, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.protocols import limits, packing
from covey.protocols.errors import Malformed, RemoteError, TooLarge
from covey.protocols.layout import Kind, Layout, Tensor
from tests.protocols.examples import LAYOUT

TENSORS = st.lists(
    st.builds(
        Tensor,
        st.text("abcdefgh._0123456789ä", min_size=1, max_size=40),
        st.lists(st.integers(0, 100), max_size=4).map(tuple),
        st.sampled_from(["float32", "bfloat16", "float16"]),
        st.sampled_from(Kind),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda tensor: tensor.name,
)


@given(TENSORS)
def test_decode_inverts_encoded(tensors: list[Tensor]) -> None:
    layout = Layout.of(tensors)
    again = Layout.decode(layout.encoded)
    assert again == layout
    assert again.digest == layout.digest
    assert again.difference(layout) is None
    assert layout.size == sum(tensor.size for tensor in tensors)
    assert layout.parameters <= layout.size


@given(TENSORS)
def test_parameters_come_first_and_keep_their_order(tensors: list[Tensor]) -> None:
    layout = Layout.of(tensors)
    for kind in Kind:
        in_order = [tensor for tensor in tensors if tensor.kind is kind]
        assert [tensor for tensor in layout.tensors if tensor.kind is kind] == in_order
    assert layout.parameters == sum(t.size for t in tensors if t.kind is Kind.PARAMETER)


@given(TENSORS, TENSORS)
def test_digest_and_difference_agree(ours: list[Tensor], theirs: list[Tensor]) -> None:
    here, there = Layout.of(ours), Layout.of(theirs)
    assert (here.difference(there) is None) == (here.digest == there.digest) == (here == there)
    assert (here.difference(there) is None) == (there.difference(here) is None)


def test_the_digest_stays_what_it_is() -> None:
    """A change of these bytes parts old nodes from new ones: raise PROTOCOL with it."""
    digest = "2041d99ccd0893b024557649a151520b88c5569b4f84098d72896b2cf4bf43cd"
    assert LAYOUT.digest.hex() == digest


def test_difference_names_the_tensor() -> None:
    first, *rest = LAYOUT.tensors
    wider = Layout((Tensor("layers.0.weight", (64, 256)), *rest))
    assert LAYOUT.difference(wider) == (
        "here layers.0.weight float32[64, 128] (parameter), "
        "there layers.0.weight float32[64, 256] (parameter)"
    )
    shorter = Layout((first, *rest[:-1]))
    assert LAYOUT.difference(shorter) == "norm.running_mean float32[64] is only here"
    assert shorter.difference(LAYOUT) == "norm.running_mean float32[64] is only there"


def test_two_tensors_of_one_name() -> None:
    with pytest.raises(ValueError, match="two shared tensors are called 'a'"):
        Layout((Tensor("a", (1,)), Tensor("b", (1,)), Tensor("a", (2,))))


def test_a_parameter_after_a_buffer() -> None:
    with pytest.raises(ValueError, match="parameters come before buffers"):
        Layout((Tensor("a", (1,), kind=Kind.BUFFER), Tensor("b", (1,))))


def row(**changed: Any) -> list[Any]:
    fields = {"name": "w", "shape": [2, 3], "dtype": "float32", "kind": "parameter", **changed}
    return list(fields.values())


@pytest.mark.parametrize(
    ("rows", "error", "why"),
    [
        ([], Malformed, "at least one"),
        ({}, Malformed, "a layout is a list"),
        (None, Malformed, "a layout is a list"),
        ([[]], Malformed, "a tensor is"),
        ([[*row(), 1]], Malformed, "a tensor is"),
        ([row(name=b"w")], Malformed, "a tensor is"),
        ([row(name="")], Malformed, "empty or too long"),
        ([row(name="ä" * 257)], Malformed, "empty or too long"),
        ([row(dtype="f" * 17)], Malformed, "empty or too long"),
        ([row(name="\x1b[2J")], Malformed, "not printable"),
        ([row(dtype="\n")], Malformed, "not printable"),
        ([row(shape=[-1])], Malformed, "not a list of sizes"),
        ([row(shape=[True])], Malformed, "not a list of sizes"),
        ([row(shape=[1.0])], Malformed, "not a list of sizes"),
        ([row(shape=[1] * 17)], Malformed, "not a list of sizes"),
        ([row(shape=[2**32, 2**32])], TooLarge, "w has more than"),
        ([row(name=f"w{n}", shape=[10**9]) for n in range(5)], TooLarge, "more than 4000000000"),
        ([row(kind="optimizer")], Malformed, "unknown kind 'optimizer'"),
        ([row(), row()], Malformed, "two shared tensors"),
        ([row(kind="buffer"), row(name="v")], Malformed, "parameters come before"),
    ],
)
def test_refused_layouts(rows: Any, error: type[RemoteError], why: str) -> None:
    with pytest.raises(error, match=why):
        Layout.decode(packing.pack(rows))


def test_as_many_tensors_as_are_allowed() -> None:
    rows = [row(name=f"layer.{n}.weight") for n in range(limits.TENSORS_MAX)]
    assert len(Layout.decode(packing.pack(rows)).tensors) == limits.TENSORS_MAX
    with pytest.raises(RemoteError):
        Layout.decode(packing.pack([*rows, row()]))


def test_one_name_twice_among_many_is_found_at_once() -> None:
    """Counting each name's occurrences one by one took 42 s here."""
    rows = [row(name=f"w{n}") for n in range(limits.TENSORS_MAX - 1)]
    with pytest.raises(Malformed, match=r"called 'w39998'"):
        Layout.decode(packing.pack([*rows, rows[-1]]))
