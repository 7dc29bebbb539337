"""Swarms of cores learn a convex task from skewed data: no network, the same code as the node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from covey.gossip.config import Config
from covey.gossip.quantiser import Floats

if TYPE_CHECKING:
    from tests.gossip.conftest import Flight, Flock

Flocks = type["Flock"]
Doubles = NDArray[np.float64]
CLASSES, FEATURES = 8, 12
PARAMETERS = CLASSES * (FEATURES + 1)
STEPS = 10  # of gradient descent per period


@dataclass(frozen=True)
class Data:
    """Rows of features with a constant 1, and their labels."""

    rows: Doubles
    labels: NDArray[np.intp]

    def descend(self, weights: Floats, steps: int) -> Floats:
        """Softmax regression by full-batch gradient descent: the progress, not the weights."""
        w = weights[:PARAMETERS].astype(np.float64).reshape(CLASSES, -1)
        for _ in range(steps):
            scores = self.rows @ w.T
            chances = np.exp(scores - scores.max(axis=1, keepdims=True))
            chances /= chances.sum(axis=1, keepdims=True)
            chances[np.arange(len(chances)), self.labels] -= 1
            w = w - 0.3 * chances.T @ self.rows / len(self.rows)
        progress = np.zeros_like(weights)
        progress[:PARAMETERS] = w.ravel() - weights[:PARAMETERS]
        return progress

    def accuracy(self, weights: Floats | Doubles) -> float:
        scores = self.rows @ weights[:PARAMETERS].reshape(CLASSES, -1).T
        return float((scores.argmax(axis=1) == self.labels).mean())


def sample(rng: np.random.Generator, centres: Doubles, classes: list[int], count: int) -> Data:
    labels = rng.choice(classes, count)
    rows = centres[labels] + rng.standard_normal((count, FEATURES)) * 0.6
    return Data(np.hstack([rows, np.ones((count, 1))]), labels)


class School:
    """A flock, a shard of two classes for each of its nodes, and a test set of all."""

    def __init__(self, flock: "Flock", seed: int) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((CLASSES, FEATURES))
        self.flock = flock
        self.shards = []
        for number in range(len(flock.cores)):
            classes = [2 * number % CLASSES, (2 * number + 1) % CLASSES]
            self.shards.append(sample(rng, centres, classes, 60))
        self.test = sample(rng, centres, list(range(CLASSES)), 800)
        flock.begin([np.zeros(flock.layout.size, np.float32)] * len(flock.cores))

    def train(self, periods: int, steps: Callable[[int], int] = lambda number: STEPS) -> None:
        for _ in range(periods):
            self.flock.period(
                [
                    shard.descend(core.replica.learner, steps(number))
                    for number, (core, shard) in enumerate(
                        zip(self.flock.cores, self.shards, strict=True)
                    )
                ]
            )

    def settle(self, rounds: int = 8) -> None:
        for _ in range(rounds):
            self.flock.match()
            self.flock.wait()

    @property
    def accuracies(self) -> list[float]:
        return [self.test.accuracy(core.replica.x) for core in self.flock.cores]

    @property
    def centralised(self) -> float:
        """The same training on all data in one place."""
        rows = np.vstack([shard.rows for shard in self.shards])
        everything = Data(rows, np.concatenate([shard.labels for shard in self.shards]))
        weights = np.zeros(PARAMETERS, np.float32)
        return self.test.accuracy(weights + everything.descend(weights, 300))

    @property
    def alone(self) -> float:
        weights = np.zeros(PARAMETERS, np.float32)
        found = [self.test.accuracy(s.descend(weights, 300)) for s in self.shards]
        return float(np.mean(found))


def school(flocks: Flocks, size: int = 8, codec: str = "mod4", loss: float = 0.0) -> School:
    config = Config(codec=codec, exchanges=2)
    return School(flocks(size, PARAMETERS, 0, config, seed=size, loss=loss), seed=5)


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("codec", ["mod4", "f32"])
def test_skewed_nodes_learn_what_one_would_with_all_data(
    flocks: Flocks, size: int, codec: str
) -> None:
    learners = school(flocks, size, codec)
    learners.train(30)
    assert learners.alone < 0.3
    assert np.mean(learners.accuracies) > learners.centralised - 0.04
    learners.settle()
    assert min(learners.accuracies) > learners.centralised - 0.02


def test_a_third_of_the_messages_may_be_lost(flocks: Flocks) -> None:
    learners = school(flocks, loss=0.15)  # of each message: about a third of the exchanges
    learners.train(30)
    lost = sum(outcome.reason == "lost" for outcome in learners.flock.outcomes)
    done = sum(not outcome.reason and outcome.proposed for outcome in learners.flock.outcomes)
    assert lost > 0.3 * done
    assert np.mean(learners.accuracies) > learners.centralised - 0.06


def test_an_eightfold_spread_of_speeds(flocks: Flocks) -> None:
    learners = school(flocks)
    learners.train(40, lambda number: 1 + number)
    assert np.mean(learners.accuracies) > learners.centralised - 0.06


def test_four_bits_cost_a_seventh_and_no_accuracy(flocks: Flocks) -> None:
    accuracies, sizes = [], []
    for codec in ("mod4", "f32"):
        learners = school(flocks, codec=codec)
        total = 0

        def count(flight: "Flight") -> "Flight":
            nonlocal total
            total += len(flight.out.payload)
            return flight

        learners.flock.tamper = count
        learners.train(25)
        accuracies.append(float(np.mean(learners.accuracies)))
        done = sum(not o.reason and o.proposed for o in learners.flock.outcomes)
        padded = -(-PARAMETERS // 64) * 64
        sizes.append(total / (8 * padded * done))  # of what the raw vectors take
    assert abs(accuracies[0] - accuracies[1]) < 0.02
    assert sizes[1] == pytest.approx(PARAMETERS / 128, abs=0.01)
    assert sizes[0] < 0.16


def test_training_goes_on_after_a_long_settling(flocks: Flocks) -> None:
    """The distances of an agreed flock must not make its next movement implausible."""
    learners = school(flocks)
    learners.train(10)
    learners.settle(60)
    learners.flock.outcomes.clear()
    learners.train(12)
    refused = sum(outcome.reason == "implausible" for outcome in learners.flock.outcomes[-80:])
    assert refused < 8
    assert np.mean(learners.accuracies) > learners.centralised - 0.06


@pytest.mark.parametrize("codec", ["mod4", "f32"])
def test_two_halves_that_drifted_apart_grow_together_again(flocks: Flocks, codec: str) -> None:
    """A partition: each half agrees within itself ever closer, far from the other."""
    learners = school(flocks, codec=codec)
    flock = learners.flock
    halves = [{core.me for core in flock.cores[:4]}, {core.me for core in flock.cores[4:]}]
    learners.train(5)
    flock.tamper = lambda flight: (
        flight if any({flight.sender, flight.out.peer} <= half for half in halves) else None
    )
    for shard in range(4, 8):  # and the halves learn different things
        learners.shards[shard] = Data(
            learners.shards[shard].rows, (learners.shards[shard].labels + 4) % CLASSES
        )
    learners.train(25)
    apart = np.linalg.norm(flock.x[:4].mean(axis=0) - flock.x[4:].mean(axis=0))
    within = np.sqrt(flock.spread() / 8)
    assert apart > 1.0
    flock.tamper = lambda flight: flight
    learners.train(40)
    healed = np.linalg.norm(flock.x[:4].mean(axis=0) - flock.x[4:].mean(axis=0))
    assert healed < 0.35 * apart, f"from {apart:.3g} ({within:.3g} within) to {healed:.3g}"
