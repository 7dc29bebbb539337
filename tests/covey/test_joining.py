"""The torch door: one line in a training script."""

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import covey
from tests.covey.conftest import PATIENCE_S, Host, Place


class Task:
    """A small regression, as a user writes it."""

    def __init__(self, seed: int = 1) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.x = torch.randn(32, 3)
        self.y = self.x.sum(1, keepdim=True)

    def loss(self) -> Tensor:
        return nn.functional.mse_loss(self.model(self.x), self.y)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def vector(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        norm = self.model[1]
        assert isinstance(norm, nn.BatchNorm1d)
        buffers = [norm.running_mean, norm.running_var]
        tensors = [*self.model.parameters(), *(b for b in buffers if b is not None)]
        return torch.cat([tensor.detach().ravel() for tensor in tensors]).numpy()


def train(task: Task, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        task.step()
        assert time.monotonic() < deadline


def test_one_line_joins(place: Place) -> None:
    node = place.start()
    task = Task()
    before = task.vector()
    swarm = covey.join(task.model, task.optimizer, every=5, name="task")
    assert np.array_equal(task.vector(), before)
    assert np.array_equal(node.host.snapshots[0], before)
    assert node.attachment.name == "task"
    for _ in range(5):
        task.step()
    node.until(lambda host: len(host.snapshots) == 2)
    assert swarm.steps == 5
    assert np.array_equal(node.host.snapshots[1], task.vector())
    swarm.leave()
    task.step()
    assert swarm.steps == 5


def test_the_swarms_weights_are_there_when_join_returns(place: Place) -> None:
    place.start(Host(swarm=Task(seed=2).vector()))
    task = Task(seed=1)
    with covey.join(task.model, task.optimizer):
        assert np.array_equal(task.vector(), Task(seed=2).vector())


def test_increments_are_added_between_two_steps(place: Place) -> None:
    node = place.start()
    task = Task()
    with covey.join(task.model, task.optimizer, every=10**6) as swarm:
        node.publish(100.0)
        train(task, lambda: task.vector().min() > 50)
        node.until(lambda host: "applied 1" in host.calls)
        assert swarm.attached


def test_only_what_is_shared_moves(place: Place) -> None:
    node = place.start()
    task = Task()
    with covey.join(task.model, task.optimizer, share="0.*"):
        assert [tensor.name for tensor in node.attachment.layout.tensors] == ["0.weight", "0.bias"]


def test_leaving_applies_the_last_increment(place: Place) -> None:
    task = Task()
    place.start(Host(correction=np.full(task.vector().size, 0.5, np.float32)))
    with covey.join(task.model, task.optimizer) as swarm:
        task.step()
        before = task.vector()
    assert task.vector() == pytest.approx(before + 0.5, abs=1e-6)
    report = swarm.leave()
    assert report is not None
    assert report.peers == 2


def test_several_optimizers_count_by_the_first(place: Place) -> None:
    place.start()
    task = Task()
    second = torch.optim.SGD(task.model.parameters(), lr=0.0)
    with covey.join(task.model, [task.optimizer, second]) as swarm:
        task.step()
        second.step()
        assert swarm.steps == 1


def test_closures_and_skipped_steps(place: Place) -> None:
    """LBFGS evaluates its closure many times per step; a gradient scaler leaves steps out."""
    place.start()
    task = Task()
    optimizer = torch.optim.LBFGS(task.model.parameters(), max_iter=4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with covey.join(task.model, [optimizer, task.optimizer]) as swarm:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        assert swarm.steps == 1

    scaler = torch.amp.GradScaler("cpu")
    with covey.join(task.model, task.optimizer) as swarm:
        for factor in (1.0, torch.inf):
            task.optimizer.zero_grad()
            scaler.scale(task.loss() * factor).backward()  # type: ignore[no-untyped-call]
            scaler.step(task.optimizer)
            scaler.update()
        assert swarm.steps == 1


def test_the_model_can_be_saved_and_scheduled_as_ever(place: Place) -> None:
    place.start()
    task = Task()
    schedule = torch.optim.lr_scheduler.StepLR(task.optimizer, 1)
    with covey.join(task.model, task.optimizer) as swarm:
        task.step()
        schedule.step()
        saved = io.BytesIO()
        torch.save([task.model.state_dict(), task.optimizer.state_dict()], saved)
        assert swarm.steps == 1


def test_log_takes_tensors(place: Place) -> None:
    node = place.start()
    task = Task()
    with covey.join(task.model, task.optimizer) as swarm:
        loss = task.loss()
        swarm.log(loss=loss)
        node.until(lambda host: host.logs)
    assert node.host.logs[0]["loss"] == pytest.approx(loss.item())


def test_the_network_changes_no_number_until_an_increment_comes(place: Place) -> None:
    """Same seed, same losses to the bit, with covey and without."""
    place.start()
    alone, together = Task(), Task()
    with covey.join(together.model, together.optimizer, every=1):
        for _ in range(20):
            alone.step()
            together.step()
            assert alone.loss().item() == together.loss().item()


@pytest.mark.parametrize("optimizer", [None, [], "adam", [object()]])
def test_no_optimizer(optimizer: object) -> None:
    with pytest.raises(TypeError, match="torch optimizer"):
        covey.join(Task().model, optimizer)  # type: ignore[arg-type]


def test_one_of_several_processes_needs_the_wrapped_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    with pytest.raises(covey.ShareError, match="give it the wrapped model"):
        covey.join(Task().model, Task().optimizer)


def test_bad_arguments_say_so_before_a_node_is_looked_for() -> None:
    task = Task()
    with pytest.raises(ValueError, match="every=0"):
        covey.join(task.model, task.optimizer, every=0)
    with pytest.raises(covey.ShareError, match=r"near it: 3\.weight") as caught:
        covey.join(task.model, task.optimizer, share="3.wieght")
    assert [entry.name for entry in caught.traceback] == [
        "test_bad_arguments_say_so_before_a_node_is_looked_for",
        "join",
    ]
