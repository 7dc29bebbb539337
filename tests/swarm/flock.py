"""Real nodes and learners, as processes of their own: started, asked over their API, and ended."""

import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from covey.node import store
from covey.node.client import Client, NotRunning
from covey.node.home import Home
from covey.node.tether import script_argv
from covey.protocols.certificates import SECRET_BYTES
from covey.protocols.invite import Invite
from tests.swarm.netns import Machine
from tests.waiting import PATIENCE_S, until

_MARK = "COVEYTESTS"  # in the environment of all that a flock starts, and of what those start
LEARNER = Path(__file__).parent / "data" / "learner.py"
T = TypeVar("T")
Json = dict[str, Any]


@dataclass
class Node:
    """One `covey up` or `covey run`, and the home it lives in."""

    name: str
    home: Home
    process: subprocess.Popen[str]
    log: Path
    flock: "Flock"
    folder: Path  # where its learner writes

    def status(self) -> Json:
        answer: Json = Client(self.home).get("/api/v1/status")
        return answer

    @property
    def id(self) -> str:
        return str(self.status()["node"]["id"])

    @property
    def short(self) -> str:
        """As events name it."""
        return store.load_or_create_identity(self.home).peer.short

    @property
    def address(self) -> str:
        """Where peers on this machine reach it."""
        port = self.status()["net"]["listen"].rpartition(":")[2]
        return f"127.0.0.1:{port}"

    @property
    def words(self) -> str:
        """All it has written."""
        return self.log.read_text("utf-8", "replace")

    def says(self, line: str) -> None:
        """It tells the person at its terminal, once."""
        until(f"{self.name} says {line}", lambda: self.words.count(f"covey: {line}\n") == 1)

    def peers(self) -> dict[str, Json]:
        """By name; nameless ones by their first address."""
        items = Client(self.home).get("/api/v1/peers")["items"]
        return {peer["name"] or peer["addresses"][0]["addr"]: peer for peer in items}

    def peer(self, name: str, state: str = "alive") -> Json:
        """What this node knows of a peer, as soon as that is in ``state``."""

        def look() -> Json | None:
            found = self.peers().get(name)
            return found if found is not None and found["state"] == state else None

        return until(f"{self.name} knows {name} as {state}", look)

    def events(self, *types: str, after: int = 0) -> list[Json]:
        return list(Client(self.home).events(after, types, follow=False))

    def event(self, type: str, after: int = 0, **data: object) -> Json:
        """The first such event with such data, waited for."""

        def look() -> Json | None:
            found = self.events(type, after=after)
            return next((e for e in found if data.items() <= e["data"].items()), None)

        return until(f"{self.name} tells {type} {data or ''}", look)

    def ready(self) -> "Node":
        """Wait until it answers."""

        def look() -> bool:
            assert self.process.poll() is None, f"{self.name} has ended:\n{self.words}"
            with suppress(NotRunning):
                return bool(Client(self.home).get("/readyz")["ready"])
            return False

        until(f"{self.name} answers", look)
        return self

    def checks(self) -> dict[str, str]:
        answer: dict[str, str] = Client(self.home).get("/readyz")["checks"]
        return answer

    def discovery(self, state: str) -> str:
        """The detail of its discovery as soon as that is in ``state``."""

        def look() -> str:
            found = self.status()["net"]["discovery"]
            return str(found["detail"]) if found["state"] == state else ""

        return until(f"{self.name}'s discovery is {state}", look)

    def metrics(self) -> str:
        """As Prometheus reads them."""
        url = f"http://{self.status()['net']['api']}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    def exchanges(self) -> int:
        return int(self.status()["exchange"]["exchanges"])

    def learns_on(self, count: int = 3) -> None:
        """Wait until it has completed so many exchanges more."""
        goal = self.exchanges() + count
        until(f"{self.name} goes on exchanging", lambda: self.exchanges() >= goal)

    def rejected(self, reason: str, least: int = 1) -> None:
        """Wait until the counter of that name is so high."""

        def look() -> bool:
            return bool(self.status()["exchange"]["rejected"].get(reason, 0) >= least)

        until(f"{self.name} counts {least} {reason}", look)

    def starts(self) -> list[NDArray[np.float32]]:
        """What its learner began with, one for each time it was started; the oldest first."""
        files = sorted(self.folder.glob("start-*[0-9].npy"), key=lambda path: path.stat().st_mtime)
        return [np.load(file) for file in files]

    def end(self) -> NDArray[np.float32]:
        """What its learner ended with."""
        vector: NDArray[np.float32] = np.load(self.folder / "end.npy")
        return vector

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """The first word of an orderly end; ``wait`` for the rest."""
        self.process.terminate()

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Its exit code, waited for."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(within_s)
        raise AssertionError(f"{self.name} has not ended within {within_s:g} s:\n{self.words}")


