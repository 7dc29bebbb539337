"""Lanes and their names in the handshake."""

import pytest

from covey.node.ledger import Lane, Ledger


@pytest.mark.parametrize("lane", list(Lane))
def test_a_lane_is_known_by_its_alpn(lane: Lane) -> None:
    assert Lane.of_alpn(lane.alpn) is lane


@pytest.mark.parametrize("selected", [None, "h2", "covey/2"])
def test_anything_else_counts_as_control(selected: str | None) -> None:
    assert Lane.of_alpn(selected) is Lane.CONTROL


def test_names_on_the_wire() -> None:
    assert [lane.alpn for lane in Lane] == ["covey/1", "covey-exchange/1", "covey-state/1"]
    assert Ledger().sent == Ledger().received == {lane: 0 for lane in Lane}
