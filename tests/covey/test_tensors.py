"""That copies of a torch model in and out are exact, and take no further memory."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from covey.tensors import TensorWeights


class Net(nn.Module):
    """Tied, frozen, buffers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.full((2, 2), -torch.inf))
        self.register_buffer("derived", torch.ones(4), persistent=False)


def vector_of(weights: TensorWeights) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    vector = np.empty(weights.layout.size, np.float32)
    weights.gather(vector)
    return vector


def test_float32_goes_in_and_out_to_the_bit() -> None:
    torch.manual_seed(1)
    model = Net()
    weights = TensorWeights(model)
    before = vector_of(weights)
    assert np.array_equal(before[:21], model.embed.weight.detach().numpy().ravel())
    wanted = np.random.default_rng(1).normal(size=weights.layout.size).astype(np.float32)
    weights.set(wanted)
    assert np.array_equal(vector_of(weights), wanted)
    increment = np.full(weights.layout.size, 0.125, np.float32)
    weights.add(increment)
    assert np.array_equal(vector_of(weights), wanted + increment)
    assert model.embed.weight.requires_grad
    assert model.embed.weight.is_leaf


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_tensors_keep_what_rounding_takes(dtype: torch.dtype) -> None:
    """1000 increments far below half a unit in the last place arrive as in a float32 model."""
    model = nn.Linear(8, 8, dtype=dtype)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    weights = TensorWeights(model)
    tiny = np.full(weights.layout.size, 1e-4, np.float32)
    wide = np.ones(weights.layout.size, np.float32)
    for _ in range(1000):
        weights.add(tiny)
        wide += tiny
    assert vector_of(weights) == pytest.approx(wide, abs=1e-6)
    assert model.weight.detach().float().numpy() == pytest.approx(1.1, abs=0.004)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_model_can_be_any_vector_to_the_bit(dtype: torch.dtype) -> None:
    weights = TensorWeights(nn.Linear(64, 64, dtype=dtype))
    random = np.random.default_rng(2)
    wanted = random.normal(size=weights.layout.size) * 10.0 ** random.integers(
        -4, 3, weights.layout.size
    )
    weights.set(wanted.astype(np.float32))
    assert np.array_equal(vector_of(weights), wanted.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_device_goes_through_one_lasting_vector(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """CUDA's path, on the CPU taken for foreign."""
    monkeypatch.setattr("covey.tensors._HOST", "elsewhere")
    weights = TensorWeights(nn.Sequential(nn.Linear(5, 4, dtype=dtype), nn.BatchNorm1d(4)))
    wanted = np.random.default_rng(3).normal(size=weights.layout.size).astype(np.float32)
    weights.set(wanted)
    assert np.array_equal(vector_of(weights), wanted)
    (crossing,) = weights._crossings.values()
    weights.add(wanted)
    assert vector_of(weights) == pytest.approx(2 * wanted, rel=1e-6)
    assert list(weights._crossings.values()) == [crossing]
    assert len(crossing.here) == len(crossing.there) == weights.layout.size


@pytest.mark.parametrize(
    ("dtype", "host"),
    [
        (torch.float32, "cpu"),
        (torch.float64, "cpu"),
        (torch.bfloat16, "cpu"),
        (torch.float16, "cpu"),
        (torch.float32, "elsewhere"),  # of a foreign device there is only this, on the CPU
    ],
)
def test_nothing_is_allocated_after_the_first(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, host: str
) -> None:
    """By Python's count and by torch's own; the model is 2.9 MB, a piece in the cache 128 kB."""
    monkeypatch.setattr("covey.tensors._HOST", host)
    weights = TensorWeights(nn.Sequential(*(nn.Linear(300, 300, dtype=dtype) for _ in range(8))))
    vector = np.zeros(weights.layout.size, np.float32)

    def all_three() -> None:
        weights.gather(vector)
        weights.add(vector)
        weights.set(vector)

    all_three()
    tracemalloc.start()
    all_three()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as taken:
        all_three()
    names = [event.key for event in taken.key_averages() if event.self_cpu_memory_usage]
    assert names == []


def test_training_steps_count_beside_the_residual() -> None:
    model = nn.Linear(4, 4, dtype=torch.bfloat16)
    weights = TensorWeights(model)
    weights.set(np.full(weights.layout.size, 0.1, np.float32))
    before = vector_of(weights)
    with torch.no_grad():
        model.weight.add_(0.5)
        model.bias.add_(0.5)
    moved = model.weight.detach().float()[0, 0] - torch.tensor(0.1).bfloat16().float()
    assert vector_of(weights) - before == pytest.approx(float(moved), abs=1e-6)


def test_float16_stays_finite() -> None:
    model = nn.Linear(2, 2, dtype=torch.float16)
    weights = TensorWeights(model)
    weights.set(np.full(weights.layout.size, 70_000, np.float32))
    assert torch.isfinite(model.weight).all()
    assert vector_of(weights).tolist() == [70_000] * weights.layout.size


def test_float64_and_other_memory_formats() -> None:
    conv = nn.Conv2d(3, 4, 2)
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(4, 2, dtype=torch.float64))
    weights = TensorWeights(model)
    wanted = np.arange(weights.layout.size, dtype=np.float32)
    weights.set(wanted)
    assert np.array_equal(conv.weight.detach().numpy().ravel(), wanted[: conv.weight.numel()])
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(vector_of(weights), wanted)
    weights.add(wanted)
    assert np.array_equal(vector_of(weights), 2 * wanted)


def test_replaced_tensors_are_found_again() -> None:
    model = Net()
    weights = TensorWeights(model)
    model.norm.running_mean = torch.full((3,), 5.0)
    model.embed.weight = model.head.weight = nn.Parameter(torch.full((7, 3), 6.0))
    vector = vector_of(weights)
    assert vector[:21].tolist() == [6.0] * 21
    assert vector[27:30].tolist() == [5.0] * 3
