"""What a node takes of a machine: ``python -m tests.benchmarks.node``, from the repository's root.

Times from an idle machine go into README.md beside this file; the tests hold the bounds.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.swarm.flock import Flock, Node
from tests.swarm.test_budgets import cpu_s, resident_bytes
from tests.waiting import until

TIMES = 7
WINDOW_S = 30.0


def median_of(act: Callable[[], float]) -> str:
    """The median of some runs, and the least and the most."""
    found = sorted(act() for _ in range(TIMES))
    return f"{statistics.median(found):.2f} s ({found[0]:.2f} to {found[-1]:.2f})"


def start(flock: Flock) -> float:
    """Seconds from the command to the first 200 from /readyz."""
    began = time.monotonic()
    node = flock.up("starter").ready()
    taken = time.monotonic() - began
    node.terminate()
    node.wait()
    return taken


def ask(flock: Flock, *command: str) -> float:
    """Seconds that a command takes from start to end."""
    began = time.monotonic()
    code, words = flock.say(*command)
    assert code == 0, words
    return time.monotonic() - began


def idle(node: Node) -> str:
    """Its processor time in a window, and its memory."""
    pid = node.process.pid
    began, before = time.monotonic(), cpu_s(pid)
    until("the window is over", lambda: time.monotonic() - began > WINDOW_S, 2 * WINDOW_S)
    share = (cpu_s(pid) - before) / (time.monotonic() - began)
    return f"{100 * share:.2f} % of a core, {resident_bytes(pid) / 1e6:.0f} MB resident"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        flock = Flock(Path(folder))
        try:
            print(f"start to /readyz 200   {median_of(lambda: start(flock))}")
            node = flock.up("one").ready()
            status = ("status", "--home", str(node.home.root))
            print(f"covey status           {median_of(lambda: ask(flock, *status))}")
            print(f"covey version          {median_of(lambda: ask(flock, 'version'))}")
            print(f"idle, alone            {idle(node)}")
            for number in range(2, 5):
                flock.up(f"node-{number}").ready()
                node.peer(f"node-{number}")
            print(f"idle, three peers      {idle(node)}")
        finally:
            flock.close()


if __name__ == "__main__":
    main()
