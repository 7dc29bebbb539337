"""How many bytes left and reached this node's sockets, by lane, counted where TLS writes them."""

from enum import StrEnum


class Lane(StrEnum):
    """What a connection is for.  Lanes never share a connection, so probes wait behind no bulk."""

    CONTROL = "control"
    EXCHANGE = "exchange"
    STATE = "state"

    @property
    def alpn(self) -> str:
        """The name that the client asks for in the TLS handshake (RFC 7301)."""
        return "covey/1" if self is Lane.CONTROL else f"covey-{self}/1"

    @classmethod
    def of_alpn(cls, selected: str | None) -> "Lane":
        """The lane a handshake agreed on; a client that named none counts as control."""
        return next((lane for lane in cls if lane.alpn == selected), cls.CONTROL)


class Ledger:
    """Bytes on the wire since the node started: TLS records and handshakes, without TCP and IP."""

    def __init__(self) -> None:
        self.sent = dict.fromkeys(Lane, 0)
        self.received = dict.fromkeys(Lane, 0)
