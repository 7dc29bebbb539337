"""What can be wrong with what a peer sent: one class, five kinds.

    RemoteError
    ├── Malformed    the bytes do not parse, or a field is missing, of the wrong type or not finite
    ├── TooLarge     a size over its bound in limits.py, refused before it is read
    ├── Unsupported  another protocol version, an unknown message or codec
    ├── Forged       a signature, hash, swarm or identity that does not hold
    └── Stale        seen before, or too old to matter

A RemoteError is the peer's fault: the message is dropped, counted under ``reason``, and nothing
else happens.  The operator's faults are ordinary exceptions; our own bugs are assertions.
"""


class RemoteError(Exception):
    """The peer's fault.  ``reason`` names the counter; the message explains it in one line."""

    reason = "remote"


class Malformed(RemoteError):
    reason = "malformed"


class TooLarge(RemoteError):
    reason = "too_large"


class Unsupported(RemoteError):
    reason = "unsupported"


class Forged(RemoteError):
    reason = "forged"


class Stale(RemoteError):
    reason = "stale"
