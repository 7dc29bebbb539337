"""Which tensors of a torch model are shared, and that wrappers do not change their names."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel

from covey.choice import chosen, parallel
from covey.errors import ShareError
from covey.protocols.layout import Kind
from covey.tensors import TensorWeights
from tests.covey.conftest import LOOPBACK


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


def names(model: nn.Module, share: str | Sequence[str] | None = None) -> list[str]:
    return [shared.name for shared in chosen(model, share)]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.distributed with this process only."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", LOOPBACK)  # whatever this machine's name resolves to
    meet = f"file://{tmp_path / 'meet'}"
    distributed.init_process_group("gloo", init_method=meet, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    wrapper = torch.compile(model, backend="eager")
    assert isinstance(wrapper, nn.Module)
    return wrapper


def test_the_default_choice() -> None:
    layout = TensorWeights(Net()).layout
    assert [(tensor.name, tensor.kind) for tensor in layout.tensors] == [
        ("embed.weight", Kind.PARAMETER),
        ("norm.weight", Kind.PARAMETER),
        ("norm.bias", Kind.PARAMETER),
        ("norm.running_mean", Kind.BUFFER),
        ("norm.running_var", Kind.BUFFER),
    ]
    assert layout.tensors[0].shape == (7, 3)
    assert layout.parameters == 27


@pytest.mark.parametrize(
    ("share", "chosen"),
    [
        ("norm.weight", ["norm.weight"]),
        (["norm.*"], ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]),
        (["*.weight", "derived"], ["embed.weight", "norm.weight", "derived"]),
        (["!norm.*", "!mask", "!derived"], ["embed.weight"]),
        (["norm.*", "!*.running_*"], ["norm.weight", "norm.bias"]),
        ("head.weight", ["head.weight"]),  # the other name of a tied tensor
    ],
)
def test_patterns(share: str | list[str], chosen: list[str]) -> None:
    assert names(Net(), share) == chosen


@pytest.mark.parametrize(
    ("share", "why"),
    [
        ("norm.wieght", "matches no tensor; near it: norm.weight"),
        ("!body.*", "'body.*' matches no tensor"),
        ("frozen.*", "matches only frozen tensors"),
        ("norm.running_*", "no parameter that trains"),
        (["norm.*", "mask"], "mask has values that are not finite"),
    ],
)
def test_a_pattern_that_cannot_be_is_explained(share: str | list[str], why: str) -> None:
    with pytest.raises(ShareError) as raised:
        TensorWeights(Net(), share)
    assert why in str(raised.value)


def test_models_that_cannot_be_shared() -> None:
    with pytest.raises(ShareError, match="no parameter that trains"):
        TensorWeights(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(ShareError, match="meta device"):
        TensorWeights(nn.Linear(2, 2, device="meta"))
    with pytest.raises(ShareError, match="complex64"):
        TensorWeights(nn.Linear(2, 2, dtype=torch.complex64))
    lazy = nn.LazyLinear(2)
    with pytest.raises(ShareError, match="run one batch"):
        TensorWeights(lazy)
    model = nn.Linear(2, 2)
    model.weight.data[0, 0] = torch.nan
    with pytest.raises(ShareError, match="weight has values that are not finite"):
        TensorWeights(model)


def test_names_are_the_same_inside_wrappers(alone: None) -> None:
    plain, model = Net(), Net()
    assert parallel(plain) is None
    for wrapped in (
        DataParallel(model),
        compiled(model),
        DistributedDataParallel(model),
        compiled(DistributedDataParallel(compiled(model))),
    ):
        assert TensorWeights(wrapped).layout.digest == TensorWeights(plain).layout.digest
        assert names(wrapped, "norm.*") == names(plain, "norm.*")
        with pytest.raises(ShareError, match="matches only frozen tensors"):
            names(wrapped, "frozen.weight")
    found = parallel(compiled(DistributedDataParallel(model)))
    assert isinstance(found, DistributedDataParallel)


def test_names_are_the_same_around_wrapped_parts(alone: None) -> None:
    """Compiled block by block, as large models are."""
    plain, model = nn.Sequential(Net(), Net()), nn.Sequential(Net(), Net())
    model[0] = compiled(model[0])
    model[1].head = DistributedDataParallel(model[1].head)
    model.module = nn.Linear(2, 2)  # the same word, and no wrapper
    plain.module = nn.Linear(2, 2)
    assert names(model) == names(plain)
    assert TensorWeights(model).layout.digest == TensorWeights(plain).layout.digest


def test_sharded_models_are_refused(alone: None) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    fully_shard(model[0])
    with pytest.raises(ShareError, match="sharded over several processes"):
        chosen(model)


def test_a_view_of_the_same_memory_is_one_tensor() -> None:
    model = nn.Module()
    model.first = nn.Linear(3, 4, bias=False)
    model.second = nn.Linear(4, 3, bias=False)
    model.second.weight = nn.Parameter(model.first.weight.detach().t())  # shares its memory
    assert names(model) == ["first.weight"]
