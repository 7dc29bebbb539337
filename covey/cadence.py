"""When a learner hands over a snapshot: ``every=`` as the user writes it."""

import re
from dataclasses import dataclass

Every = int | str | None

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0}
_STEPS_MIN = 10  # of an automatic period; below that, mixing costs more than it brings
_PACE_S = 0.5  # of an automatic period, until the node has said what suits the network


@dataclass(frozen=True, slots=True)
class Cadence:
    """A period has at least ``steps`` steps and ``seconds`` seconds; None: the node's pace."""

    steps: int
    seconds: float | None
    text: str

    @classmethod
    def parse(cls, every: Every) -> "Cadence":
        """Steps (``20``), a time (``"2s"``, ``"500ms"``, ``"1m"``), or None: automatic.

        Raises ValueError.
        """
        match every:
            case None:
                return cls(_STEPS_MIN, None, "automatic")
            case int() if type(every) is int and every >= 1:
                return cls(every, 0.0, f"{every} steps")
            case str() if found := re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|m)", every.strip()):
                seconds = float(found[1]) * _UNITS[found[2]]
                if seconds > 0:
                    return cls(1, seconds, f"{seconds:g} s")
        raise ValueError(
            f"every={every!r} is not a period: give steps (every=20), a time (every='2s'), or None"
        )

    def pause_s(self, pace_s: float | None) -> float:
        """Seconds a period takes at least, given the node's pace if it has told one."""
        if self.seconds is not None:
            return self.seconds
        return _PACE_S if pace_s is None else pace_s
