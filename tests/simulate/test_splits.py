"""Dealing examples: nothing lost, nobody without, and as uneven as was asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.simulate.splits import Split, deal

KINDS = ("iid", "parts", "dirichlet:0.1", "dirichlet:10", "classes:1", "classes:2", "sizes:8")
LABELS = np.random.default_rng(0).integers(0, 10, 2000)


@given(
    st.sampled_from(KINDS),
    st.integers(1, 40),
    st.integers(0, 5),
    st.lists(st.integers(0, 5), min_size=40, max_size=200),
)
def test_every_example_has_one_owner_and_nobody_has_none(
    kind: str, nodes: int, seed: int, labels: list[int]
) -> None:
    shares = deal(np.array(labels), nodes, Split.parse(kind), seed)
    assert len(shares) == nodes
    assert all(len(share) for share in shares)
    assert sorted(np.concatenate(shares)) == list(range(len(labels)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_means_one_deal(kind: str) -> None:
    first, again, other = (deal(LABELS, 8, Split.parse(kind), seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    same = all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert same == (kind == "parts")


def shares_of_labels(kind: str) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    shares = deal(LABELS, 10, Split.parse(kind), 0)
    return np.stack([np.bincount(LABELS[share], minlength=10) for share in shares])


def test_iid_shares_are_even_and_mixed() -> None:
    counts = shares_of_labels("iid")
    assert set(counts.sum(axis=1)) == {200}
    assert counts.min() > 5


def test_a_small_concentration_skews_and_a_large_one_does_not() -> None:
    skewed, even = shares_of_labels("dirichlet:0.1"), shares_of_labels("dirichlet:1000")
    largest = [counts.max(axis=1) / counts.sum(axis=1) for counts in (skewed, even)]
    assert largest[0].mean() > 0.5
    assert largest[1].mean() < 0.2


def test_a_node_has_as_many_classes_as_asked() -> None:
    assert set((shares_of_labels("classes:2") > 0).sum(axis=1)) == {2}
    assert set((shares_of_labels("classes:20") > 0).sum(axis=1)) == {10}


def test_sizes_have_the_ratio_asked() -> None:
    sizes = [len(share) for share in deal(LABELS, 10, Split.parse("sizes:8"), 0)]
    assert sum(sizes) == len(LABELS)
    assert max(sizes) / min(sizes) == pytest.approx(8, rel=0.05)


def test_parts_are_contiguous() -> None:
    shares = deal(LABELS, 7, Split("parts"), 0)
    assert np.array_equal(np.concatenate(shares), np.arange(len(LABELS)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("odd", "unknown split 'odd'"),
        ("dirichlet", "needs a value"),
        ("dirichlet:0", "needs a value"),
        ("dirichlet:nan", "needs a value"),
        ("dirichlet:inf", "needs a value"),
        ("dirichlet:x", "'x' .* is not a number"),
        ("classes:1.5", "whole number"),
        ("iid:3", "takes no value"),
    ],
)
def test_a_bad_split_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Split.parse(text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_reads_as_it_prints(kind: str) -> None:
    assert str(Split.parse(kind)) == kind
