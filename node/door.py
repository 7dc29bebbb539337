"""Who may start a TLS handshake: bounds on half-open connections and on hosts that keep failing.

Sans-IO: the caller passes the time and the address's host, and tells how each handshake ended.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice

HALF_OPEN_MAX = 64  # handshakes at once
HALF_OPEN_PER_HOST_MAX = 16
FAILURES_MAX = 5  # failed handshakes within FAILURES_S before a host must wait
FAILURES_S = 60.0
BAN_S = 10.0  # the first wait; each further one is twice as long
BAN_S_MAX = 300.0
HOSTS_MAX = 1024  # hosts remembered


@dataclass
class _Host:
    half_open: int = 0
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES_MAX))
    banned_until: float = 0.0
    ban_s: float = BAN_S


class Door:
    """Admits or turns away connections by the host they come from.

    A host with a member behind it (``trusted``) is never banned: other swarms may live there too.
    """

    def __init__(self) -> None:
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self.half_open = 0

    def admit(self, host: str, trusted: bool, now: float) -> bool:
        """Whether a handshake with ``host`` may start; if so, ``ended`` must follow."""
        entry = self._hosts.setdefault(host, _Host())
        self._hosts.move_to_end(host)
        self._forget()
        if self.half_open >= HALF_OPEN_MAX or entry.half_open >= HALF_OPEN_PER_HOST_MAX:
            return False
        if now < entry.banned_until and not trusted:
            return False
        entry.half_open += 1
        self.half_open += 1
        return True

    def ended(self, host: str, well: bool | None, now: float) -> None:
        """The handshake that ``admit`` allowed has ended.

        ``well`` if it proved a member, not if it failed or took too long, None if it was given up.
        """
        entry = self._hosts[host]
        entry.half_open -= 1
        self.half_open -= 1
        if well:
            entry.failures.clear()
            entry.banned_until, entry.ban_s = 0.0, BAN_S
            return
        if well is None:
            return
        entry.failures.append(now)
        if len(entry.failures) == FAILURES_MAX and now - entry.failures[0] <= FAILURES_S:
            entry.banned_until = now + entry.ban_s
            entry.ban_s = min(2 * entry.ban_s, BAN_S_MAX)
            entry.failures.clear()

    def _forget(self) -> None:
        """Drop the hosts not heard of for longest, but none that is in a handshake."""
        excess = max(0, len(self._hosts) - HOSTS_MAX)
        for host in list(islice(self._hosts, excess)):
            if not self._hosts[host].half_open:
                del self._hosts[host]
