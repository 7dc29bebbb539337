"""Drivers as processes that take orders by lines and answer in JSON, and what they cost."""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

DRIVERS = Path(__file__).parent / "drivers"
PATIENCE_S = 120.0
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class NoAnswer(Exception):
    """A driver has ended, or said nothing for long.  ``why`` is that in a few words."""

    def __init__(self, why: str, argv: Sequence[str], log: str) -> None:
        super().__init__(f"{' '.join(argv)} {why}:\n{log}")
        self.why = why


class Driver:
    """One process.  Use it in a ``with``, or ``close`` it."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        """``log`` gets its standard error."""
        self._argv, self._log = argv, log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **_THREADS},
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self._rest = b""
        self.pid = self._process.pid

    def order(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, as its answer will tell
            self._orders.write(line.encode() + b"\n")
            self._orders.flush()

    def answer(self, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next line that is JSON: frameworks print others.  Raises NoAnswer."""
        while True:
            line, found, self._rest = self._rest.partition(b"\n")
            if not found:
                self._rest = line + self._more(within_s)
            elif line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                return answer

    def close(self) -> None:
        """End it and all that it has started."""
        for pipe in (self._orders, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self, within_s: float) -> bytes:
        readable, _, _ = select.select([self._answers], [], [], within_s)
        data = os.read(self._answers.fileno(), 1 << 16) if readable else b""
        if not data:
            why = "has ended" if readable else f"said nothing for {within_s:g} s"
            tail = self._log.read_text("utf-8", "replace")[-2000:]
            raise NoAnswer(why, self._argv, tail)
        return data


def together(drivers: Sequence[Driver], line: str) -> list[dict[str, Any]]:
    """Give all the same order; their answers.  Raises NoAnswer."""
    for driver in drivers:
        driver.order(line)
    return [driver.answer() for driver in drivers]


def elapsed_s(answers: Sequence[dict[str, Any]]) -> float:
    """From the first start to the last end."""
    return float(max(a["end"] for a in answers) - min(a["start"] for a in answers))


def cpu_s(pids: Sequence[int]) -> float:
    """Processor time of these processes and all below them, in seconds."""
    parents = {pid: parent for pid, parent in _everybody()}
    below = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(_own_cpu_s(pid) for pid in below)


def resident_bytes(pid: int, peak: bool = False) -> int:
    """What it holds in memory now; ``peak``: at most since ``forget_peak``."""
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(text.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0])


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """What is started in the block runs on these cores alone, for ever."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores) & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _everybody() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def _own_cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e9
    return 0.0
