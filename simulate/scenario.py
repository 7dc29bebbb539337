"""What is simulated: the flock, its network, and what goes wrong."""

import math
from dataclasses import dataclass, field

from covey.gossip.config import Config

ATTACKS = ("negate", "noise", "alie", "empire", "flip", "stale", "silent")


@dataclass(frozen=True, slots=True)
class Network:
    """Every link alike.  A lost exchange is a connection that breaks at one of its messages."""

    latency_s: float = 0.001  # one way
    bytes_per_s: float = 125e6  # of each link and direction
    loss: float = 0.0  # share of exchanges

    def __post_init__(self) -> None:
        if not (0 <= self.latency_s < math.inf and self.bytes_per_s > 0 and 0 <= self.loss < 1):
            raise ValueError("latency is at least 0, bandwidth above 0, loss in [0, 1)")


@dataclass(frozen=True, slots=True)
class Churn:
    """Nodes go off and come back, each on its own: exponential times with these means, seconds."""

    on_s: float
    off_s: float

    def __post_init__(self) -> None:
        if not (0 < self.on_s < math.inf and 0 < self.off_s < math.inf):
            raise ValueError("mean times on and off are above 0 s")

    @classmethod
    def parse(cls, text: str) -> "Churn":
        """Read ``ON:OFF``, seconds.  Raises ValueError."""
        return cls(*_two_numbers(text))


@dataclass(frozen=True, slots=True)
class Cut:
    """From ``begin`` to ``end``, shares of the run, no message crosses between two halves."""

    begin: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= 1:
            raise ValueError("a cut begins before it ends, both in [0, 1]")

    @classmethod
    def parse(cls, text: str) -> "Cut":
        """Read ``BEGIN:END``.  Raises ValueError."""
        return cls(*_two_numbers(text))


@dataclass(frozen=True, slots=True)
class Attack:
    """``share`` of the nodes, at random, do ``kind`` (attackers.py) and are not scored."""

    kind: str
    share: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in ATTACKS:
            raise ValueError(f"unknown attack {self.kind!r}; there are {', '.join(ATTACKS)}")
        if not 0 < self.share < 1:
            raise ValueError("the share of attackers is in (0, 1)")

    @classmethod
    def parse(cls, text: str) -> "Attack":
        """Read ``KIND`` or ``KIND:SHARE``.  Raises ValueError."""
        kind, _, share = text.partition(":")
        return cls(kind, _number(share)) if share else cls(kind)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _two_numbers(text: str) -> tuple[float, float]:
    first, colon, second = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is not two numbers with a colon between, like 30:10")
    return _number(first), _number(second)


@dataclass(frozen=True, slots=True)
class Outer:
    """The outer step of a baseline that has one (baselines.py): covey's own is in ``config``."""

    momentum: float = 0.9
    rate: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or not self.rate > 0:
            raise ValueError("the outer momentum is in [0, 1), the outer rate above 0")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run.  Times are virtual seconds."""

    nodes: int = 16
    periods: int = 60
    period_s: float = 2.0
    steps: int = 10  # local steps per period of a node of mean speed
    spread: float = 1.0  # of the fastest node over the slowest, log-uniform between
    network: Network = Network()
    churn: Churn | None = None
    cut: Cut | None = None
    attack: Attack | None = None
    config: Config = field(default_factory=Config)
    settle: bool = True  # at the end
    measures: int = 12  # of the models, during the run
    seed: int = 0

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.periods < 1 or self.steps < 1 or self.measures < 1:
            raise ValueError("nodes, periods, steps and measures are at least 1")
        if not (0 < self.period_s < math.inf and 1 <= self.spread < math.inf):
            raise ValueError("the period is above 0 s, the spread at least 1")

    @property
    def duration_s(self) -> float:
        """Of the training; settling comes after it."""
        return self.periods * self.period_s

    @property
    def step_s(self) -> float:
        """Of a node of mean speed."""
        return self.period_s / self.steps
