"""What is measured, in groups that each set up what they need: a group yields its rows."""

import contextlib
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.benchmarks.learner_step import idle_step
from tests.benchmarks.perf import calm
from tests.benchmarks.perf.contests import alternate
from tests.benchmarks.perf.peers import Contestant, Guest, Peers
from tests.benchmarks.perf.processes import DRIVERS, Driver, elapsed_s, pinned, together
from tests.benchmarks.perf.rows import (
    Row,
    Target,
    budgeted,
    compared,
    percentile,
    worst_deviation,
)
from tests.benchmarks.perf.swarms import Swarm, swarm
from tests.swarm.flock import Flock
from tests.swarm.netns import Machine, lan

MEGABYTE = 1e6
EVERY = 50  # steps, as in drivers/trainer.py
_TRIES = 5  # rounds, for one with a single exchange
WIRE_BYTES_MAX = 0.62  # per parameter, exchange and direction


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    parameters: int = 10_000_000
    repeats: int = 7
    nodes: int = 4
    steps: int = 100  # of training by turns ...
    turns: int = 25
    flat_out_s: float = 20.0
    sizes: tuple[int, ...] = (100_000, 1_000_000, 10_000_000, 30_000_000, 100_000_000)
    flocks: tuple[int, ...] = (8, 32)  # of two nodes each is the other's only choice
    flock_parameters: int = 100_000
    period_s: float = 3.0
    periods: int = 16
    environments: Path = Path(".bench")


SHORT = replace(
    Plan(),
    repeats=3,
    turns=5,
    flat_out_s=5.0,
    sizes=(100_000, 1_000_000, 10_000_000),
    flocks=(4, 8),
    periods=4,
)


@dataclass(frozen=True)
class Bench:
    plan: Plan
    peers: Peers
    left_out: list[str] = field(default_factory=list)  # and why

    def million(self) -> str:
        return f"{self.plan.parameters / 1e6:g} M"

    def installed(self, peer: str) -> bool:
        """Whether it is; if not, that is told at the end."""
        there = self.peers.python(peer) is not None
        if not there:
            self.left_out.append(f"{peer}: not installed, see `make bench-peers`")
        return there

    def failed(self, peer: str, guest: Guest) -> bool:
        """Whether it did; if so, that is told now and at the end."""
        if guest.failure is None:
            return False
        print(guest.failure, file=sys.stderr)
        self.left_out.append(f"{peer}: {guest.failure.why}")
        print(f"left out: {self.left_out[-1]}", flush=True)
        return True


def loopback(bench: Bench) -> Iterator[Row]:
    """Two nodes on this machine against Gloo, which neither encrypts, signs nor compresses."""
    plan = bench.plan
    with swarm(2) as ours, bench.peers.gloo(2, plan.parameters) as gloo:
        ours.train(plan.parameters)
        mine, theirs = alternate(plan.repeats, ours, gloo)
        yield _made("loopback", ours)
        name = f"exchange of {bench.million()}, 2 nodes"
        yield compared(
            *("loopback", name, "s", mine.seconds, theirs.seconds),
            *("Gloo pair", Target(most=1.0)),
        )
        yield compared("loopback", f"{name}: processor", "s", mine.cpu_s, theirs.cpu_s, "Gloo pair")


def crowd(bench: Bench) -> Iterator[Row]:
    """Four nodes at once, on the cores that there are, against everybody."""
    plan, peers = bench.plan, bench.peers
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(swarm(plan.nodes))
        ours.train(plan.parameters)
        gloo = stack.enter_context(peers.gloo(plan.nodes, plan.parameters))
        others: dict[str, Contestant] = {"Gloo pair": gloo, "Gloo all-reduce": gloo.doing("all")}
        if bench.installed("hivemind"):
            hivemind = Guest(peers.hivemind(plan.nodes, plan.parameters))
            others["hivemind fp16"] = stack.enter_context(hivemind)
        if bench.installed("flower"):
            flower = Guest(peers.flower(plan.nodes, plan.parameters))
            others["Flower"] = stack.enter_context(flower)
        mine, *theirs = alternate(plan.repeats, ours, *others.values())
        yield _made("crowd", ours)
        name = f"exchange of {bench.million()}, {plan.nodes} nodes"
        targets = {"hivemind fp16": (Target(most=0.1), Target(most=0.2))}
        for (other, peer), series in zip(others.items(), theirs, strict=True):
            if isinstance(peer, Guest) and bench.failed(other, peer):
                continue
            round_s, cpu_s = targets.get(other, (Target(), Target()))
            yield compared("crowd", name, "s", mine.seconds, series.seconds, other, round_s)
            named = f"{name}: processor"
            yield compared("crowd", named, "s", mine.cpu_s, series.cpu_s, other, cpu_s)


