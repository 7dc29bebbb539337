"""What a node may cost: counted in processor time and memory, which a busy machine bends little.

How long things take on an idle one is in tests/benchmarks/README.md.
"""

import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import covey
from tests.swarm.flock import Flock, Node
from tests.waiting import until

pytestmark = pytest.mark.swarm

IDLE_CORE_MAX = 0.01  # of a core
IDLE_BYTES_MAX = 80e6
START_CPU_S_MAX = 2.0  # half a second on an idle machine
STATUS_CPU_S_MAX = 0.4
STEP_S_MAX = 20e-6
WINDOW_S = 2.0


def cpu_s(pid: int) -> float:
    """Processor time of all threads of a process, in seconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmRSS:")]
    return 1024 * int(line.split()[1])


@dataclass(frozen=True)
class Watched:
    """Two nodes that have met, and what the first one's start cost.  It never has a learner."""

    node: Node
    other: Node
    start_cpu_s: float  # until it answered


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    flock = Flock(tmp_path_factory.mktemp("idle"))
    try:
        node = flock.up("one").ready()
        start_cpu_s = cpu_s(node.process.pid)
        other = flock.up("two").ready()
        node.peer("two")
        yield Watched(node, other, start_cpu_s)
    finally:
        flock.close()


def test_starting_costs_little(idle: Watched) -> None:
    assert idle.start_cpu_s < START_CPU_S_MAX


def test_a_running_node_has_no_torch(idle: Watched, training: list[Node]) -> None:
    for node in (idle.node, training[0]):
        assert "torch" not in Path(f"/proc/{node.process.pid}/maps").read_text()


def test_status_costs_little(idle: Watched) -> None:
    def ask() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code, _ = idle.node.flock.say("status", "--home", str(idle.node.home.root))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert code == 0
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert statistics.median(ask() for _ in range(3)) < STATUS_CPU_S_MAX


def test_a_step_with_nothing_to_do_costs_little(idle: Watched) -> None:
    """What the hook in optimizer.step() does, as every training step pays for it."""
    layout = covey.Layout((covey.Tensor("w", (1000,)),))
    vector = np.zeros(layout.size, np.float32)
    home = idle.other.home.root
    with covey.attach(layout, vector, every="10m", home=home) as flock:
        taken = []
        for _ in range(5000):
            began = time.perf_counter()
            flock.step()
            taken.append(time.perf_counter() - began)
    assert statistics.median(taken) < STEP_S_MAX


def test_an_idle_node_costs_little(idle: Watched) -> None:
    pid = idle.node.process.pid

    def share() -> float:
        began, before = time.monotonic(), cpu_s(pid)
        until("the window is over", lambda: time.monotonic() - began > WINDOW_S)
        return (cpu_s(pid) - before) / (time.monotonic() - began)

    assert statistics.median(share() for _ in range(3)) < IDLE_CORE_MAX
    assert resident_bytes(pid) < IDLE_BYTES_MAX
