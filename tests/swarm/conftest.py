"""Swarms for the tests: an empty one for each test, and one of two nodes that all share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.swarm.flock import Flock, Node


@pytest.fixture
def flock(tmp_path: Path) -> Iterator[Flock]:
    """An empty swarm."""
    made = Flock(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    made = Flock(tmp_path_factory.mktemp("shared"))
    try:
        nodes = [made.run("ada"), made.run("bob")]
        for node in nodes:
            node.ready()
        for node in nodes:
            node.learns_on(10)
        yield nodes
    finally:
        made.close()


@pytest.fixture
def training(_shared: list[Node]) -> Iterator[list[Node]]:
    """Two nodes that train together and that a test leaves alone; it brings whom it meddles with,
    in the same flock, and they end with the test."""
    yield _shared
    _shared[0].flock.keep(_shared)
