"""The node's state on disk: safetensors and a small manifest each, the newest few kept.

The manifest is written last and names the tensors' hash, so a checkpoint exists exactly when its
manifest does and the hash holds.  A damaged one is set aside and the one before it is used.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from covey.gossip.replica import Saved
from covey.node.faults import file_faults
from covey.node.home import sync_folder, write_atomically
from covey.protocols.layout import Layout
from covey.protocols.messages import Lineage

log = logging.getLogger(__name__)

_HASH_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state to go on from.  ``time_s`` is in seconds since the epoch."""

    saved: Saved
    lineage: Lineage
    step: int
    time_s: float


class Checkpoints:
    """A folder of checkpoints, of which ``keep`` are kept per layout."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, saved: Saved, layout: Layout, lineage: Lineage, step: int) -> float:
        """Write one, atomically; returns its time.  Raises OperatorError (disk full, read-only)."""
        with file_faults("write a checkpoint to", self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            now = time.time()
            name = f"{layout.digest.hex()[:16]}-{int(now * 1000):014d}"
            tensors = self._folder / f"{name}.safetensors"
            temporary = self._folder / f".{name}.tmp"
            try:
                vectors = {"x": saved.x, "slow": saved.slow, "momentum": saved.momentum}
                save_file(vectors, temporary)
                manifest = {
                    "format": 1,
                    "layout": layout.digest.hex(),
                    "founder": lineage.founder.hex(),
                    "age": lineage.age,
                    "step": step,
                    "time_s": now,
                    "sha256": _hash(temporary),
                }
                temporary.chmod(0o600)
                _sync(temporary)
                temporary.rename(tensors)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self._folder)
            write_atomically(self._folder / f"{name}.json", json.dumps(manifest).encode())
            self._prune(layout)
        return now

    def newest(self, layout: Layout) -> Checkpoint | None:
        """The newest valid one of ``layout``.  A damaged one is renamed and named in the log."""
        for manifest in self._manifests(layout):
            try:
                return _load(manifest, layout)
            except (OSError, ValueError, KeyError, TypeError) as error:
                aside = manifest.with_suffix(".damaged")
                log.warning("checkpoint %s is damaged (%s); using the one before", manifest, error)
                with file_faults("set aside", manifest):
                    manifest.rename(aside)
        return None

    def _manifests(self, layout: Layout) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob(f"{layout.digest.hex()[:16]}-*.json"), reverse=True)

    def _prune(self, layout: Layout) -> None:
        for manifest in self._manifests(layout)[self._keep :]:
            manifest.unlink()
        for tensors in self._folder.glob(f"{layout.digest.hex()[:16]}-*.safetensors"):
            if not tensors.with_suffix(".json").exists():
                tensors.unlink()
                tensors.with_suffix(".damaged").unlink(missing_ok=True)


def _load(manifest: Path, layout: Layout) -> Checkpoint:
    """Raises OSError, ValueError, KeyError or TypeError if anything is not as it was written."""
    plain: dict[str, Any] = json.loads(manifest.read_bytes())
    tensors = manifest.with_suffix(".safetensors")
    if plain["format"] != 1 or plain["layout"] != layout.digest.hex():
        raise ValueError("another format or layout")
    if _hash(tensors) != plain["sha256"]:
        raise ValueError("its hash does not hold")
    vectors = load_file(tensors)
    saved = Saved(vectors["x"], vectors["slow"], vectors["momentum"])
    sizes = [len(saved.x), len(saved.slow), len(saved.momentum)]
    if sizes != [layout.size, layout.parameters, layout.parameters]:
        raise ValueError("its vectors have other sizes")
    if any(vector.dtype != np.float32 for vector in vectors.values()):
        raise ValueError("its vectors are not float32")
    lineage = Lineage(bytes.fromhex(plain["founder"]), int(plain["age"]))
    return Checkpoint(saved, lineage, int(plain["step"]), float(plain["time_s"]))


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            yield chunk


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
