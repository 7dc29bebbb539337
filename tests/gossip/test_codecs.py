"""Both codecs behind their one interface: sizes, symmetry, exactness, and hostile payloads."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip import codecs, quantiser
from covey.gossip.codecs import F32, Coder, Mod4, Side, coder, payload_limit, scales_size
from covey.gossip.quantiser import RANGE_PER_SCALE, Floats
from covey.gossip.screening import Pair
from covey.protocols.errors import Malformed, RemoteError, Unsupported

FUZZ = int(os.environ.get("COVEY_FUZZ", "3000"))
CODECS = st.sampled_from(["mod4", "f32"])
SIZES = st.tuples(st.integers(0, 200), st.integers(0, 200)).filter(any)
NONCES = bytes(32)


def side(x: Floats, parameters: int, scale: float = 0.1) -> Side:
    typical = np.full(quantiser.blocks_in(parameters), scale, np.float32)
    scales = quantiser.own_scales(
        quantiser.block_max(x[:parameters]), np.zeros_like(typical), typical
    )
    return Side(x, parameters, scales)


def outcome(made: Coder) -> tuple[Pair, Floats]:
    """Its distances, and the largest differences of the blocks without bounds."""
    assert isinstance(made, Mod4 | F32)
    parameters = made._side.parameters if isinstance(made, Mod4) else made._parameters
    return made.outcome(np.full(quantiser.blocks_in(parameters), np.inf, np.float32))


def exchanged(name: str, x: Side, y: Side) -> tuple[Coder, Coder]:
    """Both sides of a whole exchange, after checking every size that is promised."""
    limit = payload_limit(x.parameters, len(x.x) - x.parameters)
    a, b = coder(name, x), coder(name, y)
    assert len(a.scales()) == scales_size(name, x.parameters)
    a.open(b.scales(), NONCES)
    b.open(a.scales(), NONCES)
    total = len(a.scales())
    assert a.pending
    while a.pending:
        assert b.pending
        assert a.layer_size() == b.layer_size()
        from_a, from_b = bytes(a.write()), bytes(b.write())
        assert len(from_a) == a.layer_size()
        a.read(from_b)
        b.read(from_a)
        total += len(from_a)
    assert not b.pending
    assert total <= limit
    return a, b


@settings(max_examples=150)
@given(CODECS, SIZES, st.sampled_from([1e-6, 0.01, 1.0, 1e4]), st.integers(0, 2**32 - 1))
def test_both_sides_move_by_exact_opposites(
    name: str, sizes: tuple[int, int], apart: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, sum(sizes))).astype(np.float32) * np.float32(apart)
    x[: sizes[0] // 2] = 0
    a, b = exchanged(name, side(x, sizes[0]), side(y, sizes[0]))
    assert outcome(a)[0] == outcome(b)[0]
    assert a.undecoded == b.undecoded
    assert np.array_equal(outcome(a)[1], outcome(b)[1])
    # Into zeros, so that the additions themselves do not round.
    for weights in ((0.5, 0.5), (0.2, 0.0), (0.0, 0.3)):
        moved = [np.zeros_like(x), np.zeros_like(x)]
        a.apply(moved[0], weights)
        b.apply(moved[1], weights)
        assert np.array_equal(moved[0], -moved[1])
        assert np.array_equal(moved[0][sizes[0] :], (y - x)[sizes[0] :] * np.float32(weights[1])), (
            "buffers are exact"
        )
        if name == "f32":
            assert np.array_equal(
                moved[0][: sizes[0]], (y - x)[: sizes[0]] * np.float32(weights[0])
            )


@settings(max_examples=50)
@given(CODECS, SIZES, st.sampled_from([0.02, 1.0, 50.0]), st.integers(0, 2**32 - 1))
def test_the_differences_of_some_blocks_are_what_would_be_applied(
    name: str, sizes: tuple[int, int], apart: float, seed: int
) -> None:
    """Deep blocks, a partial last one and skipped ones included."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(sum(sizes)).astype(np.float32)
    y = x + np.float32(apart) * rng.standard_normal(len(x)).astype(np.float32)
    a, _ = exchanged(name, side(x, sizes[0]), side(y, sizes[0]))
    whole = np.zeros_like(x)
    a.apply(whole, (1.0, 1.0))
    blocks = quantiser.blocks_in(sizes[0])
    some = np.flatnonzero(rng.random(blocks) < 0.7)
    assert np.array_equal(a.differences(some), quantiser.gathered(whole[: sizes[0]], some))


