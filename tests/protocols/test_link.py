"""Frames and the map: every frame survives, nothing else gets through."""

from random import Random

import numpy as np
import pytest

from covey.protocols import limits, link
from covey.protocols.errors import Malformed, RemoteError, TooLarge, Unsupported
from covey.protocols.messages import Lineage

FRAMES: list[link.Frame] = [
    link.Attach(1, b"layout", "digits", 77, "20 steps"),
    link.Attach(1, b"layout", "digits", 77, "20 steps", Lineage(b"f" * 32, 5)),
    link.Attached("/dev/shm/x.map", "ABCDEFG"),
    link.Rejected("no"),
    link.Start(True, Lineage(b"f" * 32, 5)),
    link.Snapshot(3, 60, 2),
    link.Consumed(3),
    link.Increment(3, Lineage()),
    link.Applied(3),
    link.Pace(0.25),
    link.Log(("loss", "accuracy"), (0.5, 0.9)),
    link.Settle(),
    link.SettledReport(0.01, 4, 2),
    link.SettledReport(None, 0, 0),
    link.Detach(),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_survives(frame: link.Frame) -> None:
    assert link.Decoder().feed(link.encode(frame)) == [frame]


def test_frames_come_out_however_the_stream_is_cut() -> None:
    stream = b"".join(map(link.encode, FRAMES))
    random = Random(1)
    for _ in range(50):
        decoder, got, rest = link.Decoder(), list[link.Frame](), stream
        while rest:
            cut = random.randint(1, 60)
            got += decoder.feed(rest[:cut])
            rest = rest[cut:]
        assert got == FRAMES


def test_an_oversized_frame_is_refused_before_it_is_read() -> None:
    length = (limits.LINK_FRAME_BYTES_MAX + 1).to_bytes(4, "big")
    with pytest.raises(TooLarge, match="a frame of"):
        link.Decoder().feed(length)


def test_an_unknown_frame_is_named() -> None:
    body = b"\x92\xa5Party\x80"
    with pytest.raises(Unsupported, match="'Party'"):
        link.Decoder().feed(len(body).to_bytes(4, "big") + body)


@pytest.mark.parametrize(
    "frame",
    [
        link.encode(link.Pace(1.0)).replace(b"seconds", b"minutes"),
        link.encode(link.Consumed(1)).replace(b"\x01", b"\xc0"),
        len(b"\x80").to_bytes(4, "big") + b"\x80",
    ],
)
def test_a_malformed_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(Malformed):
        link.Decoder().feed(frame)


@pytest.mark.parametrize(
    "make",
    [
        lambda: link.Attach(1, b"", "n" * 65, 7, ""),
        lambda: link.Attach(1, b"", "n", 0, ""),
        lambda: link.Snapshot(-1, 0, 0),
        lambda: link.Pace(float("inf")),
        lambda: link.Log(("loss",), ()),
        lambda: link.Log(("",), (1.0,)),
        lambda: link.Log(("loss",), (float("inf"),)),
        lambda: link.Log(tuple(map(str, range(33))), (0.0,) * 33),
    ],
)
def test_fields_have_bounds(make: "type") -> None:
    with pytest.raises(ValueError, match=" "):
        make()


def test_damaged_frames_raise_only_remote_errors() -> None:
    random = Random(2)
    encoded = [link.encode(frame) for frame in FRAMES]
    for _ in range(5000):
        data = bytearray(random.choice(encoded))
        for _ in range(random.randint(1, 4)):
            data[random.randrange(4, len(data)) if len(data) > 4 else 0] = random.randrange(256)
        try:
            frames = link.Decoder().feed(bytes(data))
        except RemoteError:
            continue
        assert len(frames) == 1


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 50_000])
def test_the_areas_do_not_touch(size: int) -> None:
    view = memoryview(bytearray(link.Geometry(size).total_bytes))
    link.head(view, size)
    areas = link.Areas.of(view, size)
    assert areas.snapshot.shape == areas.increment.shape == (size,)
    areas.snapshot[:] = np.nan
    areas.words[link.BELL] = 2**64 - 1
    assert not areas.increment.any()
    areas.increment[:] = 1
    assert np.isnan(areas.snapshot).all()
    link.Areas.of(view, size)  # the header is whole


def test_a_map_of_another_model_is_refused() -> None:
    view = memoryview(bytearray(link.Geometry(10).total_bytes))
    with pytest.raises(Malformed, match="not headed"):
        link.Areas.of(view, 10)
    link.head(view, 10)
    with pytest.raises(Malformed, match="instead of"):
        link.Areas.of(view, 5000)
    with pytest.raises(Malformed, match="not headed"):
        link.Areas.of(view, 11)
