"""``every=`` as users write it."""

import pytest

from covey.cadence import Cadence, Every


@pytest.mark.parametrize(
    ("every", "steps", "seconds"),
    [
        (None, 10, None),
        (1, 1, 0.0),
        (20, 20, 0.0),
        ("2s", 1, 2.0),
        ("500ms", 1, 0.5),
        ("1.5 s", 1, 1.5),
        ("1m", 1, 60.0),
    ],
)
def test_what_can_be_written(every: Every, steps: int, seconds: float | None) -> None:
    cadence = Cadence.parse(every)
    assert (cadence.steps, cadence.seconds) == (steps, seconds)


@pytest.mark.parametrize("every", [0, -1, True, "", "2", "s", "0s", "2 h", "-1s", "1e3s"])
def test_anything_else_is_an_error_that_says_how(every: Every) -> None:
    with pytest.raises(ValueError, match="every='2s'"):
        Cadence.parse(every)


def test_an_automatic_period_follows_the_pace() -> None:
    automatic, fixed = Cadence.parse(None), Cadence.parse("2s")
    assert automatic.pause_s(None) == 0.5
    assert automatic.pause_s(0.1) == 0.1
    assert fixed.pause_s(None) == fixed.pause_s(10) == 2.0
    assert Cadence.parse(5).pause_s(10) == 0.0
