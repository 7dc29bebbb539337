"""A bandwidth as people write it: ``10mbit`` in bits, ``1.25MB/s`` in bytes, ``off`` for none."""

import math
import re
from dataclasses import dataclass

from covey.protocols import limits

_BITS = {"k": 1e3 / 8, "m": 1e6 / 8, "g": 1e9 / 8}
_BYTES = {"k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
_FORM = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?(?:([kmg])bit(?:/s)?|([kMG]i?)B(?:/s)?)")
_EXAMPLES = "write 10mbit, 1.25MB/s, or off"


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of ``bytes_per_s``; infinite: none.  ValueError below what peers put up with."""

    bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        if not self.bytes_per_s >= limits.LINK_BYTES_PER_S_MIN:
            raise ValueError(
                f"is below {Rate(limits.LINK_BYTES_PER_S_MIN)}, too slow to learn with; "
                "lift it with off"
            )

    def __str__(self) -> str:
        if self.bytes_per_s == math.inf:
            return "off"
        bits = self.bytes_per_s * 8
        unit, size = next(((u, s) for u, s in (("g", 1e9), ("m", 1e6)) if bits >= s), ("k", 1e3))
        return f"{bits / size:.6g}{unit}bit"

    @property
    def json(self) -> float | None:
        """Bytes per second as JSON can say it; None: no limit."""
        return None if self.bytes_per_s == math.inf else self.bytes_per_s

    @classmethod
    def of_json(cls, value: float | None) -> "Rate":
        """What ``json`` has written.  Raises ValueError."""
        return OFF if value is None else cls(float(value))

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Read a rate as a person writes it.  Raises ValueError.

        Bits in any case (``10 Mbit/s``), bytes with a capital B.  ``Mb`` and ``mbps`` mean bits to
        some and bytes to others, so they mean nothing here.
        """
        text = text.strip()
        if text.lower() == "off":
            return OFF
        lower = re.sub(r"[kmg]bit", lambda found: found[0].lower(), text, flags=re.IGNORECASE)
        match = _FORM.fullmatch(lower)
        if match is None:
            raise ValueError(f"is not a rate; {_EXAMPLES}")
        return cls(float(match[1]) * (_BITS[match[2]] if match[2] else _BYTES[match[3]]))


OFF = Rate()
