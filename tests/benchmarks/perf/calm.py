"""What a node takes of a machine and how soon it answers, idle, flat out and among many."""

import http.client
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.benchmarks import node as starting
from tests.benchmarks.perf.processes import PATIENCE_S, forget_peak, resident_bytes
from tests.benchmarks.perf.rows import Row, budgeted
from tests.benchmarks.perf.swarms import Swarm
from tests.swarm.flock import Flock, Node

_ASK_S = 0.01  # between two questions to the API
_BUCKET = re.compile(r'^covey_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class FlatOut:
    """How a node answered meanwhile, in seconds."""

    answers_s: list[float]
    lag_p99_s: float


@dataclass(frozen=True)
class Kept:
    """The share of periods with an exchange, of the node with fewest, and what a node sent per
    period on average."""

    fewest: float
    sent_bytes: float


@dataclass(frozen=True)
class _Counts:
    periods: int
    missed: int
    sent_bytes: int

    def __sub__(self, other: "_Counts") -> "_Counts":
        return _Counts(
            self.periods - other.periods,
            self.missed - other.missed,
            self.sent_bytes - other.sent_bytes,
        )


def rows(flock: Flock, repeats: int) -> Iterator[Row]:
    """Start, memory and status of a node that does nothing."""
    starts = [starting.start(flock) for _ in range(repeats)]
    yield budgeted("weight", "start of a node until it is ready", "s", starts, 0.7)
    idle = flock.up("idle").ready()
    status = ("status", "--home", str(idle.home.root))
    asked = [starting.ask(flock, *status) for _ in range(repeats)]
    yield budgeted("weight", "covey status", "s", asked, 0.3)
    memory = [resident_bytes(idle.process.pid) / 1e6]
    yield budgeted("weight", "idle node: memory", "MB", memory, 80.0)


def peak_bytes(swarm: Swarm) -> int:
    """The most that a node held in memory during one round."""
    pids = [node.process.pid for node in swarm.nodes]
    for pid in pids:
        forget_peak(pid)
    swarm.round()
    return max(resident_bytes(pid, peak=True) for pid in pids)


def flat_out(swarm: Swarm, seconds: float) -> FlatOut:
    """All learners hand over without a break; the first node is asked for its status all along."""
    before = [_lags(node) for node in swarm.nodes]
    for learner in swarm.learners:
        learner.order(f"free {seconds}")
    answers = _ask(swarm.nodes[0].status()["net"]["api"], 0.9 * seconds)
    for learner in swarm.learners:
        learner.answer()
    after = [_lags(node) for node in swarm.nodes]
    counts = {
        bound: sum(a[bound] - b[bound] for a, b in zip(after, before, strict=True))
        for bound in before[0]
    }
    return FlatOut(answers, quantile(counts, 0.99))


def periods(swarm: Swarm, seconds: float, count: int) -> Kept:
    """All learners hand over once in each period of so many seconds."""
    before = [_counts(node) for node in swarm.nodes]
    for learner in swarm.learners:
        learner.order(f"periods {seconds} {count}")
    ends = [learner.answer(PATIENCE_S + seconds * count) for learner in swarm.learners]
    began = min(end["start"] for end in ends)
    elapsed = round((max(end["end"] for end in ends) - began) / seconds)  # periods, with delays
    made = [_counts(node) - then for node, then in zip(swarm.nodes, before, strict=True)]
    fewest = min(1 - found.missed / found.periods for found in made)
    return Kept(fewest, sum(found.sent_bytes for found in made) / len(made) / elapsed)


def quantile(counts: dict[float, float], share: float) -> float:
    """Of a histogram of cumulative counts by upper bound, linear within a bucket, as PromQL's."""
    bounds = sorted(counts)
    wanted = share * counts[bounds[-1]]
    below, under = 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= wanted and counts[bound] > under:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (wanted - under) / (counts[bound] - under)
        below, under = bound, counts[bound]
    return math.nan


def _ask(api: str, seconds: float) -> list[float]:
    """How long each answer took."""
    connection = http.client.HTTPConnection(api, timeout=PATIENCE_S)
    until, taken = time.monotonic() + seconds, []
    while (began := time.monotonic()) < until:
        connection.request("GET", "/api/v1/status")
        connection.getresponse().read()
        taken.append(time.monotonic() - began)
        time.sleep(_ASK_S)
    connection.close()
    return taken


def _lags(node: Node) -> dict[float, float]:
    return {float(bound): float(count) for bound, count in _BUCKET.findall(node.metrics())}


def _counts(node: Node) -> _Counts:
    found = node.status()["exchange"]
    return _Counts(found["outer_steps"], found["missed"], found["wire_bytes_sent"])
