"""The whole daemon in this process: over real sockets, with real files, in every state."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blockbuster import blockbuster_ctx

import covey
from covey.gossip.membership import Life
from covey.node import store
from covey.node.addresses import Source
from covey.node.client import Client
from covey.node.daemon import Daemon
from covey.node.endings import Deadline
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.settings import Endpoint, Settings
from covey.protocols.invite import Invite, parse
from covey.protocols.messages import Phase
from tests.node.hosts import LAYOUT, Learner, Vector, noise
from tests.node.residents import connections_end
from tests.node.waiting import PATIENCE_S, until

SETTINGS = Settings(
    name="studio",
    listen=Endpoint("127.0.0.1", 0),
    api=Endpoint("127.0.0.1", 0),
    mdns=False,
    codec="f32",
    outer_momentum=0.0,
    outer_rate=1.0,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.node.neighbours._LOOK_AROUND_S", 0.2)


def homes(folder: Path, count: int) -> list[Home]:
    """Homes of one swarm."""
    made = [Home.find(folder / str(number), {}) for number in range(count)]
    for home in made:
        home.state.mkdir(parents=True, exist_ok=True)
    record = store.create_swarm(made[0], "lab")
    for home in made[1:]:
        store.save_swarm(home, Invite("lab", record.secret))
    return made


@contextlib.asynccontextmanager
async def serving(home: Home, settings: Settings = SETTINGS) -> AsyncIterator[Daemon]:
    """A daemon that serves until the block ends; its verdict must be 0."""
    with home.lock({}):
        node = Daemon(settings, home)
        await node.start()
        life = asyncio.create_task(node.serve(None, until_eof=False))
        try:
            yield node
        finally:
            node.stop(now=False)
            await life
            await node.close()
        assert node.verdict(0) == 0


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it; no task may be left of it."""

    async def go() -> None:
        await scenario()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await connections_end()

    asyncio.run(go())


async def trainee(home: Home, vector: Vector) -> Learner:
    path = await asyncio.to_thread(lambda: home.link_socket)
    reader, writer = await asyncio.open_unix_connection(path)
    learner = Learner(vector, reader, writer)
    await learner.attach(LAYOUT, 1, None)
    await learner.started()
    return learner


def address(node: Daemon) -> str:
    return node._overview.facts.listen


def alive(node: Daemon) -> int:
    return len(node._neighbours.membership.alive())


def test_two_daemons_learn_together_and_go_on_after_a_restart(tmp_path: Path) -> None:
    async def go() -> None:
        one_home, two_home = homes(tmp_path, 2)
        async with serving(one_home) as one:
            peers = replace(SETTINGS, name="laptop", peers=(address(one),))
            async with serving(two_home, peers) as two:
                await until(lambda: alive(one) == alive(two) == 1)
                first = await trainee(one_home, noise())
                second = await trainee(two_home, noise(seed=2))
                assert np.array_equal(second.vector, noise())
                first.step(1.0)
                second.step(2.0)  # 1 apart: beyond twice its own movement the first refuses
                await asyncio.gather(first.settled(), second.settled())
                assert np.allclose(first.vector, noise() + 1.5, atol=0.01)
                assert np.allclose(second.vector, noise() + 1.5, atol=0.01)
                status = one.status()
                assert status.exchange.exchanges
                assert status.health == "ok"
                assert [peer.name for peer in one.peers()] == ["laptop"]
                for learner in (first, second):
                    await learner.leave()
                final = first.vector.copy()
            await until(lambda: one._neighbours.membership.members()[0].life is Life.LEFT)
        async with serving(one_home) as one:
            again = await trainee(one_home, noise(seed=3))
            assert np.array_equal(again.vector, final)
            (peer,) = one._book.plain()
            assert peer["addresses"]  # remembered
            await again.leave()

    play(go)