@dataclass
class Flock:
    """Nodes of one swarm below ``folder``, and whatever else a test starts.  Close it."""

    folder: Path
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(SECRET_BYTES))
    nodes: list[Node] = field(default_factory=list)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def enough(self) -> Path:
        """Learners train until this file is there."""
        return self.folder / "enough"

    def environ(self, extra: Mapping[str, str] = {}) -> dict[str, str]:
        """This process's, without the operator's own settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COVEY_")}
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return {**kept, **threads, _MARK: self.mark, "TMPDIR": str(temporary), **extra}

    def home(self, name: str) -> Home:
        """A member's home; made, if it is new."""
        home = Home.find(self.folder / name, {})
        if not home.swarm_file.exists():
            store.save_swarm(home, Invite("flock", self.secret))
        return home

    def up(self, name: str, *options: str, on: Machine | None = None) -> Node:
        """A node alone.  Without ``on``, on this machine's loopback."""
        return self._node(name, ["up"], options, [], on)

    def run(
        self, name: str, *options: str, learner: Sequence[str] = (), on: Machine | None = None
    ) -> Node:
        """A node and its learner: data/learner.py with further arguments ``learner``."""
        return self._node(name, ["run"], options, [*self._learner(name), *learner], on)

    def script(self, name: str, script: Path, *arguments: str) -> Node:
        """A node with any script as its learner."""
        return self._node(name, ["run"], (), [str(script), *arguments], None)

    def learner(self, node: Node) -> "subprocess.Popen[str]":
        """A learner for a node that runs: as started by hand, beside it.  Use it in a ``with``."""
        argv = script_argv(node.name, LEARNER, *self._learner(node.name)[1:])
        home = f"COVEY_HOME={node.home.root}"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        return self.start(["env", home, *argv], **pipes)

    def covey(self, *arguments: str, within_s: float = PATIENCE_S) -> "subprocess.Popen[str]":
        """Any command, its output piped."""
        return self.start([sys.executable, "-m", "covey.node", *arguments])

    def start(self, argv: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        """Any process, in a session of its own as from a terminal of its own."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        return subprocess.Popen(
            argv, env=self.environ(), text=True, start_new_session=True, **options
        )

    def say(self, *arguments: str) -> tuple[int, str]:
        """Run a command to its end: its exit code and all that it printed."""
        with self.covey(*arguments) as process:
            output, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, output

    def pids(self) -> list[int]:
        """The processes that came of this flock and live."""
        wanted = f"{_MARK}={self.mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def commands(self) -> list[str]:
        """Their command lines."""
        found = []
        for pid in self.pids():
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return found

    def keep(self, nodes: Collection[Node]) -> None:
        """End all nodes but these."""
        for node in self.nodes:
            if node not in nodes and node.process.poll() is None:
                os.killpg(node.process.pid, signal.SIGKILL)
                node.process.wait()

    def close(self) -> None:
        """End everything, and look for bugs in what the nodes have written."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in self.nodes:
            node.process.wait(PATIENCE_S)
            assert node.process.stdin is not None
            node.process.stdin.close()
        until("all processes have ended", lambda: not self.pids())
        for node in self.nodes:
            for sign in ("Traceback", "CRITICAL", "Task exception", "never awaited"):
                assert sign not in node.words, f"{node.name} has written:\n{node.words}"

    def _learner(self, name: str) -> list[str]:
        number = str(1 + len(self.nodes))
        folder = str(self.folder / name)
        return [str(LEARNER), "--number", number, "--folder", folder, "--until", str(self.enough)]

    def _node(
        self,
        name: str,
        command: list[str],
        options: Sequence[str],
        script: list[str],
        on: Machine | None,
    ) -> Node:
        home = self.home(name)
        argv = [sys.executable, "-m", "covey.node", *command, "--home", str(home.root)]
        # It ends when this process does, by whatever way.
        argv += ["--until-eof", "--name", name, "--api", "127.0.0.1:0"]
        argv += ["--listen", "127.0.0.1:0"] if on is None else []
        argv += [*options, *script]
        log = self.folder / f"{name}.log"
        with log.open("a") as file:
            argv = argv if on is None else on.argv(argv)
            process = self.start(argv, stdin=subprocess.PIPE, stdout=file, stderr=file)
        node = Node(name, home, process, log, self, self.folder / name)
        self.nodes.append(node)
        return node
