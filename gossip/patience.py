"""How long an accepter waits for a proposer's codes, and whom it makes wait in turn.

While it waits it can exchange with nobody else, so the wait follows what exchanges take here, and a
peer that keeps going silent is answered Busy for as long as it held us, then twice, four times ...
"""

from covey.protocols import limits
from covey.protocols.identity import PeerId

_FIRST_S = 10.0  # before any exchange has been timed
_LEAST_S = 4.0  # a machine that trains may hold a process back for seconds
_MOST_S = 60.0  # of a small model
_TIMES = 4  # what an exchange took
_FADING = 0.8  # slowly down, so that a slow peer among fast ones is still waited for
_DOUBLINGS = 6


class Patience:
    """The wait, in ``seconds``, and the peers that went silent.

    ``model_bytes``, of an exchange both ways, are what the slowest link may take its time for.
    """

    def __init__(self, model_bytes: int = 0) -> None:
        self.seconds = _FIRST_S
        self._most_s = _MOST_S + _TIMES * model_bytes / limits.LINK_BYTES_PER_S_MIN
        # Silences in a row and when the penance for them ends; oldest first.
        self._silent: dict[PeerId, tuple[int, float]] = {}

    def heard(self, peer: PeerId, took_s: float) -> None:
        """``peer`` sent its codes ``took_s`` after it was accepted."""
        self._silent.pop(peer, None)
        self.seconds = self._bounded(max(_TIMES * took_s, _FADING * self.seconds))

    def silent(self, peer: PeerId, now: float) -> None:
        """``peer`` sent nothing in time.  Once may be the network's fault and costs it nothing."""
        times, _ = self._silent.pop(peer, (0, now))
        penance_s = self.seconds * 2 ** min(times - 1, _DOUBLINGS) if times else 0.0
        self._silent[peer] = times + 1, now + penance_s
        if len(self._silent) > limits.PEERS_MAX:
            del self._silent[next(iter(self._silent))]
        self.seconds = self._bounded(2 * self.seconds)

    def refuses(self, peer: PeerId, now: float) -> bool:
        """Whether ``peer`` has yet to do its penance."""
        return peer in self._silent and now < self._silent[peer][1]

    def _bounded(self, seconds: float) -> float:
        return min(max(seconds, _LEAST_S), self._most_s)
