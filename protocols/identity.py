"""A node's lasting Ed25519 key and its ``PeerId``, the public key.

A PeerId is written as eight groups of seven characters: base32 of the key with one check character
per 13 (Luhn over base 32, as Syncthing's device ids), so a typing error is caught where it is made.
"""

import base64
from dataclasses import dataclass
from functools import cached_property

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from covey.protocols.errors import Forged

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_CHUNK = 13  # 52 characters of base32 are four chunks of 13, each with a check character


@dataclass(frozen=True, order=True)
class PeerId:
    """A node's public key: 32 bytes.  Ordered by its bytes, which decides ties between peers."""

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != 32:
            raise ValueError(f"a peer id is 32 bytes, not {len(self.key)}")

    def __hash__(self) -> int:  # ids are looked up all the time, and bytes know their hash
        return hash(self.key)

    @cached_property
    def text(self) -> str:
        """All 63 characters: eight groups of seven."""
        plain = base64.b32encode(self.key).decode().rstrip("=")
        chunks = [plain[i : i + _CHUNK] for i in range(0, len(plain), _CHUNK)]
        checked = "".join(chunk + _check(chunk) for chunk in chunks)
        return "-".join(checked[i : i + 7] for i in range(0, len(checked), 7))

    @property
    def short(self) -> str:
        """The first group: enough to tell the nodes of one swarm apart in a table."""
        return self.text[:7]

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> "PeerId":
        """Read an id as written by ``text``; dashes, spaces and case do not matter.

        Raises ValueError that names the group holding the typing error.
        """
        plain = text.upper().replace("-", "").replace(" ", "")
        if len(plain) != 56 or any(c not in _ALPHABET for c in plain):
            raise ValueError("a peer id has 56 letters A-Z and digits 2-7, in groups of seven")
        chunks = [plain[i : i + _CHUNK + 1] for i in range(0, 56, _CHUNK + 1)]
        for number, chunk in enumerate(chunks, 1):
            if _check(chunk[:-1]) != chunk[-1]:
                raise ValueError(f"a typing error in groups {2 * number - 1} to {2 * number}")
        peer = cls(base64.b32decode("".join(chunk[:-1] for chunk in chunks) + "===="))
        if peer.text.replace("-", "") != plain:  # 260 bits hold 256: one id, one text
            raise ValueError("a typing error in group 8, which ends in an impossible letter")
        return peer


def _check(chunk: str) -> str:
    """Luhn mod 32: detects every single error and every swap of neighbours but one pair."""
    total = 0
    for position, character in enumerate(reversed(chunk)):
        value = _ALPHABET.index(character) * (2 - position % 2)
        total += value // 32 + value % 32
    return _ALPHABET[-total % 32]


class Identity:
    """The signing key of this node.  It never leaves the node process."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.seed = seed
        self.peer = PeerId(bytes(self._key.verify_key))

    def __repr__(self) -> str:
        return f"Identity({self.peer.short})"

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``data``."""
        return self._key.sign(data).signature


def verify(peer: PeerId, data: bytes, signature: bytes) -> None:
    """Raise Forged unless ``signature`` is ``peer``'s over ``data``."""
    try:
        VerifyKey(peer.key).verify(data, signature)
    except (BadSignatureError, ValueError) as error:
        raise Forged(f"the signature is not {peer.short}'s") from error
