"""A training script that nobody wrote for covey learns in a swarm by one import and one line."""

import contextlib
import difflib
import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.swarm.flock import Flock, Node
from tests.waiting import until

pytestmark = pytest.mark.swarm

SCRIPT = Path(__file__).parent / "data" / "train_nanogpt_like.py"
# The second half hardly moves: two that end at different moments still end alike.
SCHEDULE = ("--max_iters=160", "--lr_decay_iters=80", "--min_lr=1e-5")
ADDED = {
    "import torch\n": "import covey\n",
    "optimizer = model.configure_optimizers()\n": 'covey.join(model, optimizer, every="100ms")\n',
}


def patched() -> str:
    """The script with both lines, each after the one that it follows."""
    before = SCRIPT.read_text()
    after = before
    for line, added in ADDED.items():
        assert after.count("\n" + line) == 1
        after = after.replace("\n" + line, "\n" + line + added)
    changes = [line for line in difflib.ndiff(before.splitlines(), after.splitlines())]
    assert [line[2:] + "\n" for line in changes if line[0] != " "] == list(ADDED.values())
    return after


def model(node: Node) -> NDArray[np.float32]:
    """The vector that a node has kept as its learner ended."""
    newest = max(node.home.checkpoints.glob("*.safetensors"))
    vector: NDArray[np.float32] = load_file(newest)["x"]
    return vector


def founder(node: Node) -> str:
    """Of the model that a node has kept."""
    newest = max(node.home.checkpoints.glob("*.json"))
    return str(json.loads(newest.read_text())["founder"])


def feed(pipes: list[Path], text: bytes) -> None:
    """Give all readers the text once all are there: a slow import does not cost them the others."""

    def opened(pipe: Path) -> int | None:
        with contextlib.suppress(OSError):  # nobody reads yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return None

    writers = [until(f"{pipe} is read", functools.partial(opened, pipe)) for pipe in pipes]
    for writer in writers:
        assert os.write(writer, text) == len(text)
        os.close(writer)


def test_two_lines_make_two_scripts_learn_as_one(flock: Flock) -> None:
    script = flock.folder / "train.py"
    script.write_text(patched())
    nodes, texts = [], []
    for seed, name in enumerate(("ada", "bob")):
        out, text = flock.folder / f"{name}.out", flock.folder / f"{name}.txt"
        os.mkfifo(text)
        texts.append(text)
        own = (f"--seed={seed}", f"--out_dir={out}", f"--data_file={text}")
        nodes.append(flock.script(name, script, *own, *SCHEDULE))
    feed(texts, SCRIPT.read_bytes())
    assert [node.wait() for node in nodes] == [0, 0]
    for node, other in zip(nodes, reversed(nodes), strict=True):
        node.says(f"learning with {other.name} ({other.short})")
    founders = {founder(node) for node in nodes}
    assert len(founders) == 1, "they train one model"
    losses = [
        [float(s.split()[-1]) for s in node.words.splitlines() if s.startswith("step ")]
        for node in nodes
    ]
    assert max(first for first, *_ in losses) > 4, "near the logarithm of 80 characters"
    assert all(last < 3.3 for *_, last in losses), "they have learned"
    one, two = map(model, nodes)
    apart = np.linalg.norm(one - two) / np.linalg.norm(one)
    assert apart < 0.1, "two that never spoke are 1.4 apart"
