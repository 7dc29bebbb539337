"""The algorithm is chosen by name, and nodes with different ones leave each other alone."""

from dataclasses import replace
from random import Random

import pytest

from covey.gossip import algorithms
from covey.gossip.config import ALGORITHMS, Config
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout, Tensor

LAYOUT = Layout.of([Tensor("w", (8,))])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_configuration_names_it(name: str) -> None:
    config = replace(Config(), algorithm=name)
    core = algorithms.create(PeerId(bytes(32)), config, LAYOUT, Random(1))
    assert core.algorithm == name
    assert core.config is config


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown algorithm 'pairs'; there are 'pair'"):
        Config(algorithm="pairs")
