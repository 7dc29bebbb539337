"""Child processes that end with this one, however it ends.

Each child gets a pipe as its standard input and ends when the pipe closes: the kernel closes it
when this process ends, even by ``kill -9``.  A node watches it by ``--until-eof``; any Python
script does when it is started through ``script_argv``.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

# Reads the descriptor itself: a thread inside sys.stdin would hold a lock that the interpreter
# wants at its end.  argv: -c LABEL SCRIPT ARGUMENTS
_WATCHER = """\
import os, runpy, sys, threading
def watch():
    while os.read(0, 4096):
        pass
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def script_argv(label: str, script: Path, *args: str) -> list[str]:
    """A command line that runs a Python script which ends with its parent.

    ``label`` is only there to be seen in a list of processes.
    """
    return [sys.executable, "-c", _WATCHER, label, str(script), *args]


@dataclass(frozen=True)
class Child:
    """A running process and where its output goes."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        return self.process.poll()

    def last_words(self, lines: int = 12) -> str:
        """The end of what it wrote to its standard error."""
        text = self.errors.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def let_go(self) -> None:
        """Close its standard input, which tells it to end."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def kill(self) -> None:
        """End it and what it started, at once."""
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
            os.killpg(self.process.pid, signal.SIGKILL)


class Children:
    """Starts processes, and leaves none behind when the ``with`` block ends."""

    def __init__(self, grace_s: float = 5.0) -> None:
        """``grace_s``: how long they may take over their goodbyes."""
        self._grace_s = grace_s
        self._children: list[Child] = []

    def start(
        self, argv: Sequence[str], environ: Mapping[str, str], folder: Path, name: str
    ) -> Child:
        """Run ``argv`` in ``folder``; its output goes to ``name``.out and ``name``.err there."""
        output, errors = folder / f"{name}.out", folder / f"{name}.err"
        for file in (output, errors):
            file.write_bytes(b"")
        # For appending: what the child starts writes to them too, and none may overwrite another.
        with output.open("ab") as out, errors.open("ab") as err:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=dict(environ),
                start_new_session=True,  # the terminal's Ctrl-C is ours to pass on
            )
        child = Child(process, output, errors)
        self._children.append(child)
        return child

    def stop(self) -> bool:
        """Let all go and wait; whether none had to be killed.  An interrupt ends the waiting."""
        for child in self._children:
            child.let_go()
        deadline = time.monotonic() + self._grace_s
        try:
            for child in self._children:
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(deadline - time.monotonic(), 0))
        except KeyboardInterrupt:
            pass  # the operator does not want to wait
        finally:
            late = [child for child in self._children if child.exit_code is None]
            for child in late:
                child.kill()
            for child in late:
                child.process.wait()
            self._children.clear()
        return not late

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
