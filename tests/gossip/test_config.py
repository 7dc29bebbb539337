"""Settings state their relations: what cannot work is refused with a reason."""

import pytest

from covey.gossip.config import Config, OuterStep, Screening


def test_the_defaults_are_the_measured_ones() -> None:
    assert OuterStep() == OuterStep(momentum=0.85, rate=0.7)
    assert (Config().codec, Config().exchanges) == ("mod4", 1)


def test_an_outer_step_that_drives_nodes_apart_is_refused() -> None:
    OuterStep(momentum=0.9, rate=0.7)  # DiLoCo's
    with pytest.raises(ValueError, match=r"outer rate 1\.5 with momentum 0.9 drives nodes apart"):
        OuterStep(momentum=0.9, rate=1.5)


@pytest.mark.parametrize(("momentum", "rate"), [(1.0, 0.1), (-0.1, 0.1), (0.5, 0.0), (0.5, -1.0)])
def test_an_outer_step_out_of_range(momentum: float, rate: float) -> None:
    with pytest.raises(ValueError, match="momentum is in"):
        OuterStep(momentum, rate)


@pytest.mark.parametrize(
    "bad",
    [
        {"unscreened": 25},
        {"unscreened": 0},
        {"gate_ratio": 1.0},
        {"growth": 1.0},
        {"clip_quantile": 0.0},
        {"clip_quantile": 0.8, "gate_quantile": 0.7},
        {"gate_quantile": 1.0},
        {"negligible": -0.1},
        {"negligible": 1.0},
        {"undecoded_share": 1.0},
        {"undone_share": 0.0},
        {"undone_periods": 0.0},
        {"outlying": 0.0},
    ],
)
def test_screening_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"remembered|above 1|shares|undo|outlying"):
        Screening(**bad)  # type: ignore[arg-type]  # whole numbers among them


def test_a_config_out_of_range() -> None:
    with pytest.raises(ValueError, match="'top-k'; there are 'mod4' and 'f32'"):
        Config(codec="top-k")
    for bad in ({"exchanges": 0}, {"attempts": 0}, {"settle_exchanges": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            Config(**bad)  # type: ignore[arg-type]  # each is an int
