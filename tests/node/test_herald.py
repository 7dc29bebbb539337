"""What a person reads about peers, from a real event log."""

import asyncio
from collections.abc import Callable

import pytest

from covey.node.events import Event, EventLog
from covey.node.herald import Herald
from covey.protocols import limits
from tests.node.waiting import until

SILENT = "silent for 8.1 s, 5 probes missed"


class Listener:
    """A herald, what happens for it and what it has said."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.lines: list[str] = []
        self.herald = Herald(self.events, self.lines.append)

    def happens(self, type: str, now: float, peer: str = "ABCDEFG") -> None:
        event = self.events.emit(f"peer.{type}", peer=peer, name="studio", why=SILENT)
        self.herald.note(event, now)

    def learns(self, now: float, peer: str = "ABCDEFG") -> None:
        self.herald.note(self.events.emit("merge.applied", peer=peer, reason=""), now)

    def said(self) -> list[str]:
        lines = self.lines.copy()
        self.lines.clear()
        return lines


def test_one_line_each_for_coming_learning_and_leaving() -> None:
    listener = Listener()
    listener.happens("alive", 0.0)
    for now in (1.0, 2.0):
        listener.learns(now)
    listener.happens("suspect", 3.0)
    listener.happens("alive", 4.0)  # heard again, or another boot of it
    listener.happens("left", 5.0)
    assert listener.said() == [
        "studio (ABCDEFG) is here",
        "learning with studio (ABCDEFG)",
        "studio (ABCDEFG) has left",
    ]


def test_a_death_says_why_and_a_return_is_told() -> None:
    listener = Listener()
    listener.happens("alive", 0.0)
    listener.happens("dead", 100.0)
    listener.happens("alive", 200.0)
    listener.learns(201.0)
    assert listener.said() == [
        "studio (ABCDEFG) is here",
        f"studio (ABCDEFG) is gone: {SILENT}",
        "studio (ABCDEFG) is back",
        "learning with studio (ABCDEFG)",
    ]
    listener.happens("dead", 300.0)
    listener.happens("alive", 400.0)
    listener.learns(401.0)
    assert "learning with studio (ABCDEFG)" not in listener.said()


@pytest.mark.parametrize("end", ["alive", "dead"])
def test_flapping_is_told_once_a_minute_and_ends_with_the_truth(end: str) -> None:
    listener = Listener()
    for second in range(0, 600, 10):
        listener.happens("dead" if second % 20 else "alive", float(second))
    assert 10 <= len(listener.said()) <= 20
    listener.happens(end, 601.0)
    listener.herald.tell(700.0)
    listener.herald.tell(800.0)
    told = listener.said()
    assert len(told) <= 1
    listener.happens("dead" if end == "alive" else "alive", 900.0)
    assert len(listener.said()) == 1, "it was not what had been said last"


def test_where_the_weights_come_from() -> None:
    listener = Listener()
    listener.happens("alive", 0.0)
    listener.said()
    for type, data in (
        ("train.founded", {"founder": "00ff"}),
        ("train.restored", {"step": 18400, "age": 7}),
        ("train.copied", {"peer": "ABCDEFG", "age": 7}),
        ("train.copied", {"peer": "OTHERID", "age": 7}),
        ("train.started", {"age": 7}),
        ("gap", {"missed": 3}),
    ):
        listener.herald.note(Event(1, "", type, data), 1.0)
    assert listener.said() == [
        "nobody has weights of this model yet: beginning with the script's",
        "going on from this node's checkpoint of step 18,400",
        "copied the weights of studio (ABCDEFG)",
        "copied the weights of OTHERID",
    ]


def test_it_remembers_a_bounded_number() -> None:
    listener = Listener()
    for number in range(limits.PEERS_MAX + 5):
        listener.happens("alive", 0.0, f"P{number}")
    assert len(listener.herald._peers) == limits.PEERS_MAX
    assert len(listener.said()) == limits.PEERS_MAX + 5


def test_it_follows_the_log_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.node.herald._QUIET_S", 0.05)
    listener = Listener()

    async def follow(lines: int, happen: Callable[[], object]) -> None:
        happen()
        await until(lambda: len(listener.lines) == lines)

    async def scenario() -> None:
        about = {"peer": "ABCDEFG", "name": "studio", "why": SILENT}
        task = asyncio.create_task(listener.herald.run())
        await follow(1, lambda: listener.events.emit("peer.alive", **about))
        await follow(2, lambda: listener.events.emit("peer.dead", **about))
        # Too soon for the same line again: said by itself later.
        await follow(3, lambda: listener.events.emit("peer.alive", **about))
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())
    assert listener.said()[-1] == "studio (ABCDEFG) is back"


def test_it_speaks_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    events = EventLog()
    herald = Herald(events)
    herald.note(events.emit("peer.alive", peer="ABCDEFG", name="studio", why=""), 0.0)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "covey: studio (ABCDEFG) is here\n")
