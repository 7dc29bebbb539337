"""Checkpoints come back to the bit, or not at all: kept, pruned, torn, damaged, and no room."""

import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from covey.gossip.replica import Saved
from covey.node.checkpoints import Checkpoint, Checkpoints
from covey.node.faults import OperatorError
from covey.protocols.layout import Kind, Layout, Tensor
from covey.protocols.messages import Lineage

LAYOUT = Layout.of([Tensor("w", (30, 7)), Tensor("mean", (5,), kind=Kind.BUFFER)])
OTHER = Layout.of([Tensor("w", (4,))])
LINEAGE = Lineage(b"f" * 32, 7)


def saved(seed: int, layout: Layout = LAYOUT) -> Saved:
    rng = np.random.default_rng(seed)

    def vector(size: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return rng.standard_normal(size).astype(np.float32)

    return Saved(vector(layout.size), vector(layout.parameters), vector(layout.parameters))


def same(a: Saved, b: Saved) -> bool:
    pairs = ((a.x, b.x), (a.slow, b.slow), (a.momentum, b.momentum))
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=3)


def newest(store: Checkpoints, layout: Layout = LAYOUT) -> Checkpoint:
    found = store.newest(layout)
    assert found is not None
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in (folder / "checkpoints").iterdir())


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 500 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_it_comes_back_to_the_bit(store: Checkpoints) -> None:
    state = saved(1)
    time_s = store.save(state, LAYOUT, LINEAGE, 41)
    found = newest(store)
    assert same(found.saved, state)
    assert (found.lineage, found.step, found.time_s) == (LINEAGE, 41, time_s)


def test_the_file_is_a_safetensors_file(store: Checkpoints, tmp_path: Path) -> None:
    state = saved(2)
    store.save(state, LAYOUT, LINEAGE, 1)
    (path,) = (tmp_path / "checkpoints").glob("*.safetensors")
    vectors = load_file(path)
    assert same(Saved(**vectors), state)
    manifest = json.loads(path.with_suffix(".json").read_bytes())
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_model_of_buffers_alone(store: Checkpoints) -> None:
    layout = Layout.of([Tensor("mean", (5,), kind=Kind.BUFFER)])
    state = saved(3, layout)
    store.save(state, layout, LINEAGE, 1)
    assert same(newest(store, layout).saved, state)


def test_nothing_is_found_where_nothing_is(store: Checkpoints) -> None:
    assert store.newest(LAYOUT) is None
    store.save(saved(1, OTHER), OTHER, LINEAGE, 1)
    assert store.newest(LAYOUT) is None


def test_the_newest_few_are_kept_of_each_layout(store: Checkpoints, tmp_path: Path) -> None:
    for step in range(5):
        store.save(saved(step), LAYOUT, LINEAGE, step)
    store.save(saved(9, OTHER), OTHER, LINEAGE, 9)
    assert files(tmp_path) == [".json"] * 4 + [".safetensors"] * 4
    assert newest(store).step == 4
    assert newest(store, OTHER).step == 9


