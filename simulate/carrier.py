"""Carries the messages of one exchange between two residents, late, or not at all."""

from collections.abc import Callable
from random import Random

from covey.gossip.core import Outgoing
from covey.protocols.errors import RemoteError
from covey.simulate.agenda import Agenda
from covey.simulate.resident import Resident
from covey.simulate.scenario import Network
from covey.simulate.wire import Wire

_MESSAGES = 4  # of a usual exchange: one that is lost breaks at any of them
_TIMEOUT_S = 5.0  # of the daemon's requests, when nothing comes back


class Carrier:
    """The network between residents."""

    def __init__(self, network: Network, agenda: Agenda, rng: Random) -> None:
        self._network = network
        self._agenda = agenda
        self._rng = rng
        self.wire = Wire()

    def converse(
        self, caller: Resident, called: Resident, out: Outgoing, reaches: Callable[[], bool]
    ) -> None:
        """An exchange from its proposal to its end.  ``reaches``: whether messages get through."""
        lost = self._rng.random() < self._network.loss
        self._ask(caller, called, out, self._rng.randrange(_MESSAGES) if lost else -1, reaches)

    def _ask(
        self,
        caller: Resident,
        called: Resident,
        out: Outgoing,
        breaks_in: int,
        reaches: Callable[[], bool],
    ) -> None:
        """One request and its answer; ``breaks_in``: messages until the connection breaks."""

        def hang_up() -> None:
            """A connection that breaks tells both ends."""
            if called.core.awaited == caller.core.me:
                called.failed(caller.core.me, "silent")

        def fail(reason: str, after_s: float) -> None:
            self._agenda.at(
                self._agenda.now + after_s, lambda: caller.failed(called.core.me, reason)
            )

        def arrived() -> None:
            if breaks_in == 0:
                fail("unreachable", self._network.latency_s)
                hang_up()
                return
            if not (called.up and reaches()):
                fail("timeout", _TIMEOUT_S)
                return
            try:
                answer = called.receive(caller.core.me, out)
            except RemoteError as error:
                fail(error.reason, self._network.latency_s)
                return
            back = Outgoing(called.core.me, answer.message, bytes(answer.payload))
            took_s = self._transfer(called, back)
            if breaks_in == 1 or not reaches():
                fail("unreachable", took_s)
                if breaks_in == 1:
                    self._agenda.at(self._agenda.now + took_s, hang_up)
            else:
                self._agenda.at(self._agenda.now + took_s, lambda: answered(back))

        def answered(back: Outgoing) -> None:
            if caller.up:
                caller.answered(back, go_on)
            else:
                caller.failed(called.core.me, "off")

        def go_on(reply: Outgoing | None) -> None:
            if reply is not None:
                self._ask(caller, called, reply, breaks_in - 2, reaches)

        self._agenda.at(self._agenda.now + self._transfer(caller, out), arrived)

    def _transfer(self, sender: Resident, out: Outgoing) -> float:
        """Count the message; the seconds until it is there."""
        size = self.wire.size(out)
        sender.sent += size
        return self._network.latency_s + size / self._network.bytes_per_s