@settings(max_examples=50)
@given(CODECS, SIZES, st.integers(0, 2**32 - 1))
def test_distances_and_largest_are_of_the_whole_difference(
    name: str, sizes: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(sum(sizes)).astype(np.float32)
    y = x + rng.standard_normal(sum(sizes)).astype(np.float32) * np.float32(0.05)
    a, _ = exchanged(name, side(x, sizes[0], 0.001), side(y, sizes[0], 0.001))
    assert a.undecoded == 0.0
    true = (y - x).astype(np.float64)
    noise = 0.001 * np.sqrt(sizes[0])
    assert outcome(a)[0][0] == pytest.approx(np.linalg.norm(true[: sizes[0]]), rel=1e-5, abs=noise)
    assert outcome(a)[0][1] == pytest.approx(np.linalg.norm(true[sizes[0] :]), rel=1e-5)
    assert np.allclose(outcome(a)[1], quantiser.block_max((y - x)[: sizes[0]]), atol=0.001)


def test_f32_reads_into_the_vector_itself() -> None:
    x, y = np.arange(6, dtype=np.float32), np.full(6, 10, np.float32)
    a, _ = exchanged("f32", side(x, 4), side(y, 4))
    assert np.array_equal(outcome(a)[1], [10])
    a.apply(x, (0.5, 1.0))
    assert np.array_equal(x, [5, 5.5, 6, 6.5, 10, 10])


def test_a_difference_beyond_float32_is_infinitely_far() -> None:
    x = np.full(3, -3e38, np.float32)
    a, _ = exchanged("f32", side(x, 2), side(-x, 2))
    assert outcome(a)[0] == (float("inf"), float("inf"))


@pytest.mark.parametrize("parameters", [0, 1, 64, 1_000_000])
def test_the_wire_size_formula(parameters: int) -> None:
    blocks = -(-parameters // 64)
    assert scales_size("mod4", parameters) == 2 * blocks
    assert scales_size("f32", parameters) == 0
    assert payload_limit(parameters, 0) == max(4 * parameters, (2 + 3 * 33) * blocks) + 4
    assert payload_limit(parameters, 7) >= payload_limit(parameters, 0)


def test_an_unknown_codec_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="top-k"):
        coder("top-k", side(np.zeros(3, np.float32), 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["mod4", "f32"])
def test_a_value_that_is_not_finite_is_malformed(name: str, bad: float) -> None:
    x = np.zeros(70, np.float32)
    a, b = coder(name, side(x, 64)), coder(name, side(x, 64))
    a.open(b.scales(), NONCES)
    b.open(a.scales(), NONCES)
    a.write()
    layer = bytearray(b.write())
    layer[-4:] = np.float32(bad).tobytes()
    with pytest.raises(Malformed, match="not finite"):
        a.read(layer)


@pytest.mark.parametrize("name", ["mod4", "f32"])
@pytest.mark.parametrize("change", [-1, 1])
def test_any_other_size_is_malformed(name: str, change: int) -> None:
    x = np.zeros(70, np.float32)
    a = coder(name, side(x, 64))
    with pytest.raises(Malformed):
        a.open(bytes(scales_size(name, 64) + 2 * change * (name == "mod4") + (name == "f32")), b"")
    a.open(bytes(scales_size(name, 64)), NONCES)
    a.write()
    with pytest.raises(Malformed):
        a.read(bytes(a.layer_size() + change))


def test_the_nonces_decide_the_dither() -> None:
    x = np.zeros(64, np.float32)
    y = np.full(64, 0.3, np.float32)
    layers = set()
    for nonces in (b"a", b"a", b"b"):
        a = Mod4(side(y, 64, 10.0))
        a.open(Mod4(side(x, 64)).scales(), nonces)
        layers.add(bytes(a.write()))
    assert len(layers) == 2


def test_hostile_bytes_raise_remote_errors_only() -> None:
    """Random and mutated payloads: refused, or decoded to something finite and bounded."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(200).astype(np.float32)
    honest = side(x, 150)
    limit = payload_limit(150, 50)
    for number in range(FUZZ):
        name = "mod4" if number % 3 else "f32"
        mine, theirs = coder(name, honest), coder(name, side(x + np.float32(0.01), 150))
        try:
            mine.open(mutated(rng, theirs.scales()), NONCES)
            while mine.pending:
                mine.write()
                size = mine.layer_size()
                assert size <= limit
                mine.read(mutated(rng, rng.bytes(size) if number % 2 else bytes(size)))
        except RemoteError:
            continue
        finally:
            assert np.isfinite(honest.x).all()
        distances, largest = mine.outcome(honest.scales * RANGE_PER_SCALE)
        assert np.isfinite(largest).all()
        assert not np.isnan(distances).any()


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """``data`` with a few bytes changed, and now and then of another length."""
    out = bytearray(data)
    for _ in range(int(rng.integers(0, 4)) if out else 0):
        out[int(rng.integers(len(out)))] = int(rng.integers(256))
    kind = rng.integers(20)
    if kind == 0:
        out = out[: int(rng.integers(len(out) + 1))]
    elif kind == 1:
        out += rng.bytes(int(rng.integers(1, 9)))
    return bytes(out)


def test_the_codecs_are_the_ones_a_config_may_name() -> None:
    assert {codecs.F32.name, codecs.Mod4.name} == {"f32", "mod4"}