def links(bench: Bench) -> Iterator[Row]:
    """The same over cables of 1 Gbit/s and 100 Mbit/s."""
    plan = bench.plan
    with lan(2) as machines, swarm(2, machines) as ours:
        ours.train(plan.parameters)
        for megabits in (1000, 100):
            _shape(machines, megabits)
            yield from _pair_over(bench, ours, machines, megabits)
    with lan(plan.nodes) as machines, swarm(plan.nodes, machines) as ours:
        _shape(machines, 100)
        ours.train(plan.parameters)
        with bench.peers.gloo(plan.nodes, plan.parameters, machines) as gloo:
            mine, theirs = alternate(plan.repeats, ours, gloo.doing("all"))
        yield _made("links", ours)
        name = f"exchange of {bench.million()}, {plan.nodes} nodes, 100 Mbit/s"
        yield compared(
            *("links", name, "s", mine.seconds, theirs.seconds),
            *("Gloo all-reduce", Target(most=0.2)),
        )


def training(bench: Bench) -> Iterator[Row]:
    """A training loop on one core, its node and the peer's on another."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        bench.left_out.append("training: needs two cores")
        return
    program = [sys.executable, str(DRIVERS / "trainer.py")]
    with contextlib.ExitStack() as stack:
        with pinned(cores[1]):
            ours = stack.enter_context(swarm(2))
            logs = ours.flock.folder
            homes = [["--home", str(node.home.root)] for node in ours.nodes]
            peer = stack.enter_context(Driver([*program, *homes[1]], logs / "peer.log"))
        with pinned(cores[0]):
            alone = stack.enter_context(Driver(program, logs / "alone.log"))
            joined = stack.enter_context(Driver([*program, *homes[0]], logs / "joined.log"))
        for trainer in (peer, alone, joined):
            trainer.answer()
        rates: dict[Driver, list[float]] = {alone: [], joined: []}
        steps, turns = bench.plan.steps, bench.plan.turns
        for trainer in rates:
            together([trainer], str(steps))  # warms up
        before = ours.exchanges()[0]
        for _ in range(turns):
            for trainer, found in rates.items():
                found.append(steps / elapsed_s(together([trainer], str(steps))))
        made = (ours.exchanges()[0] - before) / (turns * steps / EVERY)
    target = Target(least=0.97)
    name = "training with covey, exchanging every 50 steps"
    yield compared("training", name, "steps/s", rates[joined], rates[alone], "alone", target)
    share = Target(least=0.9)
    yield compared("training", "exchanges made of those due", "", [made], [1.0], "all", share)
    with tempfile.TemporaryDirectory() as folder:
        idle = idle_step(Path(folder))
    yield budgeted("training", "a step with nothing to do", "µs", [idle.hook_us], 20.0)


def weight(bench: Bench) -> Iterator[Row]:
    """What a node takes of a machine, idle and flat out."""
    plan = bench.plan
    with tempfile.TemporaryDirectory() as folder:
        flock = Flock(Path(folder))
        try:
            yield from calm.rows(flock, plan.repeats)
        finally:
            flock.close()
    with swarm(2) as ours:
        ours.train(plan.parameters)
        peaks = [calm.peak_bytes(ours) / MEGABYTE for _ in range(plan.repeats)]
        most = (6 * 4 * plan.parameters + 100 * MEGABYTE) / MEGABYTE
        name = f"node exchanging {bench.million()}: memory"
        yield budgeted("weight", name, "MB", peaks, most)
        flat_out = calm.flat_out(ours, plan.flat_out_s)
        p99_ms = 1e3 * percentile(flat_out.answers_s, 0.99)
        yield budgeted("weight", "API flat out, p99", "ms", [p99_ms], 50.0)
        lag_ms = 1e3 * flat_out.lag_p99_s
        yield budgeted("weight", "event loop's lag flat out, p99", "ms", [lag_ms], 50.0)


def growth(bench: Bench) -> Iterator[Row]:
    """Time against the model's size, bytes against the flock's."""
    plan = bench.plan
    times = []
    with swarm(2) as ours:
        for size in plan.sizes:
            ours.train(size, warm_rounds=2)
            found = [ours.round() for _ in range(plan.repeats)]
            times.append(statistics.median(found))
            named = f"exchange of {size / 1e6:g} M: per million parameters"
            own, first = times[-1] / size * 1e6, times[0] / plan.sizes[0] * 1e6
            yield compared("growth", named, "s", [own], [first], f"{plan.sizes[0] / 1e6:g} M")
    off = worst_deviation(plan.sizes, times)
    yield budgeted("growth", "time of an exchange: off a straight line", "", [off], 0.2)
    sent = []
    for nodes in plan.flocks:
        with swarm(nodes) as ours:
            ours.train(plan.flock_parameters, warm_rounds=1)
            kept = calm.periods(ours, plan.period_s, plan.periods)
        sent.append(kept.sent_bytes)
        name = f"{nodes} nodes: periods with an exchange, of whom has fewest"
        target = Target(least=1.0)
        yield compared("growth", name, "", [kept.fewest], [1.0], "all", target)
    for nodes, count in zip(plan.flocks[1:], sent[1:], strict=True):
        name = f"{nodes} nodes: bytes per node and period"
        told = f"{plan.flocks[0]} nodes"
        yield compared("growth", name, "B", [count], [sent[0]], told, Target(least=0.9, most=1.1))


GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "loopback": loopback,
    "crowd": crowd,
    "links": links,
    "training": training,
    "weight": weight,
    "growth": growth,
}


def _goodputs(ours: Swarm, machine: Machine, count: int) -> Iterator[float]:
    """Of so many rounds, in MB/s: the slower direction.  A round of two exchanges has a pause in
    it, and does not count."""
    argv = machine.argv([sys.executable, str(DRIVERS / "meter.py")])
    with Driver(argv, ours.flock.folder / "meter.log") as meter:
        meter.answer()
        for _ in range(_TRIES * count):
            before = ours.exchanges()[0]
            meter.order("start")
            ours.round()
            meter.order("stop")
            rates = meter.answer()
            if ours.exchanges()[0] == before + 1:
                yield min(rates.values()) / MEGABYTE
                count -= 1
            if not count:
                return


def _made(group: str, ours: Swarm) -> Row:
    """A round without an exchange would be too fast: momentum alone moves a model too."""
    name, least = f"{len(ours.nodes)} nodes: exchanges per node and round", 0.9
    return compared(group, name, "", [ours.made()], [1.0], "one each", Target(least=least))


def _shape(machines: list[Machine], megabits: int) -> None:
    for machine in machines:
        machine.shape(megabits)


def _pair_over(bench: Bench, ours: Swarm, machines: list[Machine], megabits: int) -> Iterator[Row]:
    """Time, bytes and rate of two nodes' exchanges."""
    plan, rate = bench.plan, f"{megabits} Mbit/s"
    with bench.peers.gloo(2, plan.parameters, machines) as gloo:
        mine, theirs = alternate(plan.repeats, ours, gloo)
    yield _made("links", ours)
    target = Target(most=0.35) if megabits == 1000 else Target()
    name = f"exchange of {bench.million()}, 2 nodes, {rate}"
    yield compared("links", name, "s", mine.seconds, theirs.seconds, "Gloo pair", target)
    made, before = ours.exchanges()[0], [machine.counters()[0] for machine in machines]
    goodputs = list(_goodputs(ours, machines[0], plan.repeats)) or [math.nan]
    sent = [m.counters()[0] - b for m, b in zip(machines, before, strict=True)]
    each = max(sent) / (ours.exchanges()[0] - made) / plan.parameters
    name = f"bytes on the wire per parameter and direction, {rate}"
    yield budgeted("links", name, "B", [each], WIRE_BYTES_MAX)
    least = Target(least=0.8)
    name = f"goodput of the payload, {rate}"
    yield compared("links", name, "MB/s", goodputs, [megabits / 8], "the cable", least)
