"""The interface between a world and what its nodes work on: every workload fits it."""

import numpy as np
import pytest

from covey.simulate.consensus import Consensus
from covey.simulate.learning import Learning
from covey.simulate.splits import Split
from covey.simulate.tasks import load
from covey.simulate.workload import Workload
from tests.simulate.strolls import Strolls

NODES = 4


@pytest.fixture(params=["learning", "consensus", "strolls"])
def workload(request: pytest.FixtureRequest) -> Workload:
    if request.param == "learning":
        return Learning(load("digits"), NODES, Split(), seed=0)
    return Consensus(NODES, 50, 0, noise=1.0) if request.param == "consensus" else Strolls(NODES)


def test_all_begin_alike(workload: Workload) -> None:
    assert workload.vectors.shape == (NODES, workload.layout.size)
    assert workload.vectors.dtype == np.float32
    assert (workload.vectors == workload.vectors[0]).all()


def test_only_those_named_step_and_what_is_written_stays(workload: Workload) -> None:
    kept = workload.vectors
    workload.step(np.array([0, 2]))
    moved = (kept != kept[1]).any(axis=1)
    assert moved.tolist() == [True, False, True, False]
    kept[3] = 0.5
    workload.step(np.array([1]))
    assert workload.vectors is kept or np.shares_memory(workload.vectors, kept)
    assert (workload.vectors[3] == 0.5).all()


def test_any_models_are_scored(workload: Workload) -> None:
    workload.step(np.arange(NODES))
    score = workload.score(np.repeat(workload.vectors, 3, axis=0))
    assert score.accuracy.shape == score.loss.shape == (3 * NODES,)
    assert np.isfinite(score.loss).all()
    alone = workload.score(workload.vectors[1:2])
    assert score.loss[3] == pytest.approx(alone.loss[0], rel=1e-5)
