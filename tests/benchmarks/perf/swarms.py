"""Real nodes with learners that exchange as fast as they can, on this machine or on a small LAN."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.perf.processes import DRIVERS, Driver, cpu_s, elapsed_s, together
from tests.swarm.flock import Flock, Node
from tests.swarm.netns import Machine
from tests.waiting import until

_PAUSE_S = 0.1  # between rounds: an exchange that began late is not part of the next
_WARM_ROUNDS = 3  # memory is mapped, the scales have followed the distances


class Swarm:
    """Nodes that know each other.  ``learners`` come and go with the model's size."""

    def __init__(self, flock: Flock, nodes: int, lan: Sequence[Machine] = ()) -> None:
        self.flock = flock
        self.nodes: list[Node] = []
        for number in range(nodes):
            options = ["--no-mdns"]
            if self.nodes:
                options += ["--peer", self._address(0, lan)]
            self.nodes.append(flock.up(f"node-{number}", *options, on=lan[number] if lan else None))
            if not number:
                self.nodes[0].ready()
        for node in self.nodes:
            node.ready()
        until("all nodes know each other", self._met)
        self.learners: list[Driver] = []
        self._learners_s = 0.0  # processor time in rounds
        self._rounds, self._before = 0, [0] * nodes  # since made() was asked last

    def train(self, parameters: int, warm_rounds: int = _WARM_ROUNDS) -> None:
        """Have a model of that size everywhere, and ready to be exchanged."""
        self.rest()
        program = [sys.executable, str(DRIVERS / "learner.py"), "--parameters", str(parameters)]
        for number, node in enumerate(self.nodes):
            argv = [*program, "--home", str(node.home.root), "--number", str(number)]
            self.learners.append(Driver(argv, self.flock.folder / f"learner-{number}.log"))
            if not number:
                self.learners[0].answer()  # founds the model: the others find it there
        for learner in self.learners[1:]:
            learner.answer()
        for _ in range(warm_rounds):
            self.round()
        self.made()

    def rest(self) -> None:
        """End the learners."""
        for learner in self.learners:
            learner.close()
        self.learners = []

    def round(self) -> float:
        """All hand over at once; seconds until the last has its increment."""
        filled = together(self.learners, "fill")
        answers = together(self.learners, "round")
        taken = together(self.learners, "take")
        self._learners_s += sum(answer["cpu"] for answer in (*filled, *answers, *taken))
        time.sleep(_PAUSE_S)
        self._rounds += 1
        return elapsed_s(answers)

    def made(self) -> float:
        """Exchanges per node and round since this was asked last."""
        now = self.exchanges()
        rounds, before = self._rounds, self._before
        self._rounds, self._before = 0, now
        return (sum(now) - sum(before)) / len(self.nodes) / max(1, rounds)

    def cpu_s(self) -> float:
        """Of the nodes, and of the learners in their rounds."""
        return cpu_s([node.process.pid for node in self.nodes]) + self._learners_s

    def exchanges(self) -> list[int]:
        return [node.exchanges() for node in self.nodes]

    def _address(self, number: int, lan: Sequence[Machine]) -> str:
        port = self.nodes[number].address.rpartition(":")[2]
        return f"{lan[number].address if lan else '127.0.0.1'}:{port}"

    def _met(self) -> bool:
        alive = [node.status()["swarm"]["alive"] for node in self.nodes]
        return all(count == len(self.nodes) for count in alive)


@contextlib.contextmanager
def swarm(nodes: int, lan: Sequence[Machine] = ()) -> Iterator[Swarm]:
    """So many nodes for the block, on ``lan``'s machines if there are any."""
    with tempfile.TemporaryDirectory(prefix="covey-bench-") as folder:
        flock = Flock(Path(folder))
        made: Swarm | None = None
        try:
            made = Swarm(flock, nodes, lan)
            yield made
        finally:
            if made is not None:
                made.rest()
            flock.close()
