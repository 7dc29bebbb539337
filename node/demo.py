"""``covey demo``: real nodes and learners on this machine, on real data, alone and then together.

Every node is a ``covey up`` of its own with a temporary home, told the swarm's secret but no
address; every learner is ``examples/digits.py``, as installed, attached to its node.  What is shown
comes from the nodes' own HTTP API.  "Alone" is the same script, data and steps with ``--alone``.
"""

import importlib.util
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from covey.node.client import Client, NotRunning
from covey.node.demo_view import Row, View, mean_of, result_table
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.store import save_swarm
from covey.node.tether import Child, Children, script_argv
from covey.protocols.certificates import SECRET_BYTES
from covey.protocols.invite import Invite

MARGIN = 0.10  # by which together must be better than alone, in accuracy, for exit code 0
NODES_MAX = 16
_NAMES = (
    "quail",
    "grouse",
    "chukar",
    "bobwhite",
    "partridge",
    "ptarmigan",
    "francolin",
    "snowcock",
)
_POLL_S = 0.2
_START_S = 60.0  # for all nodes to answer
_MULTICAST_S = 8.0  # then static peers take over
_MEET_S = 30.0  # for static peers to have met
_ALONE_S = 120.0
_TOGETHER_S = 180.0


class _Interrupted(KeyboardInterrupt):
    """A signal asked the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(nodes: int, as_json: bool, seed: int) -> int:
    """Show the demo; the exit code: 0 if together was better than alone by MARGIN, else 1.

    Raises OperatorError if it cannot run here or a part of it failed.
    """
    from rich.console import Console

    if not 2 <= nodes <= NODES_MAX:
        raise OperatorError(f"a flock of {nodes}?", f"choose --nodes 2 to {NODES_MAX}")
    script = example("digits")
    console = Console(stderr=as_json)
    title = f"covey demo: {nodes} nodes on this machine, digits split unevenly by label"
    try:
        with _signals(), View(console, title) as view:
            rows, result = _Demo(view, nodes, seed, script).perform()
    except _Interrupted as stopped:
        console.print("stopped; no process is left behind", highlight=False)
        return 128 + stopped.number
    if as_json:
        print(json.dumps(result), flush=True)
    else:
        console.print("\nAccuracy on one held-out test set, after the same script, data and steps:")
        console.print(result_table(rows))
        console.print(_sentence(result), highlight=False, soft_wrap=True)
    return 0 if result["together_mean"] >= result["alone_mean"] + MARGIN else 1


def example(name: str) -> Path:
    """An example's file: they are installed as ``covey.examples``.

    Raises OperatorError if it, or a package that it needs, is not there.
    """
    spec = importlib.util.find_spec(f"covey.examples.{name}")
    if spec is None or spec.origin is None:
        raise OperatorError(f"the example {name} is not installed", "install covey again")
    absent = [need for need in ("torch", "sklearn") if importlib.util.find_spec(need) is None]
    if absent:
        raise OperatorError(
            f"the demo trains with {' and '.join(absent)}, which is not installed",
            "pip install 'covey[demo]'",
        )
    return Path(spec.origin)


@contextmanager
def _signals() -> Iterator[None]:
    """Signals that ask to end become an exception, so that every ``with`` block is left."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Interrupted(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Node:
    """One node of the demo: where it lives, what runs for it, and what it last said of itself."""

    name: str
    index: int
    home: Home
    child: Child | None = None
    alone: Child | None = None
    learner: Child | None = None
    status: dict[str, Any] | None = None
    peers: Sequence[dict[str, Any]] = ()

    def ask(self) -> bool:
        """Fetch status and peers from its API; whether it answered."""
        try:
            client = Client(self.home)
            self.status = client.get("/api/v1/status")
            self.peers = client.get("/api/v1/peers")["items"]
        except NotRunning:
            return False
        return True

    def alive_peers(self) -> list[dict[str, Any]]:
        return [peer for peer in self.peers if peer["state"] == "alive"]

    def found_by(self) -> str:
        """How it found its flock: ``static`` if any address had to be told, else ``mdns``, …"""
        sources = {source for peer in self.alive_peers() for source in peer["source"]}
        for source in ("static", "mdns", "exchange", "remembered"):
            if source in sources:
                return source
        return ""

    def _doing(self, state: str) -> str:
        """What goes on, where its node alone cannot tell."""
        if self.learner is None:
            return "alone" if self.alone is not None else state
        if self.learner.exit_code == 0:
            return "done"
        return "loading" if state == "idle" else state  # torch, which takes seconds

    def row(self) -> Row:
        alone = _accuracy(self.alone)
        if self.status is None:
            return Row(self.name, alone=alone)
        training, exchange = self.status["training"], self.status["exchange"]
        done = _accuracy(self.learner)
        return Row(
            name=self.name,
            id=self.status["node"]["id"][:7],
            state=self._doing(training["state"]),
            step=training["step"],
            loss=training["loss"],
            accuracy=done if done is not None else training["values"].get("accuracy"),
            alone=alone,
            peers=len(self.alive_peers()),
            found_by=self.found_by(),
            exchanges=exchange["exchanges"],
            wire_bytes=exchange["wire_bytes_sent"],
            raw_bytes=exchange["raw_bytes"],
        )


