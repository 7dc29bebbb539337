"""The digits example: the split, and a node of its own; `covey demo` also runs it alone."""

import importlib.util

import pytest
import torch

from tests.examples.conftest import EXAMPLES, Run


def test_with_a_node(run: Run) -> None:
    lines = run("digits", "--steps", "200", "--pace", "0")
    assert lines[0].startswith("step    50  loss ")
    assert float(lines[-1].removeprefix("accuracy ")) > 0.8


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_the_shards_are_a_division_of_the_training_images(shards: int) -> None:
    spec = importlib.util.spec_from_file_location("digits", EXAMPLES / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    digits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(digits)
    parts = [digits.load(shard, shards, 0.2, seed=4) for shard in range(shards)]
    assert sum(len(y) for _, y, _, _ in parts) == 1347
    assert min(len(y) for _, y, _, _ in parts) >= 32
    for _, _, test_x, test_y in parts:
        assert torch.equal(test_x, parts[0][2])
        assert torch.equal(test_y, parts[0][3])
    seen = {tuple(image.tolist()) for x, _, _, _ in parts for image in x}
    assert not seen & {tuple(image.tolist()) for image in parts[0][2]}
