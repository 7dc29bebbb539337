"""Robust means: equivariant, exact when the honest agree, inside the honest range."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from covey.gossip.aggregation import nearest, robust_mean, tolerated, trimmed_mean
from covey.gossip.quantiser import Floats

SEEDS = st.integers(0, 2**32 - 1)
CHUNK = 1 << 14


def mixed(vectors: list[Floats], hostile: int) -> Floats:
    own = vectors[0].copy()
    robust_mean(own, vectors[1:], hostile)
    return own


def reference(vectors: NDArray[np.float64], hostile: int) -> NDArray[np.float64]:
    """NNM, then CWTM, as the papers write them."""
    count = len(vectors)
    near = []
    for vector in vectors:
        apart = [float(np.linalg.norm(other - vector)) for other in vectors]
        near.append(np.mean(vectors[np.argsort(apart)[: count - hostile]], axis=0))
    kept: NDArray[np.float64] = np.sort(near, axis=0)[hostile : count - hostile].mean(axis=0)
    return kept


@settings(max_examples=60)
@given(count=st.integers(1, 9), length=st.sampled_from([1, 7, 200, CHUNK + 5]), seed=SEEDS)
def test_it_is_what_the_papers_say(count: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, length)).astype(np.float32)
    hostile = int(rng.integers(0, (count - 1) // 2 + 1))
    expected = reference(vectors.astype(np.float64), hostile)
    assert np.allclose(mixed(list(vectors), hostile), expected, atol=1e-6)


@settings(max_examples=60)
@given(count=st.integers(2, 9), seed=SEEDS)
def test_neither_order_nor_origin_matters(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 50)).astype(np.float32)
    hostile = int(rng.integers(0, (count - 1) // 2 + 1))
    before = mixed(list(vectors), hostile)
    assert np.allclose(mixed(list(rng.permutation(vectors)), hostile), before, atol=1e-6)
    away = rng.standard_normal(50).astype(np.float32) * 10
    assert np.allclose(mixed(list(vectors + away), hostile), before + away, atol=1e-5)


@settings(max_examples=60)
@given(count=st.integers(3, 15), magnitude=st.sampled_from([1e-3, 1.0, 1e6, 3e38]), seed=SEEDS)
def test_honest_who_agree_stay_whatever_a_minority_sends(
    count: int, magnitude: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    hostile = (count - 1) // 2
    honest = rng.standard_normal(40).astype(np.float32)
    lies = (rng.uniform(-1, 1, (hostile, 40)) * magnitude).astype(np.float32)
    others = [honest.copy()] * (count - 1 - hostile) + list(lies)
    rng.shuffle(others)
    own = honest.copy()
    robust_mean(own, others, hostile)
    assert np.array_equal(own, honest)


@settings(max_examples=60)
@given(count=st.integers(1, 15), magnitude=st.sampled_from([1.0, 1e6, 1e38]), seed=SEEDS)
def test_the_trimmed_mean_is_inside_the_honest_range(
    count: int, magnitude: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    hostile = (count - 1) // 2
    honest = rng.standard_normal((count - hostile, 30))
    rows = np.concatenate([honest, rng.uniform(-1, 1, (hostile, 30)) * magnitude])
    kept = trimmed_mean(rng.permutation(rows), hostile)
    assert (kept >= honest.min(axis=0) - 1e-12).all()
    assert (kept <= honest.max(axis=0) + 1e-12).all()


@settings(max_examples=60)
@given(count=st.integers(3, 12), magnitude=st.sampled_from([0.1, 1.0, 1e6, 3e38]), seed=SEEDS)
def test_mixing_first_leaves_little_to_a_minority(count: int, magnitude: float, seed: int) -> None:
    """However the liars place themselves, no farther from the honest mean than the honest are
    from each other, times a small constant."""
    rng = np.random.default_rng(seed)
    hostile = (count - 1) // 3
    honest = rng.standard_normal((count - hostile, 30)).astype(np.float32)
    lies = (rng.uniform(-1, 1, (hostile, 30)) * magnitude).astype(np.float32)
    went = mixed([*honest, *lies], hostile) - honest.mean(axis=0)
    apart = max(float(np.linalg.norm(a - b)) for a, b in combinations(honest, 2))
    assert np.linalg.norm(went) <= 2 * apart


def test_who_is_nearest() -> None:
    squares = np.array([[0.0, 4, 1], [4, 0, 9], [1, 9, 0]])
    assert nearest(squares, 2).tolist() == [[0, 2], [1, 0], [2, 0]]
    assert nearest(np.zeros((3, 3)), 1).ravel().tolist() == [0, 1, 2], "itself before its equals"


def test_half_of_them_may_not_lie() -> None:
    with pytest.raises(ValueError, match="2 of 4"):
        robust_mean(np.zeros(3, np.float32), [np.ones(3, np.float32)] * 3, 2)


@pytest.mark.parametrize(
    ("others", "pulls", "share", "expected"),
    [
        (19, 7, 0.2, 3),
        (99, 7, 0.2, 3),
        (4, 4, 0.2, 1),
        (2, 2, 0.2, 0),
        (19, 7, 0.0, 0),
        (0, 0, 0.2, 0),
    ],
)
def test_the_liars_reckoned_with(others: int, pulls: int, share: float, expected: int) -> None:
    assert tolerated(others, pulls, share) == expected


@settings(max_examples=200)
@given(st.integers(1, 200), st.integers(1, 30), st.floats(0, 0.49), SEEDS)
def test_more_are_drawn_rarely_or_would_be_a_majority(
    others: int, pulls: int, share: float, seed: int
) -> None:
    pulls = min(pulls, others)
    reckoned = tolerated(others, pulls, share)
    assert 2 * reckoned < pulls + 1
    liars = math.floor(share * (others + 1))
    drawn = np.random.default_rng(seed).hypergeometric(liars, others - liars, pulls, 4000)
    assert (drawn > reckoned).mean() <= 0.07 or reckoned == pulls // 2
