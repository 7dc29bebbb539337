"""Child processes that end with their parent: let go, killed, and when the parent is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from covey.node import tether
from tests.waiting import until

ENDLESS = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(60)\n"
# Ignores the end of its input and SIGTERM alike.
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ENDLESS


def script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until_dead(pid: int) -> None:
    until(f"{pid} has ended", lambda: not alive(pid) or is_zombie(pid))


def test_a_child_ends_when_let_go(tmp_path: Path) -> None:
    children = tether.Children()
    argv = tether.script_argv("label", script(tmp_path, ENDLESS))
    child = children.start(argv, os.environ, tmp_path, "one")
    until("it runs", lambda: child.output.read_bytes() == b"ready\n")
    assert child.exit_code is None
    assert children.stop()
    assert child.exit_code == 1


def test_a_script_sees_its_own_arguments_and_ends_by_itself(tmp_path: Path) -> None:
    text = "import sys\nprint(sys.argv, __name__)\nprint('oh', file=sys.stderr)\nsys.exit(7)\n"
    path = script(tmp_path, text)
    with tether.Children() as children:
        argv = tether.script_argv("label", path, "--seed", "3")
        child = children.start(argv, os.environ, tmp_path, "one")
        assert child.process.wait(60) == 7
    assert child.output.read_text() == f"{[str(path), '--seed', '3']} __main__\n"
    assert child.last_words() == "oh"


def test_a_deaf_child_and_its_child_are_killed(tmp_path: Path) -> None:
    line = "f'{os.getpid()}\\n', end=''"  # in one write, as there are two that do
    text = "import os\nos.fork()\n" + DEAF.replace("'ready'", line)
    with tether.Children(grace_s=0.1) as children:
        argv = [sys.executable, str(script(tmp_path, text))]
        child = children.start(argv, os.environ, tmp_path, "deaf")

        def pids() -> list[str]:
            assert child.exit_code is None, child.last_words()
            found = child.output.read_text().splitlines()
            return found if len(found) == 2 else []

        both = until("both run", pids)
        assert not children.stop()
    for pid in both:
        until_dead(int(pid))
    assert child.exit_code == -signal.SIGKILL


def is_zombie(pid: int) -> bool:
    """Whether ``pid`` is dead and only waits for an init that collects orphans."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip().startswith("Z") or not state.stdout.strip()


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = f"""
import os, sys, time
from pathlib import Path
from covey.node import tether
folder = Path({str(tmp_path)!r})
with tether.Children() as children:
    argv = tether.script_argv("label", Path({str(script(tmp_path, ENDLESS))!r}))
    print(children.start(argv, os.environ, folder, "one").process.pid, flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        until("it runs", lambda: (tmp_path / "one.out").read_bytes() == b"ready\n")
        assert alive(pid)
        process.kill()
    until_dead(pid)
