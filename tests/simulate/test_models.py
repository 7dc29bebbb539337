"""Models in one batch, against each alone in torch.nn's own layers."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from covey.simulate.models import Cnn, Gpt, Mlp, Model

COUNT, BATCH = 3, 5
Alone = Callable[[Sequence[Tensor], Tensor], Tensor]


def mlp(parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
    w1, b1, w2, b2 = parameters
    layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    named = {"0.weight": w1.T, "0.bias": b1, "2.weight": w2.T, "2.bias": b2}
    return call(layers, named, inputs)


def cnn(parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
    layers = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2, bias=False),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 49, 10),
    )
    names = ("0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias")
    head, bias = parameters[6:]
    named = dict(zip(names, parameters, strict=False)) | {"7.weight": head.T, "7.bias": bias}
    return call(layers, named, inputs.reshape(-1, 1, 28, 28))


def gpt(parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
    embedding, positions, *blocks, norm = parameters
    hidden = F.embedding(inputs, embedding) + positions[: inputs.shape[1]]
    for k in range(0, len(blocks), 6):
        hidden = block(blocks[k : k + 6], hidden)
    return F.layer_norm(hidden, hidden.shape[-1:], norm) @ embedding.T


def block(parameters: Sequence[Tensor], hidden: Tensor) -> Tensor:
    norm1, attention, projection, norm2, up, down = parameters
    width, length = hidden.shape[-1], hidden.shape[1]
    attend = nn.MultiheadAttention(width, 4, bias=False, batch_first=True)
    named = {"in_proj_weight": attention.T, "out_proj.weight": projection.T}
    x = F.layer_norm(hidden, (width,), norm1)
    ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
    mixed, _ = functional_call(attend, named, (x, x, x), {"attn_mask": ahead})
    hidden = hidden + mixed
    return hidden + F.gelu(F.layer_norm(hidden, (width,), norm2) @ up) @ down


def call(layers: nn.Module, named: dict[str, Tensor], inputs: Tensor) -> Tensor:
    output = functional_call(layers, named, inputs, strict=True)
    assert isinstance(output, Tensor)
    return output


def images(side: int) -> Tensor:
    return torch.rand(COUNT, BATCH, side * side)


def symbols() -> Tensor:
    return torch.randint(0, 20, (COUNT, BATCH, 12))


CASES = [
    (Mlp((64, 32, 10)), mlp, lambda: images(8)),
    (Cnn(), cnn, lambda: images(28)),
    (Gpt(symbols=20, context=16, width=32), gpt, symbols),
]


@pytest.mark.parametrize(("model", "alone", "draw"), CASES, ids=["mlp", "cnn", "gpt"])
def test_a_batch_of_models_is_each_alone(
    model: Model, alone: Alone, draw: Callable[[], Tensor]
) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    singles = [model.initial(generator) for _ in range(COUNT)]
    for tensors in singles:
        for tensor in tensors:  # also where models begin alike
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
            tensor.requires_grad_()
    batched = [torch.stack(same).detach().requires_grad_() for same in zip(*singles, strict=True)]
    inputs = draw()
    logits = model.logits(batched, inputs)
    assert logits.shape[-1] == model.classes
    targets = torch.randint(0, model.classes, logits.shape[:-1])
    F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum").backward()  # type: ignore[no-untyped-call]
    for k, tensors in enumerate(singles):
        own = alone(tensors, inputs[k])
        torch.testing.assert_close(logits[k], own, rtol=1e-4, atol=1e-5)
        F.cross_entropy(own.flatten(0, -2), targets[k].flatten(), reduction="sum").backward()  # type: ignore[no-untyped-call]
        for together, tensor in zip(batched, tensors, strict=True):
            assert together.grad is not None
            assert tensor.grad is not None
            torch.testing.assert_close(together.grad[k], tensor.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", [case[0] for case in CASES], ids=["mlp", "cnn", "gpt"])
def test_initial_parameters_have_the_shapes_and_follow_the_seed(model: Model) -> None:
    drawn = [model.initial(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert [tuple(tensor.shape) for tensor in drawn[0]] == [shape for _, shape in model.shapes]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))


def test_a_transformer_does_not_look_ahead() -> None:
    model = Gpt(symbols=20, context=16, width=32)
    parameters = [t[None] for t in model.initial(torch.Generator().manual_seed(0))]
    inputs = torch.arange(16)[None, None]
    changed = inputs.clone()
    changed[..., 9:] = 3
    logits, others = model.logits(parameters, inputs), model.logits(parameters, changed)
    torch.testing.assert_close(logits[:, :, :9], others[:, :, :9])
    assert not torch.allclose(logits[:, :, 9:], others[:, :, 9:])
