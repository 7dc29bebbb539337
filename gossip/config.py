"""The algorithm's settings, each with its meaning, and the relations between them."""

from dataclasses import dataclass

from covey.gossip.stability import spread_radius

ALGORITHMS = ("pair", "push-sum", "relay", "robust-pull")  # see algorithms.py


@dataclass(frozen=True, slots=True)
class OuterStep:
    """The Nesterov step that closes a period (mixing.py).

    ``momentum`` is the most that is used: less where exchanges are too few for it (stability.py).
    ValueError where nodes drift apart even if an exchange per period succeeds.
    """

    momentum: float = 0.85
    rate: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or not self.rate > 0:
            raise ValueError("the outer momentum is in [0, 1), the outer rate above 0")
        if spread_radius(self.momentum, self.rate, contraction=0.5) >= 1:
            raise ValueError(
                f"outer rate {self.rate} with momentum {self.momentum} drives nodes apart; "
                "take less of either"
            )


@dataclass(frozen=True, slots=True)
class Screening:
    """When an exchange is implausible, and how far one may move us, from our own recent distances.

    Never tied to our own movement: nodes with different data rightly disagree by more than that.
    """

    remembered: int = 24  # distances that count, as many of each peer as of any other
    unscreened: int = 4  # first exchanges without a history to go by ...
    first_reach: float = 2.0  # ... refused beyond this many own movements and beyond |x|
    gate_quantile: float = 0.7  # most of the honest majority is below it ...
    gate_ratio: float = 2.0  # ... and beyond this many times that an exchange is refused
    clip_quantile: float = 0.3  # clipped to this quantile
    undone_periods: float = 2.0  # an exchange undoes at most so many periods of our progress ...
    undone_share: float = 0.05  # ... or this share of it, if that is more
    outlying: float = 0.05  # so much farther from all than others counts for less, thrice: nothing
    growth: float = 10.0  # a distance counts as so many times the gate's quantile at most
    negligible: float = 0.001  # relative to |x|: never clipped, whatever the history
    undecoded_share: float = 0.25  # refused if more blocks than this stay undecoded

    def __post_init__(self) -> None:
        if not 1 <= self.unscreened <= self.remembered:
            raise ValueError("the unscreened are at least 1 and at most the remembered")
        if (
            self.first_reach <= 1
            or self.gate_ratio <= 1
            or self.growth <= 1
            or not 0 < self.clip_quantile <= self.gate_quantile < 1
        ):
            raise ValueError(
                "reach, ratio and growth are above 1; 0 < clip quantile <= gate quantile < 1"
            )
        if not self.undone_periods > 0 or not self.undone_share > 0:
            raise ValueError("what an exchange may undo is above 0")
        if not self.outlying > 0:
            raise ValueError("who is outlying is farther away than others")
        if not 0 <= self.negligible < 1 or not 0 <= self.undecoded_share < 1:
            raise ValueError("shares are in [0, 1)")


@dataclass(frozen=True, slots=True)
class Config:
    """How one node learns with the others."""

    algorithm: str = "pair"
    codec: str = "mod4"  # of the exchanges this node proposes; it answers in any it knows
    exchanges: int = 1  # of this node per period, whoever proposes them
    pulls: int = 7  # peers that robust-pull asks per exchange, if there are so many
    hostile_share: float = 0.2  # of all nodes, that robust-pull reckons with
    attempts: int = 4  # peers asked per exchange before the period closes without one
    settle_exchanges: int = 8  # without training, before the learner leaves
    settled_below: float = 0.001  # settling ends early under this distance relative to |x|
    outer: OuterStep = OuterStep()
    screening: Screening = Screening()

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            known = ", ".join(map(repr, ALGORITHMS))
            raise ValueError(f"unknown algorithm {self.algorithm!r}; there are {known}")
        if self.codec not in ("mod4", "f32"):
            raise ValueError(f"unknown codec {self.codec!r}; there are 'mod4' and 'f32'")
        if self.pulls < 1 or not 0 <= self.hostile_share < 0.5:
            raise ValueError("pulls are at least 1, the hostile share is in [0, 0.5)")
        if self.exchanges < 1 or self.attempts < 1 or self.settle_exchanges < 0:
            raise ValueError("exchanges and attempts are at least 1")
