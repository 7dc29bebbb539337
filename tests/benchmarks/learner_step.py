"""What covey costs a training script: ``python tests/benchmarks/learner_step.py``.

An idle ``optimizer.step()`` (nothing due, nothing come) with covey and without, and the copies of
a snapshot and an increment for a model of ``--parameters``.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import covey
from covey.node.home import Home
from covey.node.learner_link import Attachment, LearnerLink
from covey.protocols.link import SettledReport
from covey.tensors import TensorWeights


class Silent:
    """A node that starts a learner and then says no word."""

    async def attached(self, attachment: Attachment) -> None:
        await attachment.start(replace=False)

    async def settle(self, attachment: Attachment) -> None:
        await attachment.settled(SettledReport(None, 0, 0))

    async def snapshot(self, attachment: Attachment, applied: int) -> None: ...
    async def applied(self, attachment: Attachment, sequence: int) -> None: ...
    async def logged(self, attachment: Attachment, values: dict[str, float]) -> None: ...
    async def detached(self, attachment: Attachment, clean: bool) -> None: ...


def microseconds(work: Callable[[], object], repeats: int, rounds: int = 15) -> float:
    """The median over rounds of the mean time of ``work``."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        times.append((time.perf_counter() - begin) / repeats * 1e6)
    return statistics.median(times)


@dataclass(frozen=True)
class IdleStep:
    """Microseconds of an idle ``optimizer.step()``, alone and joined, and of covey's hook in it."""

    without_us: float
    joined_us: float
    hook_us: float


def idle_step(folder: Path) -> IdleStep:
    """A learner of a node that never has anything to say, at home in ``folder``."""
    home = Home.find(folder, os.environ)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    with home.lock({}):
        link = LearnerLink(home.link_socket, home.maps, Silent())
        thread.start()
        asyncio.run_coroutine_threadsafe(link.start(), loop).result()
        measured = _idle_step(folder)
        asyncio.run_coroutine_threadsafe(link.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    loop.close()
    return measured


def _idle_step(home: Path) -> IdleStep:
    model = nn.Linear(10, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model(torch.ones(10)).sum().backward()
    without = microseconds(optimizer.step, 2000)
    with covey.join(model, optimizer, every="1000m", home=home) as swarm:
        joined = microseconds(optimizer.step, 2000)
        only = microseconds(swarm._step, 20_000)
    return IdleStep(without, joined, only)


def copies(parameters: int, dtype: torch.dtype) -> None:
    side = int((parameters / 8) ** 0.5)
    model = nn.Sequential(*(nn.Linear(side, side, dtype=dtype) for _ in range(8)))
    weights = TensorWeights(model)
    vector = np.zeros(weights.layout.size, np.float32)
    other = np.ones_like(vector)
    weights.add(vector)
    out = microseconds(lambda: weights.gather(vector), 1, 7) / 1000
    vector[:] = 0
    back = microseconds(lambda: weights.add(vector), 1, 7) / 1000
    memory = microseconds(lambda: np.copyto(vector, other), 1, 7) / 1000
    size = weights.layout.size / 1e6
    print(
        f"{dtype!s:>15}, {size:.1f} M: snapshot {out:.1f} ms, increment {back:.1f} ms; "
        f"a plain copy of the vector {memory:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What covey costs a training script")
    parser.add_argument("--parameters", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        idle = idle_step(Path(folder))
    print(
        f"optimizer.step() {idle.without_us:.1f} µs, joined {idle.joined_us:.1f} µs; "
        f"the hook {idle.hook_us:.2f} µs"
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        copies(options.parameters, dtype)


if __name__ == "__main__":
    main()
