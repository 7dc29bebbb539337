"""Baselines: what each does in one step, exactly, and what it counts as sent."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from covey.simulate.baselines import BASELINES, Baseline, SparseLoCo
from covey.simulate.learning import Learning
from covey.simulate.scenario import Outer, Scenario
from covey.simulate.splits import Split
from covey.simulate.tasks import Task, load

NODES = 5
SCENARIO = Scenario(nodes=NODES, periods=3, steps=2, measures=3, seed=4)
VECTOR = 4 * 9610  # bytes


@pytest.fixture(scope="module")
def digits() -> Task:
    return load("digits")


def make(name: str, task: Task, outer: Outer | None = None) -> Baseline:
    workload = Learning(task, NODES, Split("dirichlet", 0.5), SCENARIO.seed)
    return BASELINES[name](SCENARIO, workload, outer)


def apart(name: str, task: Task, outer: Outer | None = None) -> Baseline:
    """At the end of the first period, before its sync."""
    made = make(name, task, outer)
    for _ in range(3):
        made.step()
    return made


def finals(name: str, task: Task, outer: Outer | None = None) -> Tensor:
    made = make(name, task, outer)
    made.run()
    return made.x.clone()


@pytest.mark.parametrize("name", BASELINES)
def test_a_run_repeats_and_reports(name: str, digits: Task) -> None:
    result, again = make(name, digits).run(), make(name, digits).run()
    assert result == again
    assert [point.steps for point in result.points] == [2, 4, 6, 6]
    assert [point.time_s for point in result.points] == [2, 4, 6, 6]
    assert result.parameters == 9610
    assert np.isfinite(result.final.loss)
    assert result.points[0].loss != result.final.loss


@pytest.mark.parametrize(
    ("name", "per_period"),
    [
        ("isolated", 0.0),
        ("central", 0.0),
        ("allreduce", SCENARIO.steps * 2 * 4 / 5 * VECTOR),
        ("average", 2 * 4 / 5 * VECTOR),
        ("diloco", 2 * 4 / 5 * VECTOR),
        ("pair-average", 4 / 5 * VECTOR),  # of five, one goes without a partner
        ("noloco", 4 / 5 * VECTOR),
        ("push1", VECTOR),
        ("push3", 3 * VECTOR),
        ("sparseloco", 4 * 3 * 64 * 14 / 8),  # three chunks from each of four others
    ],
)
def test_bytes_are_those_of_the_vectors(name: str, per_period: float, digits: Task) -> None:
    made = make(name, digits)
    result = made.run()
    rounds = SCENARIO.periods + (SCENARIO.config.settle_exchanges if made.drifts else 0)
    assert result.final.sent == pytest.approx(rounds * per_period)


def test_alone_nothing_mixes(digits: Task) -> None:
    workload = Learning(digits, NODES, Split("dirichlet", 0.5), SCENARIO.seed)
    for _ in range(SCENARIO.periods * SCENARIO.steps):
        workload.step(np.arange(NODES))
    assert torch.equal(finals("isolated", digits), workload.parameters)


def test_an_average_is_the_mean(digits: Task) -> None:
    made = apart("average", digits)
    mean = made.x.mean(0)
    made.sync()
    assert all(torch.equal(row, mean) for row in made.x)


def test_gradients_averaged_every_step_keep_all_alike(digits: Task) -> None:
    everywhere, central = finals("allreduce", digits), finals("central", digits)
    assert all(torch.equal(row, everywhere[0]) for row in everywhere)
    assert torch.equal(everywhere, central)


@pytest.mark.parametrize(("stepped", "plain"), [("diloco", "average"), ("noloco", "pair-average")])
def test_an_outer_step_of_one_without_momentum_is_none(
    stepped: str, plain: str, digits: Task
) -> None:
    outer = Outer(momentum=0.0, rate=1.0)
    torch.testing.assert_close(finals(stepped, digits, outer), finals(plain, digits))


def test_diloco_looks_ahead_as_torchs_nesterov_does(digits: Task) -> None:
    made, twin = (make("diloco", digits, Outer(0.9, 0.7)) for _ in range(2))
    slow = made.x[0].clone().requires_grad_()
    optimiser = torch.optim.SGD([slow], 0.7, momentum=0.9, nesterov=True)
    for _ in range(3):
        for each in (made, twin):
            each.step()
            each.x.copy_(made.x)
        slow.grad = slow.detach() - twin.x.mean(0)
        optimiser.step()
        made.sync()
        twin.x.copy_(made.x)
        torch.testing.assert_close(made.x[2], slow.detach())


def test_pairs_average_and_one_of_an_odd_flock_rests(digits: Task) -> None:
    made = apart("pair-average", digits)
    before = made.x.clone()
    made.sync()
    torch.testing.assert_close(made.x.mean(0), before.mean(0))
    partners = []
    for row in made.x:
        fits = [
            (a, b)
            for a in range(NODES)
            for b in range(a, NODES)
            if torch.allclose(row, (before[a] + before[b]) / 2, atol=1e-7)
        ]
        assert len(fits) == 1
        partners += fits
    assert sorted(len(set(pair)) for pair in partners) == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(("name", "fan_out"), [("push1", 1), ("push3", 3)])
def test_a_push_averages_own_and_what_came(name: str, fan_out: int, digits: Task) -> None:
    made = make(name, digits)
    made.x.zero_()[:, :NODES] = torch.eye(NODES)  # so that the vectors are their own weights
    made.sync()
    weights = made.x[:, :NODES]
    torch.testing.assert_close(weights.sum(1), torch.ones(NODES))
    assert (weights.diagonal() > 0).all()
    assert ((weights > 0).sum(0) == 1 + fan_out).all()
    for row in weights:
        assert len(set(row[row > 0].tolist())) == 1


def test_sparseloco_loses_nothing_of_what_it_does_not_send(digits: Task) -> None:
    class Patient(SparseLoCo):
        feedback = 1.0

    workload = Learning(digits, NODES, Split("dirichlet", 0.5), SCENARIO.seed)
    made = Patient(SCENARIO, workload)
    for _ in range(3):
        made.step()
        error, slow, x = made.error.clone(), made.slow.clone(), made.x.clone()
        made.sync()
        sent = error - made.error
        sent[:, : x.shape[1]] += slow - x
        torch.testing.assert_close(made.slow[0], slow[0] - sent.mean(0)[: x.shape[1]])
        assert torch.equal(made.x, made.slow)
        exact = sent.abs() > 1e-6
        assert (exact.reshape(NODES, 3, -1).sum(-1) <= 64).all()
        for chunk in sent.reshape(NODES * 3, -1).abs():
            sizes = chunk[chunk > 1e-6]
            assert len(torch.unique((sizes * 1e5).round())) <= 2


def test_sparseloco_forgets_old_errors(digits: Task) -> None:
    made = make("sparseloco", digits)
    assert isinstance(made, SparseLoCo)
    made.error[:] = 1.0
    made.sync()  # without any step: what is sent is of the error alone
    left = made.error[made.error > 0.5]
    torch.testing.assert_close(left, torch.full_like(left, 0.95))


def test_settling_brings_those_together_who_drift(digits: Task) -> None:
    made = make("pair-average", digits)
    settled = made.run()
    made = BASELINES["pair-average"](
        replace(SCENARIO, settle=False), make("average", digits).workload
    )
    assert settled.final.apart < 0.2 * made.run().final.apart
