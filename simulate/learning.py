"""Local training of many models at once: batches of matrix products, not a loop over nodes."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from covey.gossip.quantiser import Floats
from covey.protocols.layout import Kind, Layout
from covey.protocols.layout import Tensor as Entry
from covey.simulate.splits import Indices, Split, deal
from covey.simulate.tasks import Optimiser, Task
from covey.simulate.workload import Nodes, Score

_SCORED = 8  # models at a time


class Learning:
    """A workload: each node trains its own model of ``task`` on its own share of the examples."""

    def __init__(
        self, task: Task, nodes: int, split: Split, seed: int, liars: Collection[int] = ()
    ) -> None:
        """``liars`` train on wrong labels: y -> classes - 1 - y."""
        self.task = task
        self.shares = deal(task.train.labels, nodes, split, seed)
        generator = torch.Generator().manual_seed(seed)
        self._shapes = [shape for _, shape in task.model.shapes]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        first = torch.cat([tensor.flatten() for tensor in task.model.initial(generator)])
        self.parameters = first.repeat(nodes, 1)
        self.vectors: Floats = self.parameters.numpy()
        entries = (Entry(name, shape, kind=Kind.PARAMETER) for name, shape in task.model.shapes)
        self.layout = Layout(tuple(entries))
        self._samplers = [_Sampler(s, [seed, 11, k]) for k, s in enumerate(self.shares)]
        self._liars = torch.zeros(nodes, dtype=torch.bool)
        self._liars[list(liars)] = True
        self._steps = _Steps(task.optimiser, self.parameters)

    def step(self, nodes: Nodes) -> None:
        every = len(nodes) == len(self.parameters)
        rows = None if every else torch.from_numpy(nodes)
        self._steps.apply(self.parameters, self.gradients(nodes), rows)

    def gradients(self, nodes: Nodes) -> Tensor:
        """Of the next batch of each, float32 (nodes, size); without a step."""
        numbers = np.stack([self._samplers[node].draw(self.task.batch) for node in nodes])
        inputs, targets = self.task.train.take(torch.from_numpy(numbers))
        rows = torch.from_numpy(nodes)
        lying = self._liars[rows].reshape(-1, *[1] * (targets.ndim - 1))
        targets = torch.where(lying, self.task.model.classes - 1 - targets, targets)
        flat = self.parameters[rows].detach().requires_grad_()
        losses = _cross_entropy(self._logits(flat, inputs), targets)
        (gradient,) = torch.autograd.grad(losses.sum(), flat)
        return gradient

    def descend(self, gradient: Tensor) -> None:
        """A step of all nodes by a gradient each, (nodes, size)."""
        self._steps.apply(self.parameters, gradient, None)

    def score(self, vectors: Floats) -> Score:
        inputs, targets = self.task.test.take(self.task.test_numbers)
        accuracy, loss = [], []
        for begin in range(0, len(vectors), _SCORED):
            flat = torch.from_numpy(vectors[begin : begin + _SCORED])
            count = len(flat)
            with torch.no_grad():
                logits = self._logits(flat, inputs.expand(count, *inputs.shape))
                wanted = targets.expand(count, *targets.shape)
                hits = (logits.argmax(-1) == wanted).double().flatten(1)
                accuracy.append(hits.mean(1).numpy())
                loss.append(_cross_entropy(logits, wanted).double().numpy())
        return Score(np.concatenate(accuracy), np.concatenate(loss))

    def _logits(self, flat: Tensor, inputs: Tensor) -> Tensor:
        pieces = torch.split(flat, self._sizes, dim=1)
        shaped = [
            piece.reshape(len(flat), *shape)
            for piece, shape in zip(pieces, self._shapes, strict=True)
        ]
        return self.task.model.logits(shaped, inputs)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of each model: (models,)."""
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return losses.reshape(len(logits), -1).mean(1)


class _Sampler:
    """Numbers of examples, shuffled anew each epoch: the same for every algorithm."""

    def __init__(self, share: Indices, seed: list[int]) -> None:
        self._share = share
        self._rng = np.random.default_rng(seed)
        self._left = share[:0]

    def draw(self, count: int) -> Indices:
        while len(self._left) < count:
            self._left = np.concatenate([self._left, self._rng.permutation(self._share)])
        drawn, self._left = self._left[:count], self._left[count:]
        return drawn


class _Steps:
    """The inner optimiser's state, a row per node."""

    def __init__(self, optimiser: Optimiser, parameters: Tensor) -> None:
        self._optimiser = optimiser
        self._first = torch.zeros_like(parameters)
        self._second = torch.zeros_like(parameters)
        self._count = torch.zeros(len(parameters), 1)

    def apply(self, parameters: Tensor, gradient: Tensor, rows: Tensor | None) -> None:
        """One step of ``rows`` (None: of all), in place."""
        every = rows is None
        chosen = slice(None) if rows is None else rows
        states = self._first, self._second, self._count
        first, second, count = (state if every else state[chosen] for state in states)
        values = parameters if every else parameters[chosen]
        count += 1
        step = self._sgd if self._optimiser.kind == "sgd" else self._adamw
        step(values, gradient, first, second, count)
        if not every:
            for state, part in zip(
                (parameters, *states), (values, first, second, count), strict=True
            ):
                state[chosen] = part

    def _sgd(self, x: Tensor, gradient: Tensor, first: Tensor, _s: Tensor, _c: Tensor) -> None:
        optimiser = self._optimiser
        first.mul_(optimiser.momentum).add_(gradient).add_(x, alpha=optimiser.decay)
        x.sub_(first, alpha=optimiser.rate)

    def _adamw(
        self, x: Tensor, gradient: Tensor, first: Tensor, second: Tensor, count: Tensor
    ) -> None:
        """Loshchilov & Hutter 2019, betas 0.9 and 0.95."""
        optimiser = self._optimiser
        first.mul_(0.9).add_(gradient, alpha=0.1)
        second.mul_(0.95).addcmul_(gradient, gradient, value=0.05)
        width = (second / (1 - 0.95**count)).sqrt_().add_(1e-8)
        x.mul_(1 - optimiser.rate * optimiser.decay)
        x.sub_(first / (1 - 0.9**count) / width, alpha=optimiser.rate)
