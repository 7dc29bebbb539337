"""Where peers may be reached: every known address, where it was learned, and when to dial it.

Sans-IO: the caller passes ``now`` (monotonic seconds), dials what is ``due`` and tells how it went.
An address is a hint until a handshake has proven who is there.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from covey.protocols import limits
from covey.protocols.identity import PeerId

BACKOFF_S = 1.0  # after the first failure; doubles, so that nodes started together meet soon
BACKOFF_S_MAX = 60.0
HINT_S = 5.0  # a fresh announcement brings the next dial forward to this long after the last
FAILURES_MAX = 12  # in a row (about ten minutes), then an address that never worked is forgotten
FORGET_S = 24 * 3600.0  # without working, then one that did is forgotten too
ENTRIES_MAX = 2 * limits.PEERS_MAX
OWN_S = 3600.0  # an address that led back to ourselves is left alone this long
OWN_MAX = 64
ADDRESS_CHARS_MAX = 128  # as in messages.Introduction


class Source(StrEnum):
    """Where an address was learned."""

    STATIC = "static"  # the operator named it
    REMEMBERED = "remembered"  # it worked in an earlier run
    EXCHANGE = "exchange"  # a member told of it, or came from there
    MDNS = "mdns"  # announced on the local network


def parse_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[IPv6]:port`` as host and port.  Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets, as [::1]:4001")
    if not colon or not host or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: a port is between 1 and 65535")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of ``parse_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass
class Entry:
    """What is known of one address.  Read it, change it only through the book."""

    address: str
    sources: set[Source] = field(default_factory=set)
    peer: PeerId | None = None  # who is said, or since ``reached_at`` proven, to be there
    reached_at: float | None = None  # when it last worked
    tried_at: float | None = None
    error: str | None = None  # why the last try failed
    failures: int = 0  # in a row
    due_at: float = 0.0  # when to dial it, math.inf once it is proven and works


class AddressBook:
    """The known addresses, bounded: a spoofed announcement crowds out no address that worked."""

    def __init__(self, me: PeerId, rng: Random) -> None:
        self._me = me
        self._rng = rng
        self._entries: dict[str, Entry] = {}
        self._own: dict[str, float] = {}  # our own addresses, and until when that is believed

    def learn(self, address: str, source: Source, now: float, peer: PeerId | None = None) -> None:
        """Note an address, said to be ``peer``'s.  One that is no HOST:PORT is left out."""
        if peer == self._me or self._own.get(address, -math.inf) > now:
            return
        entry = self._entries.get(address)
        if entry is None:
            if not _is_address(address) or not self._has_room(source, peer):
                return
            entry = self._entries[address] = Entry(address, due_at=now)
        entry.sources.add(source)
        if peer is not None and (entry.reached_at is None or entry.error is not None):
            entry.peer = peer
        if source is Source.MDNS and entry.error is not None and entry.tried_at is not None:
            entry.due_at = min(entry.due_at, max(now, entry.tried_at + HINT_S))

    def due(self, now: float) -> list[str]:
        """The addresses to say hello to now, those waiting longest first."""
        found = [entry for entry in self._entries.values() if entry.due_at <= now]
        return [entry.address for entry in sorted(found, key=lambda entry: entry.due_at)]

    def reached(self, address: str, peer: PeerId, now: float) -> None:
        """``peer`` has proven itself at ``address``: no need to dial it again until it fails."""
        if peer == self._me:
            self.own(address, now)
            return
        entry = self._entries.setdefault(address, Entry(address))
        entry.peer, entry.reached_at, entry.tried_at = peer, now, now
        entry.error, entry.failures, entry.due_at = None, 0, math.inf
        for spare in self._of(peer)[limits.ADDRESSES_PER_PEER_MAX :]:
            self._forget(spare)

    def failed(self, address: str, why: str, now: float) -> bool:
        """A try at ``address`` failed; the next comes later.  True if ``why`` is news."""
        entry = self._entries.get(address)
        if entry is None:
            return False
        news = entry.error != why
        wait_s = min(BACKOFF_S * 2 ** min(entry.failures, 16), BACKOFF_S_MAX)
        # Jitter, or nodes that lost each other together dial each other in step for ever.
        entry.due_at = now + wait_s * self._rng.uniform(0.75, 1.25)
        entry.error, entry.tried_at = why, now
        entry.failures += 1
        hopeless = entry.reached_at is None and entry.failures >= FAILURES_MAX
        if hopeless or (entry.reached_at is not None and now - entry.reached_at > FORGET_S):
            self._forget(entry)
        return news

    def own(self, address: str, now: float) -> None:
        """``address`` is this node's own: forget it, and do not learn it again soon."""
        self._entries.pop(address, None)
        self._own.pop(address, None)
        self._own[address] = now + OWN_S
        while len(self._own) > OWN_MAX:
            del self._own[next(iter(self._own))]

    def of(self, peer: PeerId) -> list[str]:
        """The addresses that may lead to ``peer``, the most promising first."""
        return [entry.address for entry in self._of(peer)]

    def working(self, peer: PeerId) -> list[str]:
        """The addresses that lead to ``peer``: proven there, and the last try went well."""
        return [e.address for e in self._of(peer) if e.reached_at is not None and e.error is None]

    def entries(self, peer: PeerId | None) -> list[Entry]:
        """What is known of ``peer``'s addresses; None: of those that are nobody's yet."""
        if peer is not None:
            return self._of(peer)
        return [entry for entry in self._entries.values() if entry.peer is None]

    def plain(self) -> list[dict[str, Any]]:
        """The peers and addresses that have worked, now or in an earlier run, for a JSON file."""
        peers = {e.peer for e in self._entries.values() if e.peer and _worked(e)}
        return [
            {
                "peer": peer.text,
                "addresses": [e.address for e in self._of(peer) if _worked(e)],
            }
            for peer in sorted(peers)
        ]

    def restore(self, plain: Any, now: float) -> None:
        """Learn what ``plain`` gave in an earlier run; what does not parse is left out."""
        for row in plain[: limits.PEERS_MAX] if isinstance(plain, list) else ():
            match row:
                case {"peer": str(text), "addresses": list(addresses)}:
                    self._restore(text, addresses[: limits.ADDRESSES_PER_PEER_MAX], now)

    def _restore(self, text: str, addresses: Iterable[Any], now: float) -> None:
        try:
            peer = PeerId.parse(text)
        except ValueError:
            return
        for address in addresses:
            if isinstance(address, str):
                self.learn(address, Source.REMEMBERED, now, peer)

    def _of(self, peer: PeerId) -> list[Entry]:
        def promise(entry: Entry) -> tuple[int, float]:
            worked_at = entry.reached_at if entry.reached_at is not None else -math.inf
            return (entry.failures, -worked_at)

        return sorted((e for e in self._entries.values() if e.peer == peer), key=promise)

    def _has_room(self, source: Source, peer: PeerId | None) -> bool:
        """Make room for one more unproven address if there is a worse one."""
        if source is Source.STATIC:
            return True
        unproven = [e for e in self._entries.values() if e.reached_at is None]
        of_peer = [e for e in unproven if peer is not None and e.peer == peer]
        for crowd, most in (
            (of_peer, limits.ADDRESSES_PER_PEER_MAX),
            (unproven, limits.UNVERIFIED_MAX),
            (list(self._entries.values()), ENTRIES_MAX),
        ):
            if len(crowd) >= most:
                worst = max(crowd, key=lambda e: (Source.STATIC not in e.sources, e.failures))
                return worst.failures > 0 and self._forget(worst)
        return True

    def _forget(self, entry: Entry) -> bool:
        """Drop an address, unless the operator named it."""
        if Source.STATIC in entry.sources:
            return False
        self._entries.pop(entry.address, None)
        return True


def _worked(entry: Entry) -> bool:
    return entry.reached_at is not None or Source.REMEMBERED in entry.sources


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return len(text) <= ADDRESS_CHARS_MAX and text.isprintable() and " " not in text
