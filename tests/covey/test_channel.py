"""A channel never blocks, and passes on the node's last words before its end."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from covey.channel import Channel, Lost, open_map
from covey.protocols import link
from covey.protocols.errors import Malformed

Pair = tuple[Channel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    channel = Channel(here)
    with there:
        yield channel, there
    channel.close()


def test_frames_both_ways(pair: Pair) -> None:
    channel, there = pair
    assert channel.receive() == []
    channel.send(link.Applied(1))
    assert link.Decoder().feed(there.recv(1000)) == [link.Applied(1)]
    there.send(link.encode(link.Pace(1.0)) + link.encode(link.Consumed(2)))
    channel.wait(30)
    assert channel.receive() == [link.Pace(1.0), link.Consumed(2)]


def test_a_node_that_does_not_read_blocks_nobody(pair: Pair) -> None:
    channel, there = pair
    frame = link.Attach(1, b"x" * 1_000_000, "n", 1, "")
    channel.send(frame)
    channel.send(link.Settle())
    assert channel.congested
    decoder, frames = link.Decoder(), list[link.Frame]()
    there.setblocking(False)
    while channel.congested:
        frames += decoder.feed(there.recv(1 << 20))
        channel.wait(30)
        channel.receive()
    while len(frames) < 2:
        frames += decoder.feed(there.recv(1 << 20))
    assert frames == [frame, link.Settle()]


def test_the_last_words_come_before_the_end(pair: Pair) -> None:
    channel, there = pair
    there.send(link.encode(link.Rejected("no")))
    there.close()
    channel.send(link.Applied(1))
    channel.send(link.Applied(2))
    assert not channel.congested
    assert channel.receive() == [link.Rejected("no")]
    with pytest.raises(Lost):
        channel.receive()


def test_drain_ends_with_the_node_or_the_time(pair: Pair) -> None:
    channel, there = pair
    there.send(link.encode(link.Consumed(1)))
    channel.drain(0.0)
    there.close()
    channel.drain(3600.0)


def test_nonsense_is_as_good_as_an_end(pair: Pair) -> None:
    channel, there = pair
    there.send(b"\xff\xff\xff\xff")
    with pytest.raises(Lost, match="a frame of"):
        channel.receive()


def test_a_map_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    data = bytearray(link.Geometry(3).total_bytes)
    link.head(memoryview(data), 3)
    path.write_bytes(data)
    areas = open_map(str(path), 3)
    areas.snapshot[:] = 1
    assert open_map(str(path), 3).snapshot.tolist() == [1, 1, 1]
    with pytest.raises(Malformed):
        open_map(str(path), 4)
    with pytest.raises(FileNotFoundError):
        open_map(str(tmp_path / "y.map"), 3)
