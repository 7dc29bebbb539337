"""Settings state their relations: what cannot work is refused with a reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.config import Config, OuterStep, Screening


def radius(momentum: float, rate: float, pairs: float = 0.5) -> float:
    """Spectral radius of the second moments of the outer step under random matchings.

    State (E phi², E phi m, E m²) of the deviation from the mean; ``pairs`` is n / (2 (n - 1)).
    """
    a, g, k = momentum, rate, pairs
    c = np.array([k * g * g, -2 * k * g * a, a * a])
    p = np.array([-k * g, a, 0])
    matrix = np.array([[1, 0, 0] + 2 * p + c, p + c, c])
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def test_the_defaults_are_the_measured_ones() -> None:
    assert OuterStep() == OuterStep(momentum=0.5, rate=0.7)
    assert Config().codec == "mod4"
    assert radius(0.5, 0.7, 16 / 30) == pytest.approx(0.685, abs=1e-3)


@settings(max_examples=300)
@given(st.floats(0, 0.999), st.floats(0.001, 4))
def test_an_outer_step_that_is_accepted_is_stable_in_a_swarm_of_any_size(
    momentum: float, rate: float
) -> None:
    bound = 2 * (1 - momentum**2)
    if rate >= 0.9 * bound:
        with pytest.raises(ValueError, match="diverges"):
            OuterStep(momentum, rate)
        assert rate < 1.001 * bound or radius(momentum, rate) > 1
    else:
        OuterStep(momentum, rate)
        for size in (2, 3, 8, 10**9):
            assert radius(momentum, rate, size / (2 * (size - 1))) < 1


def test_the_momentum_of_diloco_is_refused() -> None:
    with pytest.raises(ValueError, match=r"diverges in a large swarm; take a rate below 0\.34"):
        OuterStep(momentum=0.9, rate=0.7)


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
        {"clip_quantile": 1.0},
        {"negligible": -0.1},
        {"negligible": 1.0},
        {"undecoded_share": 1.0},
    ],
)
def test_screening_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"remembered|above 1|shares"):
        Screening(**bad)  # type: ignore[arg-type]  # whole numbers among them


def test_a_config_out_of_range() -> None:
    with pytest.raises(ValueError, match="'top-k'; there are 'mod4' and 'f32'"):
        Config(codec="top-k")
    for bad in ({"exchanges": 0}, {"attempts": 0}, {"settle_exchanges": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            Config(**bad)  # type: ignore[arg-type]  # each is an int
