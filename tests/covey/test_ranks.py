"""Two real processes under DistributedDataParallel: one joins, and both stay equal to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import covey
from covey.protocols.layout import Layout, Tensor
from tests.covey.conftest import LOOPBACK, Place, Vector
from tests.waiting import until

PARAMETERS = 3 * 8 + 8 + 8 + 8 + 8 + 1  # of rank.py's model
SIZE = PARAMETERS + 8 + 8  # with running means and variances, which each process has of its own
LOADING_S = 120.0  # torch, twice, on a machine that does other work: five seconds on an idle one
RANK = Path(__file__).with_name("rank.py")


def start(rank: int, folder: Path) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-P", str(RANK), str(rank), str(folder)]
    environ = os.environ | {"GLOO_SOCKET_IFNAME": LOOPBACK}
    return subprocess.Popen(
        argv, text=True, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def until_refused(folder: Path, processes: "list[subprocess.Popen[str]]") -> None:
    """No process may have failed."""

    def look() -> bool:
        assert not any(process.poll() for process in processes)
        return len(list(folder.glob("refused-*"))) == len(processes)

    until("both are refused", look, LOADING_S)


def of_both(folder: Path, when: str) -> list[Vector]:
    return [np.load(folder / f"{when}-{rank}.npy") for rank in (0, 1)]


def test_both_processes_have_what_the_first_gets(place: Place, tmp_path: Path) -> None:
    swarm = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    swarm[-8:] = 1.0  # variances
    node = place.start()
    own = Layout((Tensor("w", (2,)),))
    with covey.attach(own, np.zeros(2, np.float32)):  # so the first process is refused …
        processes = [start(rank, tmp_path) for rank in (0, 1)]
        until_refused(tmp_path, processes)
        node.host.swarm = swarm
    node.until(lambda host: "applied 0" in host.calls)  # … until this test has left
    node.publish(1.0)
    node.until(lambda host: "applied 1" in host.calls)
    node.publish(-0.5)
    node.until(lambda host: "applied 2" in host.calls)
    taken = len(node.host.snapshots)
    node.until(lambda host: len(host.snapshots) > taken + 1)
    node.host.correction = np.full(SIZE, 0.25, np.float32)
    (tmp_path / "enough").touch()
    for process in processes:
        output, _ = process.communicate(timeout=LOADING_S)
        assert process.returncode == 0, output
    assert "attached to this node" in (tmp_path / "refused-0").read_text()
    assert "the first process could not join" in (tmp_path / "refused-1").read_text()
    for joined in of_both(tmp_path, "joined"):
        assert np.array_equal(joined, swarm)
    left = of_both(tmp_path, "left")
    assert np.array_equal(left[0][:PARAMETERS], left[1][:PARAMETERS])
    assert np.array_equal(left[0], node.host.snapshots[-1] + np.float32(0.25))
    assert np.abs(left[0][:24] - swarm[:24] - 0.75).max() < 0.1, "increments, and some training"
    assert node.host.applied_by[-1] == 2
