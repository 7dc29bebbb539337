"""What is claimed, held against what was measured: the arithmetic of one row."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from covey.simulate.result import Result

_PLACES = 4  # of the numbers in JSON
_PUSH_SLACK = 1e-3  # float32 rounds what an exchange adds


@dataclass(frozen=True, slots=True)
class Target:
    """What ``ours - reference`` must be: ``least`` and ``most`` in the row's unit, and how many
    times ``fewer`` bytes.  All None: shown, not judged."""

    least: float | None = None
    most: float | None = None
    fewer: float | None = None

    def met(self, difference: float, bytes_ratio: float | None) -> bool:
        """NaN meets nothing that is asked for."""
        return (
            (self.least is None or difference >= self.least)
            and (self.most is None or difference <= self.most)
            and (self.fewer is None or (bytes_ratio is not None and bytes_ratio >= self.fewer))
        )

    def told(self, unit: str) -> str:
        """As the tables have it."""
        words = []
        if self.least is not None:
            words.append(f"≥ {_signed(self.least)} {unit}")
        if self.most is not None:
            words.append(f"≤ {_signed(self.most)} {unit}")
        if self.fewer is not None:
            words.append(f"≥ {self.fewer:g}x fewer bytes")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``bench-learning.json``.

    ``difference`` is ours less the reference in ``unit`` (points: of accuracy in percent; %: of the
    reference), the mean of paired seeds; ``error`` is its standard error, NaN for a single seed;
    ``least``: of our nodes, in the unit of ``ours``; NaN where there is none.
    """

    claim: str
    setting: str
    ours: float
    reference: float
    difference: float
    bytes_ratio: float | None
    target: str
    ok: bool
    unit: str = "points"
    error: float = math.nan
    least: float = math.nan
    seeds: int = 1

    def document(self) -> dict[str, Any]:
        """In JSON's types; NaN is None."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def paired(ours: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences and its standard error (NaN if there is one only)."""
    differences = np.subtract(ours, reference)
    if len(differences) < 2:
        return float(differences.mean()), math.nan
    return float(differences.mean()), float(differences.std(ddof=1) / len(differences) ** 0.5)


def accuracy_row(
    claim: str, setting: str, ours: Sequence[Result], reference: Sequence[Result], target: Target
) -> Row:
    """Of results with the same seeds, in percent and points."""
    mine, theirs = ([100 * result.final.mean for result in each] for each in (ours, reference))
    difference, error = paired(mine, theirs)
    ratio = _fewer_bytes(ours, reference)
    return Row(
        claim,
        setting,
        float(np.mean(mine)),
        float(np.mean(theirs)),
        difference,
        ratio,
        target.told("points"),
        target.met(difference, ratio),
        error=error,
        least=100 * min(result.final.least for result in ours),
        seeds=len(ours),
    )


def loss_row(
    claim: str, setting: str, ours: Sequence[Result], reference: Sequence[Result], target: Target
) -> Row:
    """Of results with the same seeds; the difference in percent of the reference."""
    mine, theirs = ([result.final.loss for result in each] for each in (ours, reference))
    difference, error = paired([100 * m / t for m, t in zip(mine, theirs, strict=True)], [100.0])
    ratio = _fewer_bytes(ours, reference)
    return Row(
        claim,
        setting,
        float(np.mean(mine)),
        float(np.mean(theirs)),
        difference,
        ratio,
        target.told("%"),
        target.met(difference, ratio),
        unit="%",
        error=error,
        seeds=len(ours),
    )


def formula_row(
    claim: str,
    setting: str,
    measured: float,
    formula: float,
    percent: float,
    error: float = math.nan,
) -> Row:
    """A measurement, with its standard error, that may be ``percent`` off what is calculated."""
    difference = 100 * (measured - formula) / formula
    target = Target(least=-percent, most=percent)
    met = target.met(difference, None)
    error *= 100 / formula
    told = f"± {percent:g} %"
    return Row(claim, setting, measured, formula, difference, None, told, met, "%", error)


def push_row(claim: str, setting: str, pushes: Sequence[float]) -> Row:
    """The farthest of ``pushes``, in units of what was allowed; no push at all proves nothing."""
    most = max(pushes)
    ok = 0 < most <= 1 + _PUSH_SLACK
    told = "≤ half the clip bound"
    return Row(claim, setting, most, 1.0, most - 1, None, told, ok, "of the bound")


def _fewer_bytes(ours: Sequence[Result], reference: Sequence[Result]) -> float | None:
    mine = sum(result.final.sent for result in ours)
    return sum(result.final.sent for result in reference) / mine if mine else None


def _signed(value: float) -> str:
    return f"{value:+g}" if value else "0"


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, _PLACES) if math.isfinite(value) else None
