"""The algorithm is chosen by name, and nodes with different ones leave each other alone."""

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from covey.gossip import algorithms
from covey.gossip.config import ALGORITHMS, Config
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout, Tensor

if TYPE_CHECKING:
    from tests.gossip.conftest import Flock

LAYOUT = Layout.of([Tensor("w", (8,))])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_configuration_names_it(name: str) -> None:
    config = replace(Config(), algorithm=name)
    core = algorithms.create(PeerId(bytes(32)), config, LAYOUT, Random(1))
    assert core.algorithm == name
    assert core.config is config


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    known = "'pair', 'push-sum', 'relay', 'robust-pull'"
    with pytest.raises(ValueError, match=f"unknown algorithm 'pairs'; there are {known}"):
        Config(algorithm="pairs")


@pytest.mark.parametrize("asked", ALGORITHMS)
@pytest.mark.parametrize("asking", ALGORITHMS)
def test_two_algorithms_refuse_each_other_by_name(
    flocks: type["Flock"], asking: str, asked: str
) -> None:
    flock = flocks(2, 200, 10, Config(algorithm=asking), seed=1).scattered()
    a, b = flock.cores
    b = algorithms.create(b.me, Config(algorithm=asked), flock.layout, Random(1))
    b.begin(flock.cores[1].replica.x, a.lineage)
    b.accepting = True
    flock.of[b.me] = b
    before = a.replica.x.copy(), b.replica.x.copy()
    a.open_period(1)
    while not flock.propose(a, [b]):
        a.open_period(1)  # the first node of a relay has something to hand over in its second
    flock.run()
    refused = [(o.reason, o.detail) for o in flock.outcomes if o.reason == "algorithm"]
    if asking == asked:
        assert not refused
        return
    assert refused == [("algorithm", f"this node learns by {asked!r}, not by {asking!r}")]
    assert np.array_equal(a.replica.x, before[0])
    assert np.array_equal(b.replica.x, before[1])
    assert not a.busy
    assert not b.busy
