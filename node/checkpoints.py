"""The node's state on disk: safetensors and a small manifest each, the newest few kept.

The manifest is written last and names the tensors' hash, so a checkpoint exists exactly when its
manifest does and the hash holds.  A damaged one is set aside and the one before it is used.
"""

import hashlib
import json
import logging
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from covey.gossip import mixing
from covey.gossip.quantiser import Floats
from covey.gossip.replica import Saved
from covey.node.faults import file_faults
from covey.node.home import sync_folder, write_atomically
from covey.protocols.layout import Layout
from covey.protocols.messages import Lineage

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError),
    SafetensorError,
)


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
            name = self._next_name(layout, now)
            temporary = self._folder / f".{name}.tmp"
            vectors = {"x": saved.x, "slow": saved.slow, "momentum": saved.momentum}
            try:
                manifest = {
                    "format": 1,
                    "layout": layout.digest.hex(),
                    "founder": lineage.founder.hex(),
                    "age": lineage.age,
                    "step": step,
                    "time_s": now,
                    "sha256": _write(temporary, vectors),
                }
                temporary.rename(self._folder / f"{name}.safetensors")
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
            except _DAMAGE as error:
                log.warning("checkpoint %s is damaged (%s); using the one before", manifest, error)
                with suppress(OSError):  # on a read-only disk it is met again next time
                    manifest.rename(manifest.with_suffix(".damaged"))
        return None

    def _manifests(self, layout: Layout) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob(f"{layout.digest.hex()[:16]}-*.json"), reverse=True)

    def _next_name(self, layout: Layout, now: float) -> str:
        """After all others in order, also when the clock was set back."""
        stamp = int(now * 1000)
        for newest in self._manifests(layout)[:1]:
            with suppress(ValueError):
                stamp = max(stamp, int(newest.stem.rpartition("-")[2]) + 1)
        return f"{layout.digest.hex()[:16]}-{stamp:014d}"

    def _prune(self, layout: Layout) -> None:
        """Remove the oldest, what was set aside, and what a killed node left half written."""
        for manifest in self._manifests(layout)[self._keep :]:
            manifest.unlink()
        for leftover in self._folder.glob(".*.tmp"):
            leftover.unlink()
        for path in self._folder.glob(f"{layout.digest.hex()[:16]}-*"):
            if not path.with_suffix(".json").exists():
                path.unlink()


def _load(manifest: Path, layout: Layout) -> Checkpoint:
    """Raises one of _DAMAGE if anything is not as it was written."""
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
    if not all(map(mixing.finite, vectors.values())):
        raise ValueError("its vectors are not finite")
    lineage = Lineage(bytes.fromhex(plain["founder"]), int(plain["age"]))
    return Checkpoint(saved, lineage, int(plain["step"]), float(plain["time_s"]))


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _write(path: Path, vectors: Mapping[str, Floats]) -> str:
    """Write a safetensors file to the disk itself; returns its SHA-256 in hex.

    By hand, for the library hides a full disk in an exception of its own and leaves files behind
    when it is killed.  The format is a length, a JSON header and the tensors.
    """
    header, end = {}, 0
    for name, vector in vectors.items():
        start, end = end, end + 4 * len(vector)
        header[name] = {"dtype": "F32", "shape": [len(vector)], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors
    parts: list[bytes | memoryview] = [struct.pack("<Q", len(text)), text]
    parts += [np.ascontiguousarray(v, "<f4").view(np.uint8).data for v in vectors.values()]
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        for part in parts:
            for start in range(0, len(part), _CHUNK):
                digest.update(part[start : start + _CHUNK])
                file.write(part[start : start + _CHUNK])
        file.flush()
        os.fsync(descriptor)
    return digest.hexdigest()
