"""The systems that covey is measured beside, each as a swarm of its own that does rounds.

Gloo is part of PyTorch and so always there; the others are in environments that peers.sh makes.
"""

import contextlib
import json
import math
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from tests.benchmarks.perf.processes import DRIVERS, Driver, NoAnswer, cpu_s, elapsed_s, together
from tests.swarm.netns import Machine


class Contestant(Protocol):
    """Whoever moves a model between all nodes, once per round."""

    def round(self) -> float:
        """Seconds from the first node's begin to the last one's end."""

    def cpu_s(self) -> float:
        """Processor time of all its processes so far, in seconds."""


@dataclass(frozen=True)
class Drivers:
    """Processes that do the same at once; ``told`` is what starts a round."""

    drivers: Sequence[Driver]
    told: str

    def round(self) -> float:
        return elapsed_s(together(self.drivers, self.told))

    def cpu_s(self) -> float:
        return cpu_s([driver.pid for driver in self.drivers])

    def doing(self, told: str) -> "Drivers":
        """The same processes, doing something else."""
        return Drivers(self.drivers, told)


@dataclass(frozen=True)
class Flower:
    """A server, which does the rounds, and its clients."""

    server: Driver
    clients: Sequence[Driver]

    def round(self) -> float:
        return elapsed_s(together([self.server], "round"))

    def cpu_s(self) -> float:
        return cpu_s([self.server.pid, *(client.pid for client in self.clients)])


class Guest:
    """A contestant that may fail, and then is ended: what it measures is no number any more."""

    def __init__(self, setting_up: contextlib.AbstractContextManager[Contestant]) -> None:
        self.failure: NoAnswer | None = None
        self._setting_up = setting_up
        self._stack = contextlib.ExitStack()
        self._contestant: Contestant | None = None

    def round(self) -> float:
        if self._contestant is not None:
            with self._until_it_fails():
                return self._contestant.round()
        return math.nan

    def cpu_s(self) -> float:
        return math.nan if self._contestant is None else self._contestant.cpu_s()

    @contextlib.contextmanager
    def _until_it_fails(self) -> Iterator[None]:
        try:
            yield
        except NoAnswer as failure:
            self.failure, self._contestant = failure, None
            self._stack.close()  # who still tries would disturb the others

    def __enter__(self) -> Self:
        with self._until_it_fails():
            self._contestant = self._stack.enter_context(self._setting_up)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Peers:
    """Where the environments are, and where logs go."""

    environments: Path
    logs: Path

    def python(self, name: str) -> str | None:
        """The interpreter of a peer's environment, if that was set up."""
        home = (self.environments / name).absolute()
        return str(home / "bin" / "python") if (home / ".installed").exists() else None

    @contextlib.contextmanager
    def gloo(self, nodes: int, parameters: int, lan: Sequence[Machine] = ()) -> Iterator[Drivers]:
        """Ranks of one group; ``pair`` and ``all`` are their rounds."""
        host = lan[0].address if lan else "127.0.0.1"
        program = [sys.executable, str(DRIVERS / "gloo.py"), "--meet", f"{host}:{free_port()}"]
        program += ["--nodes", str(nodes), "--parameters", str(parameters)]
        program += ["--interface", "eth0" if lan else "lo"]
        with contextlib.ExitStack() as stack:
            drivers = []
            for rank in range(nodes):
                argv = [*program, "--rank", str(rank)]
                argv = lan[rank].argv(argv) if lan else argv
                drivers.append(stack.enter_context(Driver(argv, self.logs / f"gloo-{rank}.log")))
            _ready(drivers)
            made = Drivers(drivers, "pair")
            made.round()  # connects
            yield made

    @contextlib.contextmanager
    def hivemind(self, nodes: int, parameters: int) -> Iterator[Drivers]:
        """Peers that average in one group of all, as float16."""
        python, program = self.python("hivemind"), str(DRIVERS / "hivemind_peer.py")
        assert python is not None
        with contextlib.ExitStack() as stack:
            drivers: list[Driver] = []
            initial: list[str] = []
            for number in range(nodes):
                about = {"number": number, "nodes": nodes, "parameters": parameters}
                told = json.dumps({**about, "half": True, "initial": initial})
                log = self.logs / f"hivemind-{number}.log"
                drivers.append(stack.enter_context(Driver([python, program, told], log)))
                if not initial:
                    initial = drivers[0].answer()["addresses"]
            _ready(drivers[1:])
            made = Drivers(drivers, "round")
            made.round()
            yield made

    @contextlib.contextmanager
    def flower(self, nodes: int, parameters: int) -> Iterator[Flower]:
        """A server and its clients, over gRPC."""
        python, program = self.python("flower"), str(DRIVERS / "flower.py")
        assert python is not None
        rest = [f"127.0.0.1:{free_port()}", str(parameters), str(nodes)]
        with contextlib.ExitStack() as stack:
            server = Driver([python, program, "server", *rest], self.logs / "flower.log")
            stack.enter_context(server)
            _ready([server])
            clients = []
            for number in range(nodes):
                log = self.logs / f"flower-{number}.log"
                client = Driver([python, program, "client", *rest], log)
                clients.append(stack.enter_context(client))
            made = Flower(server, clients)
            made.round()
            yield made


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _ready(drivers: Sequence[Driver]) -> None:
    for driver in drivers:
        driver.answer()
