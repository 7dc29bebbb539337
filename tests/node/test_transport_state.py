"""Copying a state from a peer: resumed when the connection breaks, and never believed unhashed."""

import asyncio
import time
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from covey.node import streams, transport
from covey.node.rate import OFF, Rate
from covey.node.transport import Kind, Unreachable
from covey.protocols.errors import Forged, Malformed
from covey.protocols.messages import StateOffer
from tests.node.members import SECRET, Member, Proxy, members, noise, standing
from tests.node.waiting import until

MIB = 1 << 20


def test_a_state_is_resumed_after_each_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STATE_BACKOFF_S", 0.001)

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            state = noise(6 * MIB)
            offer = two.handler.give(state, tmp_path / "state")
            room, told = bytearray(len(state)), list[int]()

            async with Proxy(two.port) as proxy:
                proxy.cut_after = 2 * MIB

                def progress(done: int) -> None:
                    if proxy.connections == 2 and proxy.cut_after is None and done < 4 * MIB:
                        proxy.cut_after = proxy.down + MIB
                    told.append(done)

                await one.transport.fetch_state(
                    two.peer, proxy.address, offer, memoryview(room), progress
                )
                assert proxy.connections >= 3
                assert proxy.down < 1.5 * len(state)
            assert room == state
            assert told == sorted(told)
            assert told[-1] == len(state)

    asyncio.run(go())


def test_a_state_that_does_not_match_its_hash_is_forged(tmp_path: Path) -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            offer = two.handler.give(noise(MIB), tmp_path / "state")
            (tmp_path / "state").write_bytes(noise(MIB, seed=2))
            with pytest.raises(Forged, match="does not match its hash"):
                await fetch(one, two, offer)

    asyncio.run(go())


@pytest.mark.parametrize("length", [1000 - 4, 1000 + 4])
def test_a_state_of_another_length_is_malformed(length: int, tmp_path: Path) -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            offer = two.handler.give(noise(1000), tmp_path / "state")
            (tmp_path / "state").write_bytes(noise(length))
            with pytest.raises(Malformed, match="another length"):
                await fetch(one, two, offer)

    asyncio.run(go())


def test_tries_without_progress_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "STATE_BACKOFF_S", 0.001)

    async def go() -> int:
        async with members(SECRET, SECRET) as (one, two):
            offer = two.handler.give(noise(6 * MIB), tmp_path / "state")
            async with Proxy(two.port) as proxy:
                proxy.cut_after = 100

                def progress(done: int) -> None:
                    proxy.cut_after = 100

                with pytest.raises(Unreachable) as caught:
                    await one.transport.fetch_state(
                        *(two.peer, proxy.address, offer),
                        memoryview(bytearray(offer.length)),
                        progress,
                    )
                assert caught.value.kind is Kind.CUT
                return proxy.connections

    assert asyncio.run(go()) <= 6 * transport.STATE_TRIES


def test_an_offer_that_is_gone_is_not_asked_for_again(tmp_path: Path) -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            offer = two.handler.give(noise(1000), tmp_path / "state")
            two.handler.files.clear()
            with pytest.raises(Unreachable) as caught:
                await fetch(one, two, offer)
            assert caught.value.kind is Kind.NOTHING

    asyncio.run(go())


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_limit_holds_a_copy_back_but_no_probe(tmp_path: Path, way: str) -> None:
    """At 1 Mbit/s it would take half a minute: time for any number of probes."""
    state = noise(4 * MIB)

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            throttle = two.limits.up if way == "up" else one.limits.down
            throttle.limit(Rate.parse("1mbit"))
            offer = await asyncio.to_thread(two.handler.give, state, tmp_path / "state")
            room, told = bytearray(len(state)), [0]
            began = time.monotonic()
            copying = asyncio.create_task(
                one.transport.fetch_state(
                    two.peer, two.address, offer, memoryview(room), told.append
                )
            )
            for _ in range(20):
                await one.transport.probe(two.peer, two.address, standing(), 5.0)
            await until(lambda: told[-1])
            elapsed_s = time.monotonic() - began
            assert told[-1] <= 125_000 * (elapsed_s + 0.05) + streams.READ_BUFFER_BYTES
            throttle.limit(OFF)
            await copying
            assert room == state

    asyncio.run(go())


async def fetch(one: Member, two: Member, offer: StateOffer) -> bytearray:
    room = bytearray(offer.length)
    await one.transport.fetch_state(
        two.peer, two.address, offer, memoryview(room), lambda done: None
    )
    return room


def test_nothing_blocks_the_event_loop(tmp_path: Path) -> None:
    state, payload = noise(3 * MIB), noise(MIB)

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            offer = await asyncio.to_thread(two.handler.give, state, tmp_path / "state")
            await one.transport.hello(two.address)
            await one.transport.probe(two.peer, two.address, standing(), 5.0)
            await one.exchange(two.peer, two.address, one.sealed(payload), payload)
            assert await fetch(one, two, offer) == state
            assert two.handler.rejections == []

    with blockbuster_ctx() as guard:
        # A file in memory, for the one call of ssl that takes a path only.
        guard.functions["os.write"].can_block_in("node/tls.py", "_as_file")
        asyncio.run(go())
