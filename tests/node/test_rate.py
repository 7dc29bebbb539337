"""Rates: as people write them, and as JSON does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.node.rate import OFF, Rate
from covey.protocols import limits


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("10mbit", 1.25e6),
        ("10 Mbit/s", 1.25e6),
        ("1000kbit", 125_000),
        ("2.5gbit", 312.5e6),
        ("1.25MB/s", 1.25e6),
        ("2 MiB", 2 * 2**20),
        ("500kB/s", 5e5),
        ("1GB", 1e9),
        (" off ", math.inf),
        ("OFF", math.inf),
    ],
)
def test_what_people_write(text: str, bytes_per_s: float) -> None:
    assert Rate.parse(text).bytes_per_s == bytes_per_s


@pytest.mark.parametrize(
    "text", ["", "10", "10mb", "10mbps", "10Mb/s", "mbit", "-1mbit", "1e9 kbit", "nan", "1.MB/s"]
)
def test_what_may_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate; write 10mbit, "):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["0mbit", "999kbit", "100 kB/s"])
def test_below_what_peers_put_up_with(text: str) -> None:
    with pytest.raises(ValueError, match="is below 1mbit"):
        Rate.parse(text)
    with pytest.raises(ValueError, match="is below 1mbit"):
        Rate(math.nan)


@given(st.floats(limits.LINK_BYTES_PER_S_MIN, 1e12))
def test_it_reads_what_it_writes(bytes_per_s: float) -> None:
    rate = Rate(bytes_per_s)
    assert Rate.parse(str(rate)).bytes_per_s == pytest.approx(bytes_per_s, rel=1e-5)
    assert Rate.of_json(rate.json) == rate


def test_no_limit() -> None:
    assert (str(OFF), OFF.json, Rate.of_json(None)) == ("off", None, OFF)
