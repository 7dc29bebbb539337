"""The invite line: everything a machine needs to join, in one word that survives being typed.

``covey1-`` and base32, lower case, of a 4-byte checksum and the packed list [name, secret,
addresses, expires].  Whoever holds it is a member: treat it like a password.
"""

import base64
import dataclasses
import hashlib
import string
from dataclasses import dataclass

from covey.protocols import limits, packing
from covey.protocols.certificates import SECRET_BYTES
from covey.protocols.errors import Malformed, RemoteError

PREFIX = "covey1-"
_LETTERS = set(string.ascii_lowercase + "234567")


@dataclass(frozen=True, slots=True)
class Invite:
    """A swarm's name and secret, hints where to find it, and until when the line may be used.

    ``expires`` is in seconds since the epoch, 0 for never.
    """

    name: str
    secret: bytes
    addresses: tuple[str, ...] = ()
    expires: int = 0

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise ValueError(f"a swarm secret is {SECRET_BYTES} bytes")
        if not 0 < len(self.name) <= limits.NAME_CHARS_MAX or not self.name.isprintable():
            raise ValueError(f"a name has 1 to {limits.NAME_CHARS_MAX} printable characters")
        if len(self.addresses) > limits.ADDRESSES_PER_PEER_MAX or self.expires < 0:
            raise ValueError("too many addresses, or a negative expiry")
        for address in self.addresses:
            if len(address) > limits.ADDRESS_CHARS_MAX or not address.isprintable():
                raise ValueError("an address is too long or not printable")

    @property
    def text(self) -> str:
        return spelled(packing.pack([self.name, self.secret, self.addresses, self.expires]))


def parse(text: str, now: float) -> Invite:
    """Read an invite line.  ``now`` is in seconds since the epoch.

    Raises ValueError that says what is wrong and what to do: mistyped, cut off, or expired.
    """
    plain = "".join(text.split()).lower()
    if not plain.startswith(PREFIX):
        raise ValueError(f"an invite begins with {PREFIX!r}; run `covey invite` on a member")
    body = plain[len(PREFIX) :]
    if not body or not set(body) <= _LETTERS or len(body) > 4096:
        raise ValueError("the invite has letters that no invite has; copy the whole line again")
    try:
        data = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except ValueError:
        data = b""
    if len(data) < 5 or spelled(data[4:]) != plain:
        raise ValueError("the invite is mistyped or cut off; copy the whole line again")
    try:
        fields = packing.unpack(data[4:], limits.CONTROL_BYTES_MAX)
        names = [field.name for field in dataclasses.fields(Invite)]
        if not isinstance(fields, list) or len(fields) < len(names):
            raise Malformed("fields are missing")
        invite = packing.from_map(Invite, dict(zip(names, fields, strict=False)))
    except RemoteError as error:
        raise ValueError(f"the invite was made by another version of covey ({error})") from error
    if invite.expires and now > invite.expires:
        raise ValueError("the invite has expired; run `covey invite` on a member for a new one")
    return invite


def spelled(data: bytes) -> str:
    """The line that carries ``data``."""
    return PREFIX + base64.b32encode(_checksum(data) + data).decode().rstrip("=").lower()


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(b"covey/invite/1\0" + data).digest()[:4]
