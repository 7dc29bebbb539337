"""Training in one batch, against a plain torch loop for one node."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from covey.simulate.learning import Learning
from covey.simulate.splits import Split
from covey.simulate.tasks import Optimiser, Task, load

IID = Split()


@pytest.fixture(scope="module")
def digits() -> Task:
    return load("digits")


@pytest.fixture
def text(tmp_path: Path) -> Task:
    file = tmp_path / "text"
    file.write_text("the quick brown fox jumps over the lazy dog\n" * 300)
    return load(f"text:{file}")


def batches(task: Task, share: NDArray[np.intp], seed: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Three epochs of shuffled examples, cut into batches."""
    rng = np.random.default_rng(seed)
    numbers = torch.from_numpy(np.concatenate([rng.permutation(share) for _ in range(3)]))
    return [task.train.take(part) for part in torch.split(numbers, task.batch)[:-1]]


def plain(task: Task, vector: Tensor) -> nn.Module:
    """The digits' network in torch's own layers."""
    w1, b1, w2, b2 = torch.split(vector.clone(), [64 * 128, 128, 1280, 10])
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    values = w1.reshape(64, 128).T, b1, w2.reshape(128, 10).T, b2
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.copy_(value)
    return network


def optimiser_of(kind: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    if kind.kind == "sgd":
        return torch.optim.SGD(
            network.parameters(), kind.rate, momentum=kind.momentum, weight_decay=kind.decay
        )
    return torch.optim.AdamW(
        network.parameters(), kind.rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=kind.decay
    )


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().t().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("kind", [Optimiser("sgd", 0.05, 0.9, 0.01), Optimiser("adamw")])
def test_a_node_alone_is_a_plain_torch_loop(digits: Task, kind: Optimiser) -> None:
    task = replace(digits, optimiser=kind)
    learning = Learning(task, 1, IID, seed=3)
    network = plain(task, learning.parameters[0])
    optimiser = optimiser_of(kind, network)
    for inputs, targets in batches(task, learning.shares[0], [3, 11, 0])[:60]:
        learning.step(np.array([0]))
        optimiser.zero_grad()
        F.cross_entropy(network(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    torch.testing.assert_close(learning.parameters[0], flat(network), rtol=1e-3, atol=1e-4)
    inputs, targets = task.test.take(task.test_numbers)
    score = learning.score(learning.vectors)
    logits = network(inputs).detach()
    hits = (logits.argmax(-1) == targets).double().mean()
    assert score.accuracy[0] == pytest.approx(float(hits), abs=0.005)
    assert score.loss[0] == pytest.approx(float(F.cross_entropy(logits, targets)), 1e-3)


def test_who_steps_moves_as_if_all_did(digits: Task) -> None:
    whole, part = (Learning(digits, 4, Split("dirichlet", 0.1), seed=0) for _ in range(2))
    begun = part.parameters.clone()
    for _ in range(5):
        whole.step(np.arange(4))
        part.step(np.array([1, 3]))
    torch.testing.assert_close(part.parameters[[1, 3]], whole.parameters[[1, 3]])
    assert torch.equal(part.parameters[[0, 2]], begun[[0, 2]])
    assert not torch.equal(part.parameters[1], begun[1])


def test_vectors_are_views_of_the_live_models(digits: Task) -> None:
    learning = Learning(digits, 2, IID, seed=0)
    learning.vectors[1] += 1
    assert torch.equal(learning.parameters[1], learning.parameters[0] + 1)
    assert learning.layout.size == learning.vectors.shape[1] == 9610


def test_all_begin_alike_and_a_seed_means_one_beginning(digits: Task) -> None:
    first, again, other = (Learning(digits, 3, IID, seed) for seed in (1, 1, 2))
    assert torch.equal(first.parameters[0], first.parameters[2])
    assert torch.equal(first.parameters, again.parameters)
    assert not torch.equal(first.parameters, other.parameters)


def test_liars_learn_the_opposite(digits: Task) -> None:
    lying, honest = Learning(digits, 2, IID, 0, liars=[1]), Learning(digits, 2, IID, 0)
    inputs, targets = batches(digits, lying.shares[1], [0, 11, 1])[0]
    network = plain(digits, lying.parameters[1])
    F.cross_entropy(network(inputs), 9 - targets).backward()  # type: ignore[no-untyped-call]
    wanted = [p.grad.t().flatten() for p in network.parameters() if p.grad is not None]
    gradients = lying.gradients(np.arange(2))
    torch.testing.assert_close(gradients[1], torch.cat(wanted), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gradients[0], honest.gradients(np.arange(2))[0])


def test_liars_read_the_same_text_as_others(text: Task) -> None:
    lying, honest = Learning(text, 2, IID, 0, liars=[1]), Learning(text, 2, IID, 0)
    before = honest.score(honest.vectors).loss
    for _ in range(15):
        lying.step(np.arange(2))
        honest.step(np.arange(2))
    torch.testing.assert_close(lying.parameters[0], honest.parameters[0])
    assert (honest.score(honest.vectors).loss < 0.8 * before).all()
    assert lying.score(lying.vectors).loss[1] > before[1]


def test_a_text_is_learned_from_parts(text: Task) -> None:
    learning = Learning(text, 3, Split("parts"), 0)
    assert [share[0] for share in learning.shares] == sorted(share[0] for share in learning.shares)
    assert learning.gradients(np.array([0, 2])).shape == (2, learning.layout.size)
