"""One of two processes that train a model under DistributedDataParallel, for test_ranks.py.

    rank.py RANK FOLDER

Tries to join until it can, and trains until FOLDER/enough is there.  Writes why it was refused, its
vector as it joined, and as it left.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import covey
from covey.tensors import TensorWeights


def write(model: nn.Module, path: Path) -> None:
    weights = TensorWeights(model)
    vector = np.empty(weights.layout.size, np.float32)
    weights.gather(vector)
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, vector)
    temporary.rename(path)


def agreed(here: bool) -> bool:
    """Whether it is so in any of the processes: all must do the same number of steps."""
    flag = torch.tensor(float(here))
    distributed.all_reduce(flag)
    return bool(flag > 0)


def join(model: nn.Module, optimizer: torch.optim.Optimizer, refused: Path) -> covey.Swarm:
    while True:
        try:
            return covey.join(model, optimizer, every=2)
        except covey.NodeError as error:
            refused.write_text(str(error))
            distributed.barrier()


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder / 'meet'}"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    torch.manual_seed(rank)  # other initial weights, which the wrapper makes equal, and other data
    inner = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    model = DistributedDataParallel(inner)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x = torch.randn(16, 3)
    with join(model, optimizer, folder / f"refused-{rank}") as swarm:
        assert swarm.attached
        write(model, folder / f"joined-{rank}.npy")
        while not agreed((folder / "enough").exists()):
            optimizer.zero_grad()
            loss: Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            swarm.log(loss=loss)
    assert swarm.steps > 0
    write(model, folder / f"left-{rank}.npy")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
