"""Which model stands: a total order at any time, and one flock in the end."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.lineage import eldest, mixable, older, outranks, should_copy
from covey.protocols import limits
from covey.protocols.messages import Lineage

AGES = st.one_of(st.integers(0, 300), st.integers(0, limits.AGE_MAX))
LINEAGES = st.builds(Lineage, st.sampled_from([bytes([i]) * 32 for i in range(4)]), AGES)
NONE = Lineage()


def named(name: int, age: int = 0) -> Lineage:
    return Lineage(bytes([name]) * 32, age)


@given(LINEAGES, LINEAGES, LINEAGES)
def test_one_of_two_lineages_stands_and_the_order_has_no_cycle(
    a: Lineage, b: Lineage, c: Lineage
) -> None:
    assert not outranks(a, a)
    if a.founder != b.founder:
        assert outranks(a, b) != outranks(b, a)
    if len({a.founder, b.founder, c.founder}) == 3 and outranks(a, b) and outranks(b, c):
        assert outranks(a, c)


@given(LINEAGES, LINEAGES)
def test_two_that_meet_mix_or_one_copies(a: Lineage, b: Lineage) -> None:
    assert mixable(a, b) == mixable(b, a)
    assert mixable(a, b) + should_copy(a, b) + should_copy(b, a) == 1


def test_no_model_gives_way_to_any() -> None:
    assert should_copy(NONE, named(9))
    assert not should_copy(named(9), NONE)
    assert not should_copy(NONE, NONE)
    assert not mixable(NONE, NONE)
    assert not mixable(NONE, named(1))


def test_the_longer_trained_stands_then_the_smaller_founder() -> None:
    assert outranks(named(9, 16), named(1, 15))
    assert outranks(named(1, 8), named(9, 15)), "as many doublings"
    assert outranks(named(1), named(2))


def test_a_laggard_copies_only_from_far_ahead() -> None:
    assert not should_copy(named(1, 0), named(1, 16))
    assert should_copy(named(1, 0), named(1, 17))
    assert not should_copy(named(1, 100), named(1, 200))
    assert should_copy(named(1, 100), named(1, 201))
    assert not should_copy(named(1, 201), named(1, 100))


def test_the_age_grows_up_to_a_bound() -> None:
    assert older(named(1, 4)) == named(1, 5)
    assert older(named(1, limits.AGE_MAX)).age == limits.AGE_MAX


def test_the_eldest_age_is_passed_on() -> None:
    assert eldest(named(1, 4), named(1, 6)) == eldest(named(1, 6), named(1, 4)) == named(1, 6)
    with pytest.raises(AssertionError):
        eldest(named(1), named(2))


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(0, 40))
def test_fresh_flocks_that_meet_at_random_end_as_one(seed: int, size: int, apart: int) -> None:
    """All train on while they meet, at different speeds, and some trained alone before."""
    rng = Random(seed)
    nodes = [named(name, rng.randrange(apart + 1)) for name in range(size)]
    speeds = [rng.choice([1, 1, 3, 8]) for _ in nodes]
    copies = meetings = 0
    while len({node.founder for node in nodes}) > 1:
        i, j = rng.sample(range(size), 2)
        for k, other in ((i, nodes[j]), (j, nodes[i])):
            if should_copy(nodes[k], other):
                nodes[k] = other
                copies += 1
                break
            if mixable(nodes[k], other):
                nodes[k] = eldest(nodes[k], other)
        meetings += 1
        if meetings % size == 0:
            nodes = [
                older(node) if rng.random() < speed / 8 else node
                for node, speed in zip(nodes, speeds, strict=True)
            ]
        assert meetings < 400 * size, "no lineage won"
    assert copies < 12 * size, "flocks swap back and forth"


def test_without_training_the_smallest_founder_stands() -> None:
    rng = Random(3)
    nodes = [named(name) for name in range(1, 9)]
    for _ in range(200):
        i, j = rng.sample(range(8), 2)
        if should_copy(nodes[i], nodes[j]):
            nodes[i] = nodes[j]
    assert set(nodes) == {named(1)}
