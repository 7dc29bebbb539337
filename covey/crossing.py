"""Vectors between a device and host memory: pinned, on a stream of their own, and never waited for
by the whole device.

Written for CUDA by its documentation and read by nobody but people so far: no GPU was at hand, the
tests take the CPU for a foreign device, where copies are done when the call returns.
"""

from typing import Any

import torch


class Crossing:
    """``there``: float32 (size,) on the device; ``here``: the same on the host, pinned for CUDA.

    Either crosses to the other; both are kept, so that nothing is allocated later.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._device = device
        self.there = torch.empty(size, dtype=torch.float32, device=device)
        self.here = torch.empty(size, dtype=torch.float32, pin_memory=cuda)
        self._side: Any = None  # the stream; torch leaves these three without types
        self._crossed: Any = None  # event: the last copy is done
        self._free: Any = None  # event: ``there`` has been read
        if cuda:
            self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._crossed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._free = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def fetch(self) -> None:
        """``here`` becomes what ``there`` is after all that the device has been told so far."""
        if self._side is None:
            self.here.copy_(self.there)
            return
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            self.here.copy_(self.there, non_blocking=True)
            self._crossed.record()

    def done(self, wait: bool) -> bool:
        """Whether the last copy is done, so that ``here`` may be read and written."""
        if self._side is None:
            return True
        if wait:
            self._crossed.synchronize()
        return bool(self._crossed.query())

    def bring(self) -> None:
        """``there`` becomes what ``here`` is, before anything that the device is told next."""
        if self._side is None:
            self.there.copy_(self.here)
            return
        with torch.cuda.stream(self._side):
            self._side.wait_event(self._free)  # else it would wait for the training step too
            self.there.copy_(self.here, non_blocking=True)
            self._crossed.record()
        torch.cuda.current_stream(self._device).wait_event(self._crossed)

    def used(self) -> None:
        """The device has been told all that reads ``there`` as it was brought."""
        if self._side is not None:
            self._free.record(torch.cuda.current_stream(self._device))
