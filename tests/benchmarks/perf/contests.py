"""Rounds of several contestants in turn, so that the machine's moods hit all alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.perf.peers import Contestant


@dataclass(frozen=True)
class Series:
    """One contestant's rounds."""

    seconds: Sequence[float]
    cpu_s: Sequence[float]


def alternate(repeats: int, *contestants: Contestant) -> list[Series]:
    """``repeats`` rounds of each, by turns."""
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in contestants]
    for _ in range(repeats):
        for contestant, (seconds, cpu_s) in zip(contestants, found, strict=True):
            before = contestant.cpu_s()
            seconds.append(contestant.round())
            cpu_s.append(contestant.cpu_s() - before)
    return [Series(seconds, cpu_s) for seconds, cpu_s in found]
