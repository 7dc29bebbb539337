"""The simulator against reality: four daemons and four simulated nodes learn alike.

Both train the same models on the same batches from the same weights with the same code; only time
and network differ.  The simulator is run with several seeds of its own, which draw other partners
and moments.  Reality is one more draw: each figure lies within four standard deviations of the
simulated mean, or within a floor below which nobody could tell one seed's luck from another's (a
hundredth of accuracy is 4 test images).  While they train, the distance between models and all
that follows from it is a saw-tooth, down with each exchange and up with each step: where on it an
instant falls is up to the machine's load, so the floors are wider then.  Nodes that learn alone
are far outside.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from covey.simulate.baselines import Isolated
from covey.simulate.learning import Learning
from covey.simulate.result import Point, measure
from covey.simulate.scenario import Network, Scenario
from covey.simulate.splits import Split
from covey.simulate.tasks import load
from covey.simulate.world import World
from tests.swarm.flock import Flock

pytestmark = pytest.mark.swarm

TASK, SPLIT = "digits", "dirichlet:0.2"
NODES, PERIODS, STEPS, PERIOD_S = 4, 24, 10, 0.5
SEEDS = range(6)
MOMENTS = ("middle", "end", "settled")
LEARNER = Path(__file__).parent / "data" / "learner_simulated.py"
# Of accuracy; of loss and of the distance to the average, as shares of what is simulated.
TRAINING = {"mean": 0.15, "least": 0.25, "averaged": 0.1, "loss": 0.7, "apart": 0.8}
SETTLED = {"mean": 0.06, "least": 0.08, "averaged": 0.06, "loss": 0.7}
RELATIVE = ("loss", "apart")


def workload() -> Learning:
    return Learning(load(TASK), NODES, Split.parse(SPLIT), seed=0)


def scenario(seed: int) -> Scenario:
    network = Network(latency_s=0.005)  # as a request costs a daemon on loopback
    return Scenario(
        NODES, PERIODS, PERIOD_S, STEPS, network=network, measures=len(MOMENTS) - 1, seed=seed
    )


def within(real: float, simulated: Sequence[float], floor: float) -> bool:
    deviation = float(np.std(simulated, ddof=1))
    return abs(real - float(np.mean(simulated))) <= max(4 * deviation, floor)


def realised(flock: Flock) -> list[Point]:
    """What four daemons come to."""
    options = ["--task", TASK, "--split", SPLIT, "--nodes", NODES, "--folder", flock.folder]
    options += ["--periods", PERIODS, "--steps", STEPS, "--period", PERIOD_S]
    nodes = [
        flock.script(f"node{number}", LEARNER, *map(str, options), "--node", str(number))
        for number in range(NODES)
    ]
    assert [node.wait() for node in nodes] == [0] * NODES, [node.words for node in nodes]
    scored, points = workload(), []
    for moment in MOMENTS:
        files = [flock.folder / f"{moment}-{number}.npy" for number in range(NODES)]
        vectors = np.stack([np.load(file) for file in files])
        points.append(measure(scored, vectors, 0.0, 0.0, 0.0))
    return points


def test_four_daemons_learn_as_four_simulated_nodes(flock: Flock) -> None:
    torch.set_num_threads(1)
    real = realised(flock)
    simulated = [World(scenario(seed), workload()).run().points for seed in SEEDS]
    alone = Isolated(scenario(0), workload()).run().points
    for number, moment in enumerate(MOMENTS):
        for name, least in (SETTLED if moment == "settled" else TRAINING).items():
            drawn = [float(getattr(points[number], name)) for points in simulated]
            floor = least * (float(np.mean(drawn)) if name in RELATIVE else 1.0)
            found = float(getattr(real[number], name))
            said = f"{name} at {moment}: {found:.4f}, simulated {np.round(drawn, 4)}"
            assert within(found, drawn, floor), said
            if name in ("averaged", "loss", "apart"):
                assert not within(float(getattr(alone[number], name)), drawn, floor), said
    assert real[-1].apart < 0.01, "settled"
