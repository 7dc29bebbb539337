"""Copies between one tensor and its part of a vector: the pieces they are done in do not show."""

import pytest
import torch

from covey import copies

SHAPES = [(3,), (7, 5), (copies._PIECE,), (copies._PIECE + 1,), (5, copies._PIECE // 2 + 3)]


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", copies.NARROW)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_narrow_tensor_and_its_residual_are_the_vector(
    shape: tuple[int, ...], dtype: torch.dtype, transposed: bool
) -> None:
    """Set, then added to, whatever its layout in memory."""
    wanted, more, part = random(*shape), random(*shape, seed=2), torch.empty(shape)
    tensor, residual = torch.zeros(shape, dtype=dtype), torch.zeros(shape)
    if transposed:
        tensor, residual = tensor.t().contiguous().t(), residual.t().contiguous().t()
    narrow = copies.Narrow()
    narrow.put(tensor, residual, wanted, added=False)
    copies.read(tensor, residual, part)
    assert torch.equal(part, wanted)
    assert torch.equal(tensor, wanted.to(dtype))
    narrow.put(tensor, residual, more, added=True)
    copies.read(tensor, residual, part)
    assert torch.allclose(part, wanted + more, rtol=1e-6, atol=1e-6)
    assert torch.equal(tensor, (residual + tensor.float()).to(dtype))


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_residual_the_tensor_itself_is_read(shape: tuple[int, ...]) -> None:
    tensor, part = random(*shape).bfloat16(), torch.empty(shape)
    copies.read(tensor, None, part)
    assert torch.equal(part, tensor.float())


def test_a_wide_tensor_is_added_to_or_set() -> None:
    tensor = torch.ones(3, dtype=torch.float64)
    copies.put(tensor, torch.full((3,), 0.5), added=True)
    assert tensor.tolist() == [1.5] * 3
    copies.put(tensor, torch.full((3,), 0.5), added=False)
    assert tensor.tolist() == [0.5] * 3


@pytest.mark.parametrize("dtype", [*copies.WIDE, *copies.NARROW])
def test_only_wide_tensors_are_arrays(dtype: torch.dtype) -> None:
    tensor = torch.ones(3, dtype=dtype)
    values = copies.values_of(tensor)
    assert (values is None) == (dtype in copies.NARROW)
    if values is not None:
        values[0] = 7
        assert tensor[0] == 7, "the same memory"