class _Demo:
    """The acts of the demo, one after the other."""

    def __init__(self, view: View, nodes: int, seed: int, script: Path) -> None:
        self._view = view
        self._seed = seed
        self._script = script
        self._answering = 0.0  # since when all nodes answer
        self._introduced = False  # addresses were told
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="covey-demo-"))
        )
        self._children = self._stack.enter_context(Children())
        names = [_NAMES[i % len(_NAMES)] + "2" * (i // len(_NAMES)) for i in range(nodes)]
        self._nodes = [
            _Node(name, i, Home.find(self._folder / name, {})) for i, name in enumerate(names)
        ]
        # No setting of the user's reaches in, and learners do not fight over the cores.
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("COVEY_")}
        self._environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def perform(self) -> tuple[list[Row], dict[str, Any]]:
        """The whole demo; the final rows and the result for ``--json``."""
        with self._stack:
            self._start_nodes()
            self._train_alone()
            self._train_together()
            rows = self._look()
            result = self._result(rows)
            self._view.note("saying goodbye")
        return rows, result

    def _start_nodes(self) -> None:
        self._view.note("starting the nodes")
        invite = Invite("demo", secrets.token_bytes(SECRET_BYTES))
        for node in self._nodes:
            save_swarm(node.home, invite)
            argv = [sys.executable, "-P", "-m", "covey.node", "up", "--until-eof"]
            argv += ["--home", str(node.home.root), "--name", node.name]
            argv += ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]
            node.child = self._start(argv, {}, node.name)
        self._until(lambda: all(node.ask() for node in self._nodes), _START_S, "no answer")
        self._answering = time.monotonic()

    def _train_alone(self) -> None:
        """Each script without a swarm, a few at a time, while the nodes look for each other."""
        self._view.note("each node's script alone, while the nodes look for each other over mDNS")
        at_once = 2 * (os.cpu_count() or 1)
        for node in self._nodes:
            self._until(lambda: self._running() < at_once, _ALONE_S, "the scripts do not end")
            node.alone = self._learn(node, "--alone")
        self._until(lambda: self._running() == 0, _ALONE_S, "the scripts do not end")
        self._until(self._met, _MEET_S, "the nodes have not met")

    def _running(self) -> int:
        """How many scripts run."""
        running = 0
        for node in self._nodes:
            for script in (node.alone, node.learner):
                if script is not None:
                    self._check(node, script)
                    running += script.exit_code is None
        return running

    def _met(self) -> bool:
        return all(len(node.alive_peers()) == len(self._nodes) - 1 for node in self._nodes)

    def _help_to_meet(self) -> None:
        """Tell addresses once multicast has turned out not to work here."""
        if self._introduced or not self._answering or self._met():
            return
        found = [n.status["net"]["discovery"] for n in self._nodes if n.status is not None]
        silent = all(discovery["state"] in ("silent", "off", "failed") for discovery in found)
        if not silent and time.monotonic() < self._answering + _MULTICAST_S:
            return
        self._introduced = True
        why = next((d["detail"] for d in found if silent and d["detail"]), "nobody answered")
        self._view.note(f"multicast does not work here ({why}); going on with static peers")
        for node in self._nodes:
            for other in self._nodes:
                if other is not node and other.status is not None:
                    port = other.status["net"]["listen"].rpartition(":")[2]
                    Client(node.home).post("/api/v1/peers", {"address": f"127.0.0.1:{port}"})

    def _train_together(self) -> None:
        how = ", ".join(sorted({node.found_by() for node in self._nodes}))
        self._view.note(f"found each other by {how}; now the same scripts together")
        for node in self._nodes:
            node.learner = self._learn(node)
        self._until(lambda: self._running() == 0, _TOGETHER_S, "the scripts did not end")

    def _learn(self, node: _Node, *options: str) -> Child:
        shard = f"{node.index + 1}/{len(self._nodes)}"
        args = ("--shard", shard, "--seed", str(self._seed), "--json", *options)
        argv = script_argv(str(node.home.root), self._script, *args)
        kind = "alone" if options else "learner"
        return self._start(argv, {"COVEY_HOME": str(node.home.root)}, f"{node.name}.{kind}")

    def _start(self, argv: list[str], extra: dict[str, str], name: str) -> Child:
        return self._children.start(argv, self._environ | extra, self._folder, name)

    def _check(self, node: _Node, child: Child) -> None:
        if child.exit_code:
            logs = dict.fromkeys(c for c in (node.child, child) if c is not None)
            for log in logs:
                self._view.note(f"{log.errors.stem} ended; its log:\n{log.last_words()}")
            raise OperatorError(f"{child.errors.stem} ended with exit code {child.exit_code}")

    def _until(self, true: Callable[[], bool], within_s: float, why: str) -> None:
        deadline = time.monotonic() + within_s
        while not true():
            self._pause()
            if time.monotonic() > deadline:
                raise OperatorError(f"the demo gave up after {within_s:.0f} s: {why}")

    def _pause(self) -> None:
        for node in self._nodes:
            if node.child is not None:
                self._check(node, node.child)
        self._look()
        self._help_to_meet()
        time.sleep(_POLL_S)

    def _look(self) -> list[Row]:
        for node in self._nodes:
            node.ask()
        rows = [node.row() for node in self._nodes]
        self._view.show(rows)
        return rows

    def _result(self, rows: Sequence[Row]) -> dict[str, Any]:
        entries = []
        for node, row in zip(self._nodes, rows, strict=True):
            assert node.status is not None
            entries.append(
                {
                    "id": node.status["node"]["id"],
                    "name": row.name,
                    "accuracy": row.accuracy,
                    "accuracy_alone": row.alone,
                    "steps": row.step,
                    "exchanges": row.exchanges,
                    "wire_bytes_sent": row.wire_bytes,
                    "raw_bytes": row.raw_bytes,
                    "discovered_by": row.found_by,
                }
            )
        return {
            "nodes": entries,
            "together_mean": mean_of(rows, "accuracy"),
            "alone_mean": mean_of(rows, "alone"),
            "seconds": round(self._view.seconds, 1),
        }


def _accuracy(script: Child | None) -> float | None:
    """What the script said at its end, on the last line it printed; None before."""
    if script is None or script.exit_code != 0:
        return None
    return float(json.loads(script.output.read_text().splitlines()[-1])["accuracy"])


def _sentence(result: dict[str, Any]) -> str:
    wire = sum(node["wire_bytes_sent"] for node in result["nodes"])
    raw = sum(node["raw_bytes"] for node in result["nodes"])
    gain = result["together_mean"] - result["alone_mean"]
    return (
        f"Together {gain:+.3f}, in {result['seconds']:.0f} s, without sharing an image: "
        f"{wire / 1000:,.0f} kB sent, {wire / max(raw, 1):.0%} of what float32 would have taken."
    )