def test_the_last_is_the_newest_when_the_clock_was_set_back(
    store: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([5000.0, 5000.0, 1000.0, 20.0, 10.0, 9.0])
    monkeypatch.setattr(time, "time", lambda: next(times))
    for step in range(6):
        store.save(saved(step), LAYOUT, LINEAGE, step)
        assert newest(store).step == step


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [_flip, _cut, _grow, _empty, _remove])
def test_a_damaged_one_gives_way_to_the_one_before(
    store: Checkpoints,
    tmp_path: Path,
    harm: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.save(saved(1), LAYOUT, LINEAGE, 1)
    store.save(saved(2), LAYOUT, LINEAGE, 2)
    harm(sorted((tmp_path / "checkpoints").glob("*.safetensors"))[-1])
    assert newest(store).step == 1
    (warning,) = caplog.messages
    assert "is damaged" in warning
    assert newest(store).step == 1  # set aside: named once
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"layout": "00" * 32},
        {"sha256": "00" * 32},
        {"founder": "zz"},
        {"founder": "00"},
        {"founder": 7},
        {"age": -1},
        {"age": float("inf")},
        {"age": None},
        {"step": "many"},
        {"time_s": []},
    ],
)
def test_a_damaged_manifest(store: Checkpoints, tmp_path: Path, change: dict[str, object]) -> None:
    store.save(saved(1), LAYOUT, LINEAGE, 1)
    (path,) = (tmp_path / "checkpoints").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    assert store.newest(LAYOUT) is None
    assert files(tmp_path) == [".damaged", ".safetensors"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"x"', "[" * 100_000, "{}", "\0"])
def test_a_manifest_that_is_none(store: Checkpoints, tmp_path: Path, text: str) -> None:
    store.save(saved(1), LAYOUT, LINEAGE, 1)
    (path,) = (tmp_path / "checkpoints").glob("*.json")
    path.write_text(text)
    assert store.newest(LAYOUT) is None


def test_any_cut_of_a_manifest_is_noticed(store: Checkpoints, tmp_path: Path) -> None:
    store.save(saved(1), LAYOUT, LINEAGE, 1)
    (path,) = (tmp_path / "checkpoints").glob("*.json")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.newest(LAYOUT) is None
        path.with_suffix(".damaged").rename(path)
    path.write_bytes(whole)
    assert newest(store).step == 1


def test_values_that_are_not_finite_do_not_come_back(store: Checkpoints) -> None:
    store.save(saved(1), LAYOUT, LINEAGE, 1)
    broken = saved(2)
    broken.momentum[3] = np.nan
    store.save(broken, LAYOUT, LINEAGE, 2)
    assert newest(store).step == 1


def test_vectors_of_other_sizes_do_not_come_back(store: Checkpoints, tmp_path: Path) -> None:
    state = saved(1)
    store.save(Saved(state.x[:-1], state.slow, state.momentum), LAYOUT, LINEAGE, 1)
    assert store.newest(LAYOUT) is None


def test_what_a_killed_node_left_half_written_is_removed(
    store: Checkpoints, tmp_path: Path
) -> None:
    store.save(saved(1), LAYOUT, LINEAGE, 1)
    folder = tmp_path / "checkpoints"
    (first,) = folder.glob("*.json")
    (folder / f".{first.stem[:-1]}0.tmp").write_bytes(b"half")  # killed while it wrote the tensors
    (folder / f".{first.name}.0123.tmp").write_bytes(b"half")  # … the manifest
    stem = f"{first.stem[:17]}{0:014d}"
    (folder / f"{stem}.safetensors").write_bytes(b"whole")  # … before the manifest
    (folder / f"{stem[:-1]}1.damaged").write_bytes(b"set aside")
    assert newest(store).step == 1
    store.save(saved(2), LAYOUT, LINEAGE, 2)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json"] * 2 + [".safetensors"] * 2


def test_a_full_disk_is_the_operators_and_costs_nothing_kept(
    store: Checkpoints, tmp_path: Path
) -> None:
    state = saved(1)
    store.save(state, LAYOUT, LINEAGE, 1)
    with full_disk(), pytest.raises(OperatorError, match="cannot write a checkpoint"):
        store.save(saved(2), LAYOUT, LINEAGE, 2)
    assert files(tmp_path) == [".json", ".safetensors"]
    assert same(newest(store).saved, state)
    store.save(saved(3), LAYOUT, LINEAGE, 3)  # and goes on when there is room again
    assert newest(store).step == 3


def test_a_folder_that_cannot_be_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OperatorError, match="cannot write a checkpoint"):
        Checkpoints(tmp_path / "file" / "checkpoints", 3).save(saved(1), LAYOUT, LINEAGE, 1)


def test_a_damaged_one_that_cannot_be_set_aside(
    store: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(saved(1), LAYOUT, LINEAGE, 1)
    store.save(saved(2), LAYOUT, LINEAGE, 2)
    _flip(sorted((tmp_path / "checkpoints").glob("*.safetensors"))[-1])

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(Path, "rename", refuse)
    assert newest(store).step == 1
