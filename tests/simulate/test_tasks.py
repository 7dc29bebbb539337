"""Tasks: the data is what it should be, the same every time, and split into train and test."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from covey.simulate.tasks import Windows, load

once = cache(load)  # MNIST's 5 000 images come as text, which takes a while to read


def parameters(name: str) -> int:
    return sum(int(np.prod(shape)) for _, shape in once(name).model.shapes)


@pytest.mark.parametrize(
    ("name", "train", "test", "size"), [("digits", 1348, 449, 64), ("mnist", 4000, 1000, 784)]
)
def test_images_and_labels(name: str, train: int, test: int, size: int) -> None:
    task = once(name)
    for examples, count in ((task.train, train), (task.test, test)):
        numbers = torch.arange(count)
        inputs, targets = examples.take(numbers)
        assert inputs.shape == (count, size)
        assert inputs.dtype == torch.float32
        assert 0 <= inputs.min() < inputs.max() <= 1
        assert set(targets.tolist()) == set(range(10))
        assert np.array_equal(examples.labels, targets.numpy())
    assert len(task.train.labels) == train
    assert len(task.test_numbers) == len(task.test.labels) == test


def test_the_split_into_train_and_test_is_always_the_same() -> None:
    digits, again = load("digits"), load("digits")
    assert np.array_equal(digits.train.labels, again.train.labels)
    inputs, _ = digits.test.take(digits.test_numbers)
    assert torch.equal(inputs, again.test.take(again.test_numbers)[0])


def test_models_are_as_large_as_said() -> None:
    assert parameters("digits") == 9610
    assert parameters("mnist") == 9250
    assert 100_000 < parameters("text") < 120_000


def test_a_text_file_is_windows_of_symbols(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("the quick brown fox\n" * 400)
    task = load(f"text:{file}")
    context = 64
    inputs, targets = task.train.take(torch.tensor([[0, 7], [100, 2]]))
    assert inputs.shape == targets.shape == (2, 2, context)
    assert torch.equal(inputs[..., 1:], targets[..., :-1])
    assert task.model.classes == len(set(file.read_text()))
    last, _ = task.train.take(torch.tensor(len(task.train.labels) - 1))
    assert len(last) == context
    assert int(task.test_numbers.max()) < len(task.test.labels)


def test_the_standard_library_is_text_enough() -> None:
    task = once("text")
    assert len(task.train.labels) > 900_000
    assert task.model.classes <= 128


def test_windows_overlap_but_targets_follow() -> None:
    windows = Windows(torch.arange(50), 4)
    assert len(windows.labels) == 46
    inputs, targets = windows.take(torch.tensor([45]))
    assert inputs.tolist() == [[45, 46, 47, 48]]
    assert targets.tolist() == [[46, 47, 48, 49]]


def test_what_cannot_be_learned_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("too short")
    with pytest.raises(ValueError, match="too short"):
        load(f"text:{short}")
    with pytest.raises(OSError, match="nothing"):
        load(f"text:{tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match="digits, mnist, text"):
        load("chess")
