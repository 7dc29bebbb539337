"""One measured claim: ours beside a reference, and whether the ratio is what it should be."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_PLACES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Bounds of ``ours / reference``; without any the row is shown, not judged."""

    most: float = math.inf
    least: float = -math.inf

    def met(self, ratio: float) -> bool:
        """NaN meets nothing that is asked for."""
        asked = self.most < math.inf or self.least > -math.inf
        return self.least <= ratio <= self.most or not asked

    def __str__(self) -> str:
        words = [f"≥ {self.least:g}"] if self.least > -math.inf else []
        return ", ".join(words + ([f"≤ {self.most:g}"] if self.most < math.inf else []))


SHOWN = Target()
WITHIN = Target(most=1.0)  # of a budget


@dataclass(frozen=True, slots=True)
class Row:
    """``ours`` and ``reference`` in ``unit``; ``spread`` is the least and the most of ours."""

    group: str
    name: str
    unit: str
    ours: float
    reference: float
    reference_name: str
    target: Target
    spread: tuple[float, float]
    repeats: int = 1

    @property
    def ratio(self) -> float:
        return self.ours / self.reference if self.reference else math.nan

    @property
    def ok(self) -> bool:
        return self.target.met(self.ratio)

    @property
    def is_round(self) -> bool:
        """Whether it holds the time of a round of exchanges, and not what that took besides."""
        timed = self.name.startswith("exchange of") and "processor" not in self.name
        return timed and self.group in ("loopback", "crowd", "links")

    def document(self) -> dict[str, Any]:
        """For JSON: without NaN and infinity, which it does not know."""
        plain = asdict(self) | {"ratio": self.ratio, "ok": self.ok, "target": str(self.target)}
        return {name: _rounded(value) for name, value in plain.items()}


def compared(
    group: str,
    name: str,
    unit: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    reference_name: str,
    target: Target = SHOWN,
) -> Row:
    """The medians of two alternating series."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    spread = min(ours), max(ours)
    return Row(group, name, unit, mine, other, reference_name, target, spread, len(ours))


def budgeted(group: str, name: str, unit: str, ours: Sequence[float], budget: float) -> Row:
    """The median of a series against what it may be."""
    return compared(group, name, unit, ours, [budget], "budget", WITHIN)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def worst_deviation(sizes: Sequence[float], times: Sequence[float]) -> float:
    """How far the farthest time is from a + b size, relative to that, fitted to relative errors."""
    weights = [1 / time for time in times]
    columns = [[w, w * size] for w, size in zip(weights, sizes, strict=True)]
    aa, ab, bb = (sum(row[i] * row[j] for row in columns) for i, j in ((0, 0), (0, 1), (1, 1)))
    ya, yb = (sum(row[i] for row in columns) for i in (0, 1))  # the weighted times are all 1
    determinant = aa * bb - ab * ab
    a, b = (ya * bb - yb * ab) / determinant, (yb * aa - ya * ab) / determinant
    fitted = [a + b * size for size in sizes]
    return max(abs(t - f) / f if f > 0 else math.inf for t, f in zip(times, fitted, strict=True))


def _rounded(value: object) -> object:
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, _PLACES) if math.isfinite(value) else None
    return value
