"""Vectors without training: where they begin, how far apart they say they are, how they agree."""

from itertools import pairwise

import numpy as np
import pytest

from covey.gossip.config import Config, OuterStep
from covey.simulate.consensus import Consensus
from covey.simulate.result import Result
from covey.simulate.scenario import Scenario
from covey.simulate.world import World

PLAIN = OuterStep(momentum=0.0, rate=1.0)  # averaging alone


def run(
    nodes: int, codec: str, noise: float = 0.0, seed: int = 0, periods: int = 16
) -> tuple[Consensus, Result]:
    config = Config(codec=codec, outer=PLAIN)
    scenario = Scenario(
        nodes=nodes, periods=periods, steps=1, measures=periods, config=config, seed=seed
    )
    workload = Consensus(nodes, 96, seed, noise)
    return workload, World(scenario, workload).run()


def test_all_begin_at_zero_and_scatter_with_the_first_step() -> None:
    workload = Consensus(500, 64, 1)
    first = workload.vectors.copy()
    assert not first.any()
    assert not workload.score(first).loss.any()
    some = np.arange(0, 500, 2)
    workload.step(some)
    moved = workload.vectors - first
    assert not moved[1::2].any()
    assert moved[some].std() == pytest.approx(1, abs=0.02)
    workload.step(some)
    assert np.array_equal(workload.vectors - first, moved), "without noise there is one step"


def test_the_loss_is_the_distance_to_the_mean_of_all() -> None:
    workload = Consensus(400, 64, 2)
    workload.step(np.arange(400))
    score = workload.score(workload.vectors)
    assert score.loss.mean() == pytest.approx(1, abs=0.02)
    assert np.isnan(score.accuracy).all()
    mean = workload.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    assert workload.score(mean[None]).loss < 1e-6


@pytest.mark.parametrize("codec", ["f32", "mod4"])
def test_a_flock_agrees_and_keeps_its_mean(codec: str) -> None:
    workload, result = run(24, codec)
    losses = [point.loss for point in result.points]
    assert losses[0] == pytest.approx(1, abs=0.05), "before the first exchange"
    assert all(after < before for before, after in pairwise(losses))
    assert losses[-2] < 0.2
    assert losses[-1] < 0.01, "settled"
    untouched = Consensus(24, 96, 0)
    untouched.step(np.arange(24))
    drift = workload.vectors.mean(axis=0, dtype=np.float64) - untouched.vectors.mean(
        axis=0, dtype=np.float64
    )
    assert np.abs(drift).max() < 1e-6


def test_noise_keeps_it_apart() -> None:
    still, noisy = (run(24, "f32", noise)[1].points[-2].loss for noise in (0.0, 0.3))
    assert noisy > still + 0.15


def test_a_seed_is_a_run_to_the_bit() -> None:
    one, other, third = (run(66, "mod4", 0.1, seed, 2)[0].vectors for seed in (5, 5, 6))
    assert one.tobytes() == other.tobytes() != third.tobytes()
