"""The invite line: from the node if it runs, from the home if not, never from nothing."""

from typing import TYPE_CHECKING

import pytest

from covey.node import store
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.inviting import invite_line
from covey.protocols.invite import Invite, parse

if TYPE_CHECKING:
    from tests.node.conftest import FakeNode


def test_a_running_node_knows_best(node: "FakeNode") -> None:
    assert invite_line(node.home, 3600) == "covey1-fake"
    assert node.control.invited == [3600]


def test_a_home_remembers_its_swarm(home: Home) -> None:
    store.save_swarm(home, Invite("lab", b"l" * 32, ("10.0.0.1:17700",)))
    assert parse(invite_line(home, 0), now=4e9).addresses == ("10.0.0.1:17700",)
    with pytest.raises(ValueError, match="expired"):
        parse(invite_line(home, 3600), now=4e9)


def test_without_a_swarm_the_fix_is_told(home: Home) -> None:
    with pytest.raises(OperatorError, match="belongs to no swarm yet") as caught:
        invite_line(home, 0)
    assert "covey up" in caught.value.fix