def test_two_scripts_conserve_the_sum(tmp_path: Path) -> None:
    """``covey.attach`` in two threads, as fast as they can, on two daemons."""
    together = threading.Barrier(2)

    def train(home: Home, seed: int) -> tuple[Vector, Vector]:
        """The model in the end, and what its start and its own steps add up to."""
        rng, vector = np.random.default_rng(seed), noise(seed=seed)
        with covey.attach(LAYOUT, vector, every=3, home=home.root) as flock:
            alone = vector.copy()
            together.wait(PATIENCE_S)
            for _ in range(200):
                step = 0.01 * rng.standard_normal(LAYOUT.size).astype(np.float32)
                vector += step
                alone += step
                flock.step()
        return vector, alone

    async def go() -> None:
        pair = homes(tmp_path, 2)
        async with serving(pair[0]) as one, serving(pair[1]) as two:
            await one.add_peer(address(two))
            await until(lambda: alive(one) == alive(two) == 1)
            scripts = [asyncio.to_thread(train, home, seed) for seed, home in enumerate(pair)]
            (a, a_alone), (b, b_alone) = await asyncio.gather(*scripts)
            held = [node._host.learning for node in (one, two)]
            x, y = [learning.runner.core.replica.x for learning in held if learning is not None]
            assert np.allclose(x + y, a_alone + b_alone, atol=1e-3)
            assert np.allclose(a, x, atol=1e-4)
            assert np.allclose(b, y, atol=1e-4)
            assert one.status().exchange.exchanges

    play(go)


def test_the_api_shows_and_stops_it(tmp_path: Path) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        async with serving(home) as node:
            client = Client(home)
            status = await asyncio.to_thread(client.get, "/api/v1/status")
            assert status["node"]["name"] == "studio"
            assert status["swarm"]["name"] == "lab"
            assert (await asyncio.to_thread(client.get, "/readyz"))["ready"]
            assert (await asyncio.to_thread(client.get, "/version"))["protocol"]
            await node.add_peer("127.0.0.1:9")
            assert Source.STATIC in node._book.entries(None)[0].sources
            line = node.invite(60)
            found = parse(line, time.time())
            assert found.name == "lab"
            assert address(node) in found.addresses
            await asyncio.to_thread(client.post, "/api/v1/shutdown", {"now": False})
            await until(lambda: node.stopping)

    play(go)


def test_the_ports_are_the_same_next_time(tmp_path: Path) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        free = replace(SETTINGS, listen=Endpoint("127.0.0.1"), api=Endpoint("127.0.0.1"))
        async with serving(home, free) as node:
            first = (address(node), node._overview.facts.api)
        async with serving(home, free) as node:
            assert (address(node), node._overview.facts.api) == first
        with socket.create_server(("127.0.0.1", int(first[0].rpartition(":")[2]))):
            async with serving(home, free) as node:
                assert address(node) != first[0]

    play(go)


def test_a_start_that_fails_can_be_closed_and_loses_nothing(tmp_path: Path) -> None:
    (home,) = homes(tmp_path, 1)
    home.peers_file.write_text('[{"peer": "x", "addresses": []}]')

    async def go(settings: Settings) -> None:
        with home.lock({}):
            node = Daemon(settings, home)
            try:
                with pytest.raises(OperatorError):
                    await node.start()
            finally:
                await node.close()
        assert "peer" in home.peers_file.read_text()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = Endpoint("127.0.0.1", taken.getsockname()[1])
        play(lambda: go(replace(SETTINGS, listen=there)))
        play(lambda: go(replace(SETTINGS, api=there)))


def test_one_that_never_started_can_be_closed(tmp_path: Path) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        with home.lock({}):
            node = Daemon(SETTINGS, home)
            await node.close()
            node = Daemon(SETTINGS, home)
            node.stop(now=False)  # a signal that came early
            await node.start()
            assert await node.serve(None, until_eof=False) == 0
            await node.close()

    play(go)


def test_settings_that_diverge_are_the_operators(tmp_path: Path) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        with home.lock({}), pytest.raises(OperatorError, match="drives nodes apart"):
            Daemon(replace(SETTINGS, outer_momentum=0.9, outer_rate=1.5), home)

    play(go)


