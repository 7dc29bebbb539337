"""Hostile inputs: mutations of valid messages and random bytes, as many as COVEY_FUZZ says.

``COVEY_FUZZ=200000 pytest tests/protocols/test_fuzz.py`` is the long run: minutes, not seconds.
"""

import os
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

import msgpack

T = TypeVar("T")
R = TypeVar("R")

COUNT = int(os.environ.get("COVEY_FUZZ", "2000"))

# Where decoders go wrong: signs, widths, heads of containers, texts and extensions.
_BYTES = bytes.fromhex(
    "00 01 7f 80 8f 90 9f a0 bf c0 c1 c2 c4 c6 c7 c9 ca cb cf d3 d4 d9 db dc df ff"
)
_HEADS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff",
]
_HEADS += [b"\xc7\x00\xff", b"\xdb\xff\xff\xff\xff", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xc1"]
_LEAVES: list[Any] = [None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
_LEAVES += [0.0, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")]
_LEAVES += [
    "",
    "a",
    "\0",
    "\x1b[2J",
    "\u202e",
    "😀" * 40,
    "x" * 2000,
    b"",
    b"\0" * 16,
    b"\xff" * 32,
]


class Mutator:
    """Makes hostile inputs from valid ones, seeded."""

    def __init__(self, seed: int, valid: Sequence[bytes] = ()) -> None:
        self.rng = Random(seed)
        self._valid = list(valid)

    def data(self) -> bytes:
        """Bytes: a mutated valid input, two spliced ones, or noise."""
        rng = self.rng
        if not self._valid or rng.random() < 0.1:
            return rng.randbytes(rng.choice((0, 1, 2, 3, 5, 8, 64, 300)))
        data = bytearray(rng.choice(self._valid))
        if rng.random() < 0.1:
            other = rng.choice(self._valid)
            data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
            self._alter(data)
        return bytes(data)

    def _alter(self, data: bytearray) -> None:
        rng = self.rng
        place, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 16))
        match rng.randrange(8):
            case 0 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(data):
                data[place] = rng.choice(_BYTES)
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = rng.randbytes(length)
            case 4:
                data[place:place] = rng.choice(_HEADS)
            case 5:
                data[place:place] = data[place : place + 8 * length]  # repeated
            case 6:
                del data[place:]
            case _:
                data[place:place] = rng.choice(_HEADS) * int(1.0 / (rng.random() + 5e-4))

    def text(self, valid: Sequence[str], letters: str) -> str:
        """Text: a mutated valid one, or noise of ``letters``."""
        rng = self.rng
        if rng.random() < 0.1:
            return "".join(rng.choices(letters, k=rng.choice((0, 1, 7, 56, 300))))
        text = list(rng.choice(valid))
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            place = rng.randrange(len(text) + 1)
            match rng.randrange(5):
                case 0 if place < len(text):
                    text[place] = rng.choice(letters)
                case 1:
                    del text[place : place + rng.choice((1, 1, 8))]
                case 2:
                    text[place:place] = rng.choices(letters, k=rng.choice((1, 1, 8)))
                case 3 if place + 1 < len(text):
                    text[place], text[place + 1] = text[place + 1], text[place]
                case _:
                    text = [rng.choice((c.upper(), c.lower(), c)) for c in text]
        return "".join(text)

    def value(self, depth: int = 3) -> Any:
        """Any value that msgpack can carry."""
        rng = self.rng
        kind = rng.random()
        if depth == 0 or kind < 0.7:
            return rng.choice(_LEAVES)
        if kind < 0.85:
            return [self.value(depth - 1) for _ in range(rng.randrange(5))]
        return {rng.choice(("a", "version", "key")): self.value(depth - 1) for _ in range(3)}

    def tree(self, valid: Any) -> Any:
        """``valid``, a tree of lists and maps, with some of its parts replaced."""
        rng = self.rng
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            valid = self._replaced(valid)
        return valid

    def _replaced(self, value: Any) -> Any:
        rng = self.rng
        if rng.random() < 0.1 or not isinstance(value, dict | list) or not value:
            return self._leaf(value)
        if isinstance(value, dict):
            key, changed = rng.choice(list(value)), dict(value)
            match rng.randrange(8):
                case 0:
                    del changed[key]
                case 1:
                    changed[rng.choice(("", "a", "x" * 300))] = self.value()
                case _:
                    changed[key] = self._replaced(value[key])
            return changed
        place, items = rng.randrange(len(value)), list(value)
        match rng.randrange(8):
            case 0:
                del items[place]
            case 1:
                items[place:place] = [self.value()]
            case 2:
                items *= rng.choice((2, 9, 40))
            case _:
                items[place] = self._replaced(value[place])
        return items

    def _leaf(self, value: Any) -> Any:
        """Something else in place of ``value``; half the time something close to it."""
        rng = self.rng
        if rng.random() < 0.5:
            return self.value()
        match value:
            case bytes() | str():
                return rng.choice((value[:-1], value * 2, value.upper(), value[:1]))
            case float():
                return rng.choice((-value, value + 1, 1))
            case int() if 0 < value < 2**62:
                return rng.choice((-value, value + 1, float(value), str(value)))
            case _:
                return self.value()

    def packed(self, valid: Any) -> bytes:
        """``tree(valid)`` in msgpack."""
        data: bytes = msgpack.packb(self.tree(valid), use_bin_type=True)
        return data


@dataclass(frozen=True)
class Target(Generic[T, R]):
    """A decoder, the error it declares, the memory it may take, a check of what it accepts."""

    decode: Callable[[T], R]
    declared: type[Exception]
    bytes_max: Callable[[T], int]
    check: Callable[[R], None] = lambda result: None


def fuzz(target: Target[T, R], make: Callable[[], T]) -> Counter[str]:
    """Decode COUNT inputs.  Returns how many were accepted, and refused by which error.

    Only the declared error and its kinds may come, each in one short printable line.
    """
    outcomes: Counter[str] = Counter()
    for _ in range(COUNT):
        given = make()
        tracemalloc.start()
        try:
            accepted, outcome = [target.decode(given)], "accepted"
        except target.declared as error:
            accepted, outcome, line = [], type(error).__name__, str(error)
            assert line.isprintable(), repr(given)
            assert 0 < len(line) < 1200, repr(given)
        except BaseException:
            print(f"input: {given!r}")
            raise
        finally:
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert taken <= target.bytes_max(given), f"{taken} bytes for {given!r}"
        for result in accepted:
            target.check(result)
        outcomes[outcome] += 1
    return outcomes
