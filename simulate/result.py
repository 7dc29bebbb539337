"""What a run says: the models along the way, and what they cost."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from covey.gossip.mixing import norm
from covey.gossip.quantiser import Floats
from covey.simulate.workload import Workload

Progress = Callable[[float], None]  # told the share of a run that is done


def silently(share: float) -> None:
    """A ``Progress`` that nobody watches."""


@dataclass(frozen=True, slots=True)
class Point:
    """The models at one time.  Accuracies in [0, 1]; ``mean`` and ``least`` over the nodes' own
    models, ``averaged`` of the one model that is their average."""

    time_s: float
    steps: float  # per node
    sent: float  # bytes per node
    mean: float
    least: float
    averaged: float
    loss: float  # mean over the nodes' own models
    loss_averaged: float
    apart: float  # root mean square distance to the average, relative to its length


@dataclass(frozen=True, slots=True)
class Result:
    """Of one run.  The last point is after settling."""

    points: tuple[Point, ...]
    exchanges: float  # per node that moved it, proposed or answered
    reasons: dict[str, int]  # why the others did not
    parameters: int

    @property
    def final(self) -> Point:
        return self.points[-1]

    @property
    def bytes_per_parameter(self) -> float:
        """Sent per node in the whole run."""
        return self.final.sent / self.parameters


def measure(workload: Workload, vectors: Floats, time_s: float, steps: float, sent: float) -> Point:
    """Score ``vectors``, float32 (nodes, size), and their average."""
    average = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    score = workload.score(np.concatenate([vectors, average[None]]))
    length = norm(average)
    spread = float(np.sqrt(np.square(vectors - average, dtype=np.float64).sum(axis=1).mean()))
    return Point(
        time_s=time_s,
        steps=steps,
        sent=sent,
        mean=float(score.accuracy[:-1].mean()),
        least=float(score.accuracy[:-1].min()),
        averaged=float(score.accuracy[-1]),
        loss=float(score.loss[:-1].mean()),
        loss_averaged=float(score.loss[-1]),
        apart=spread / length if length else 0.0,
    )
