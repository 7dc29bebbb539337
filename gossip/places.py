"""Where a vector lies: copying it costs more than what is computed with it."""

import numpy as np

from covey.gossip.quantiser import Floats

_PAGE = 4096
_LARGE = 1 << 16  # elements; smaller vectors stay in the caches


def zeros(size: int, place: int = 0) -> Floats:
    """A vector of zeros that begins so many kilobytes behind the border of a page.

    Loads that cross a cache line, and loads that follow stores a whole number of pages away, took a
    sixth of an outer step's time: vectors that are worked on together begin at different places.
    """
    if size < _LARGE:
        return np.zeros(size, np.float32)
    skipped = 1024 * place
    memory = np.zeros(4 * size + skipped + _PAGE, np.uint8)
    first = -memory.ctypes.data % _PAGE + skipped
    vector: Floats = memory[first : first + 4 * size].view(np.float32)
    return vector


class Places:
    """Memory of a float32 vector of ``size``, which is at one of several places.

    ``home`` is always there; its own ``room`` once it was needed; or it is where it was lent.
    """

    def __init__(self, size: int) -> None:
        self.home: Floats = zeros(size, 1)
        self._room: Floats | None = None
        self.go(self.home)

    def go(self, place: Floats) -> None:
        """The vector is ``place`` from here on."""
        self.x, self.view = place, place.view()
        self.view.flags.writeable = False

    def room(self) -> Floats:
        """Memory that is nobody else's; kept, as fresh memory costs more than arithmetic."""
        if self._room is None:
            self._room = zeros(len(self.home), 3)
        return self._room

    @property
    def in_room(self) -> bool:
        return self.x is self._room
