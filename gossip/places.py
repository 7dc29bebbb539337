"""Where a vector lies: copying it costs more than what is computed with it."""

import numpy as np

from covey.gossip.quantiser import Floats


class Places:
    """Memory of a float32 vector of ``size``, which is at one of several places.

    ``home`` is always there; its own ``room`` once it was needed; or it is where it was lent.
    """

    def __init__(self, size: int) -> None:
        self.home: Floats = np.zeros(size, np.float32)
        self._room: Floats | None = None
        self.go(self.home)

    def go(self, place: Floats) -> None:
        """The vector is ``place`` from here on."""
        self.x, self.view = place, place.view()
        self.view.flags.writeable = False

    def room(self) -> Floats:
        """Memory that is nobody else's; kept, as fresh memory costs more than arithmetic."""
        if self._room is None:
            self._room = np.empty_like(self.home)
        return self._room

    @property
    def in_room(self) -> bool:
        return self.x is self._room
