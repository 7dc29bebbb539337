"""Copies of the vector for joiners: a file per copy, named by its hash, fetched in ranges.

A file does not change while a joiner reads it, however long that takes, and training goes on.
"""

import hashlib
import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np

from covey.gossip.quantiser import Floats
from covey.node.faults import file_faults
from covey.protocols.messages import Lineage, StateOffer

_FRESH_S = 5.0  # a copy is offered again for that long
_FRESH_SHARE = 0.25  # … while the model has trained at most so much longer: a young one moves fast
_KEPT = 2  # files, so that a slow joiner can finish the one before


class Handout:
    """Writes, offers and finds copies in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: OrderedDict[bytes, Path] = OrderedDict()
        self._latest: tuple[float, StateOffer] | None = None

    def fresh(self, lineage: Lineage) -> StateOffer | None:
        """The latest offer, if it is young, of the same lineage, and nearly as far trained."""
        if self._latest is None:
            return None
        made_s, offer = self._latest
        young = time.monotonic() - made_s < _FRESH_S
        near = lineage.age - offer.lineage.age <= offer.lineage.age * _FRESH_SHARE
        same = offer.lineage.founder == lineage.founder
        return offer if young and near and same else None

    def write(self, x: Floats, lineage: Lineage, step: int) -> StateOffer:
        """Copy ``x`` to a file; call where x stands still.  Raises OperatorError."""
        data = memoryview(np.ascontiguousarray(x, "<f4").data).cast("B")
        offer = StateOffer(hashlib.sha256(data).digest(), len(data), lineage, step)
        path = self._folder / f"state-{offer.digest.hex()}.f32"
        with file_faults("write a copy of the model to", self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "wb") as file:
                    file.write(data)
                temporary.rename(path)
            finally:
                temporary.unlink(missing_ok=True)
        self._files[offer.digest] = path
        self._files.move_to_end(offer.digest)
        while len(self._files) > _KEPT:
            self._files.popitem(last=False)[1].unlink(missing_ok=True)
        self._latest = (time.monotonic(), offer)
        return offer

    def file(self, digest: bytes) -> Path | None:
        return self._files.get(digest)

    def clear(self) -> None:
        """Remove every copy, and what a killed node left behind."""
        self._latest = None
        self._files.clear()
        for path in self._folder.glob("state-*"):
            with suppress(OSError):  # it is in nobody's way
                path.unlink()
