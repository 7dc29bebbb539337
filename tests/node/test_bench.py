"""``covey bench``: what is measured, what follows from it, and what is told without a node."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from covey.gossip import native
from covey.node import bench, cli, store
from covey.node.bench import Arithmetic, Way
from covey.node.home import Home
from covey.node.transport import Unreachable
from covey.protocols import limits
from covey.protocols.errors import RemoteError
from covey.protocols.invite import Invite
from tests.node.members import SECRET, Member, members

if TYPE_CHECKING:
    from tests.node.conftest import FakeNode

WORK = Arithmetic(1000, 0.01, 0.02, 0.03)


def told(member: Member, **changes: Any) -> dict[str, Any]:
    """A peer as the API tells of it."""
    address = {"addr": member.address, "ok": True}
    peer = {"id": member.peer.text, "name": "two", "rtt_s": 0.0001, "addresses": [address]}
    return peer | changes


# --- the way to a peer ---------------------------------------------------------------------------


def test_the_way_is_measured_in_both_directions() -> None:
    async def go() -> Way:
        async with members(SECRET, SECRET) as (one, two):
            dead = {"addr": "127.0.0.1:1", "ok": False}
            addresses = [dead, {"addr": two.address, "ok": True}]
            way = await bench.measure_way(one.transport, told(two, addresses=addresses))
            assert sum(two.ledger.received.values()) > limits.SAMPLE_BYTES_MAX
            assert sum(two.ledger.sent.values()) > limits.SAMPLE_BYTES_MAX
            assert two.handler.rejections == []
            return way

    way = asyncio.run(go())
    assert (way.name, way.error, way.rtt_s) == ("two", "", 0.0001)
    assert way.up_Bps is not None
    assert way.down_Bps is not None
    assert min(way.up_Bps, way.down_Bps) > 0


def test_a_peer_that_does_not_answer_is_told() -> None:
    async def go() -> Way:
        async with members(SECRET, SECRET) as (one, two):
            dead = [{"addr": "127.0.0.1:1", "ok": None}]
            return await bench.measure_way(one.transport, told(two, addresses=dead))

    way = asyncio.run(go())
    assert "127.0.0.1:1" in way.error
    assert way.up_Bps is None


def test_a_sample_is_bounded_and_takes_a_slot() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            with pytest.raises((Unreachable, RemoteError)):
                await one.transport.sample(two.peer, two.address, limits.SAMPLE_BYTES_MAX + 1)
            assert two.handler.reasons == ["too_large"]
            several = (one.transport.sample(two.peer, two.address, 1 << 20) for _ in range(2))
            assert all(there > 0 and back >= 0 for there, back in await asyncio.gather(*several))

    asyncio.run(go())


def test_the_node_of_a_home_measures_as_the_member_it_is(home: Home) -> None:
    store.save_swarm(home, Invite("lab", SECRET))

    async def go() -> list[Way]:
        async with members(SECRET) as (two,):
            return await bench.measure_ways(home, [told(two)], {"up_Bps": None})

    [way] = asyncio.run(go())
    assert way.error == ""


# --- what follows --------------------------------------------------------------------------------


def test_the_slower_direction_and_the_median_peer_decide() -> None:
    ways = [Way("A", "a", "", 0.01, up, 9e9) for up in (1e6, 2e6, 5e6)]
    found = bench.advise(WORK, [*ways, Way("B", "b", "", error="gone")], 1_000_000, 20.0)
    assert found.exchange_s == pytest.approx(0.06 + 0.5 + 0.02)
    assert found.exchanges_per_min == pytest.approx(60 / 0.58)
    assert found.every_s == pytest.approx(5.8), "a tenth of the time"
    assert found.every_steps == 116


def test_without_peers_the_arithmetic_decides() -> None:
    found = bench.advise(WORK, [], 1000, None)
    assert found.exchange_s == pytest.approx(0.06)
    assert found.exchanges_per_min == pytest.approx(1000)
    assert found.every_s == pytest.approx(0.6)
    assert found.every_steps is None


def test_a_large_model_is_reckoned_from_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_MEASURED_MAX", 64_000)
    monkeypatch.setattr(bench, "seconds", lambda work: (work(), 0.5)[1])
    found = bench.arithmetic(640_000)
    assert (found.parameters, found.encode_s, found.decode_s, found.rest_s) == (640_000, 5, 0, 5)


def test_a_payload_is_half_a_byte_per_parameter() -> None:
    assert bench.payload_bytes(64_000) == pytest.approx(0.547 * 64_000, rel=0.001)


# --- the command ---------------------------------------------------------------------------------


def test_alone_it_measures_the_arithmetic(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--home", str(home.root), "-p", "64000"]) == 0
    out = capsys.readouterr().out
    assert "64,000 parameters" in out
    assert native.IN_USE in out
    assert "no node runs here" in out
    assert 'suggested   every="0.5s"' in out


def test_the_model_is_that_of_the_node(node: "FakeNode", monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def ways(home: Home, peers: list[dict[str, Any]], caps: object) -> list[Way]:
        asked.extend(peers)
        return [Way("CCCCCCC", "two", "10.0.0.2:17700", 0.002, 12.5e6, 12.5e6)]

    monkeypatch.setattr(bench, "measure_ways", ways)
    found = bench.run(node.home)
    assert [peer["name"] for peer in asked] == ["two"], "only who is alive"
    assert (found["arithmetic"]["parameters"], found["running"]) == (1000, True)
    assert found["peers"][0]["up_Bps"] == 12.5e6


def test_peers_are_told_in_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    ways = [
        Way("CCCCCCC", "two", "10.0.0.2:17700", 0.002, 12.5e6, 1e8),
        Way("DDDDDDD", "", "10.0.0.3:17700", error="10.0.0.3:17700 refused"),
    ]
    found = {
        "kernels": "C (avx2)",
        "running": True,
        "payload_bytes": 5_000_000,
        "arithmetic": {"parameters": 1000, "encode_s": 0.01, "decode_s": 0.02, "rest_s": 2.0},
        "peers": [
            {"id": w.id, "name": w.name, "rtt_s": w.rtt_s, "up_Bps": w.up_Bps}
            | {"down_Bps": w.down_Bps, "error": w.error}
            for w in ways
        ],
        "exchange_s": 0.5,
        "exchanges_per_min": 120.0,
        "every_s": 5.0,
        "every_steps": 100,
    }
    bench.print_found(found)
    out = capsys.readouterr().out
    assert "encode 10 ms, decode 20 ms, rest 2 s" in out
    assert "two         rtt 2 ms, up 12.5 MB/s, down 100.0 MB/s" in out
    assert "DDDDDDD     10.0.0.3:17700 refused" in out
    assert "about 500 ms for 5.0 MB each way: at most 120 a minute" in out
    assert 'suggested   every="5s", at this speed every=100' in out