def test_every_step_of_closing_is_taken_although_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        with home.lock({}):
            node = Daemon(SETTINGS, home)
            await node.start()
            learner = await trainee(home, noise())
            learner.step(1.0)
            await learner.settled()

            async def broken(*_: object) -> None:
                raise ZeroDivisionError("a bug")

            monkeypatch.setattr(node._neighbours, "leave", broken)
            with pytest.raises(ZeroDivisionError):
                await node.close()
            await learner.crash()
            assert list(home.checkpoints.glob("*.json"))

    play(go)


@pytest.mark.parametrize("where", ["_turn", "work", "task"])
def test_a_bug_anywhere_ends_the_node_with_one(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError("a bug")

    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        with home.lock({}):
            node = Daemon(SETTINGS, home)
            await node.start()
            life = asyncio.create_task(node.serve(None, until_eof=False))
            learner = await trainee(home, noise())
            held = node._host.learning
            assert held is not None
            match where:
                case "_turn":
                    monkeypatch.setattr(node._neighbours.membership, "to_probe", broken)
                case "work":
                    monkeypatch.setattr(held.runner.core, "progress", broken)
                case _:
                    monkeypatch.setattr(held.conversation, "propose", broken)
                    monkeypatch.setattr(held, "_partners", broken)
            learner.hand_over()
            async with asyncio.timeout(PATIENCE_S):
                code = await life
            await node.close()
            assert node.verdict(code) == 1
            assert node.checks()["membership"] != "ok"
            await learner.crash()

    play(go)
    assert any(record.levelname == "CRITICAL" for record in caplog.records)
    assert "a bug" in caplog.text


def test_an_operators_fault_in_the_background_is_told_in_one_line(tmp_path: Path) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        with home.lock({}):
            node = Daemon(SETTINGS, home)
            await node.start()
            node.failed(OperatorError("the disk is gone", "put it back"))
            code = await node.serve(None, until_eof=False)
            await node.close()
            with pytest.raises(OperatorError, match="the disk is gone"):
                node.verdict(code)

    play(go)


def test_being_told_to_stop_begins_the_deadline(tmp_path: Path) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        with home.lock({}):
            deadline = Deadline(3600.0)
            node = Daemon(SETTINGS, home, deadline)
            await node.start()
            assert not deadline._timer.is_alive()
            node.stop(now=False)
            assert deadline._timer.is_alive()
            deadline.cancel()
            await node.close()

    play(go)


def test_a_daemon_does_not_block_its_loop(tmp_path: Path) -> None:
    """Nor do its peers and its learner make it."""

    async def go() -> None:
        one_home, two_home = homes(tmp_path, 2)
        async with serving(one_home) as one, serving(two_home) as two:
            with blockbuster_ctx(scanned_modules=["covey.node"]) as watch:
                watch.functions["os.write"].can_block_in("node/tls.py", "_as_file")  # to memory
                await one.add_peer(address(two))
                await until(lambda: alive(one) == alive(two) == 1)
                learners = [await trainee(home, noise()) for home in (one_home, two_home)]
                learners[0].step(1.0)
                await asyncio.gather(*(learner.settled() for learner in learners))
                await one._host.save()
                await one._save_peers()
                for learner in learners:
                    await learner.leave()

    play(go)


def test_many_learners_leave_no_file_and_no_descriptor(tmp_path: Path) -> None:
    async def go() -> None:
        (home,) = homes(tmp_path, 1)
        async with serving(home) as node:
            counts = []
            for _ in range(8):
                learner = await trainee(home, noise())
                learner.step(1.0)
                await learner.settled()
                await learner.leave()
                await until(lambda: node.status().training.state == Phase.IDLE)
                await until(lambda: not list(home.maps.glob("*.map")))
                counts.append(len(os.listdir("/dev/fd")))
            assert max(counts[3:]) <= max(counts[:3]) + 2

    play(go)
