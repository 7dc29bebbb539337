"""Small models, all nodes' copies in one batch: parameters are (models, ...) throughout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Model(Protocol):
    """A network as a pure function of its parameters."""

    @property
    def shapes(self) -> Shapes:
        """Names and shapes of one model's parameters, in the order of its vector."""

    @property
    def classes(self) -> int:
        """How many logits it gives."""

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """One model's initial parameters, of these shapes."""

    def logits(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Of parameters (models, *shape) and inputs (models, batch, ...); float32 (models, batch,
        ..., classes)."""


def _weight(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    """Uniform in +-1 / sqrt(fan_in), as torch's own layers begin."""
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class Mlp:
    """Fully connected layers with ReLU between.  ``sizes``: inputs, hidden ..., classes."""

    sizes: tuple[int, ...]

    @property
    def classes(self) -> int:
        return self.sizes[-1]

    @property
    def shapes(self) -> Shapes:
        named: list[tuple[str, tuple[int, ...]]] = []
        for k, (a, b) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            named += [(f"{k}.weight", (a, b)), (f"{k}.bias", (b,))]
        return tuple(named)

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        fans = [size for size in self.sizes[:-1] for _ in range(2)]
        return [_weight(s, fan, generator) for (_, s), fan in zip(self.shapes, fans, strict=True)]

    def logits(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        hidden = inputs
        for k in range(0, len(parameters), 2):
            hidden = torch.relu(hidden) if k else hidden
            hidden = torch.baddbmm(parameters[k + 1][:, None], hidden, parameters[k])
        return hidden


@dataclass(frozen=True)
class Cnn:
    """28 x 28 images; two strided convolutions with GroupNorm and ReLU each, and a linear layer."""

    first: int = 8
    second: int = 16
    classes: int = 10

    @property
    def shapes(self) -> Shapes:
        a, b = self.first, self.second
        return (
            ("conv1.weight", (a, 1, 5, 5)),
            ("norm1.weight", (a,)),
            ("norm1.bias", (a,)),
            ("conv2.weight", (b, a, 3, 3)),
            ("norm2.weight", (b,)),
            ("norm2.bias", (b,)),
            ("head.weight", (b * 49, self.classes)),
            ("head.bias", (self.classes,)),
        )

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        shapes = dict(self.shapes)
        made = []
        for name, shape in self.shapes:
            if name.startswith("norm"):
                made.append(torch.full(shape, float(name.endswith("weight"))))
            else:
                made.append(
                    _weight(shape, _fan_in(shapes[name.split(".")[0] + ".weight"]), generator)
                )
        return made

    def logits(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        conv1, scale1, shift1, conv2, scale2, shift2, head, bias = parameters
        models, batch = inputs.shape[:2]
        hidden = inputs.reshape(models, batch, 28, 28).transpose(0, 1)
        hidden = F.conv2d(hidden, conv1.flatten(0, 1), stride=2, padding=2, groups=models)
        hidden = F.group_norm(hidden, 2 * models, scale1.flatten(), shift1.flatten()).relu()
        hidden = F.conv2d(hidden, conv2.flatten(0, 1), stride=2, padding=1, groups=models)
        hidden = F.group_norm(hidden, 4 * models, scale2.flatten(), shift2.flatten()).relu()
        hidden = hidden.reshape(batch, models, -1).transpose(0, 1)
        return torch.baddbmm(bias[:, None], hidden, head)


def _fan_in(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:]) if len(shape) == 4 else shape[0]


@dataclass(frozen=True)
class Gpt:
    """A character transformer: pre-norm, learned positions, the output tied to the embedding."""

    symbols: int
    context: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4

    @property
    def classes(self) -> int:
        return self.symbols

    @property
    def shapes(self) -> Shapes:
        w = self.width
        named: list[tuple[str, tuple[int, ...]]] = [
            ("embedding", (self.symbols, w)),
            ("positions", (self.context, w)),
        ]
        for k in range(self.layers):
            named += [
                (f"{k}.norm1", (w,)),
                (f"{k}.attention", (w, 3 * w)),
                (f"{k}.projection", (w, w)),
                (f"{k}.norm2", (w,)),
                (f"{k}.up", (w, 4 * w)),
                (f"{k}.down", (4 * w, w)),
            ]
        return (*named, ("norm", (w,)))

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        made = []
        for name, shape in self.shapes:
            if "norm" in name:
                made.append(torch.ones(shape))
                continue
            deep = name.endswith(("projection", "down"))
            std = 0.02 / math.sqrt(2 * self.layers) if deep else 0.02
            made.append(torch.empty(shape).normal_(0, std, generator=generator))
        return made

    def logits(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        embedding, positions, *blocks, norm = parameters
        models, batch, length = inputs.shape
        rows = torch.arange(models)[:, None, None]
        hidden = embedding[rows, inputs] + positions[:, None, :length]
        hidden = hidden.reshape(models, batch * length, self.width)
        for k in range(self.layers):
            hidden = self._block(hidden, blocks[6 * k : 6 * k + 6], (models, batch, length))
        hidden = self._norm(hidden, norm)
        logits = torch.bmm(hidden, embedding.transpose(1, 2))
        return logits.reshape(models, batch, length, self.symbols)

    def _block(
        self, hidden: Tensor, parameters: Sequence[Tensor], sizes: tuple[int, int, int]
    ) -> Tensor:
        norm1, attention, projection, norm2, up, down = parameters
        models, batch, length = sizes
        mixed = torch.bmm(self._norm(hidden, norm1), attention)
        mixed = mixed.reshape(models * batch, length, 3, self.heads, self.width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        seen = seen.transpose(1, 2).reshape(models, batch * length, self.width)
        hidden = hidden + torch.bmm(seen, projection)
        return hidden + torch.bmm(F.gelu(torch.bmm(self._norm(hidden, norm2), up)), down)

    def _norm(self, hidden: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(hidden, (self.width,)) * scale[:, None]
