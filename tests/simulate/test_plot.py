"""Pictures: drawn for one result or several, with what each line is."""

import struct
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covey.simulate.plot import plot
from covey.simulate.result import Point, Result


def result(rate: float, sent: float = 100.0) -> Result:
    points = []
    for k in range(1, 8):
        reached = 1 - np.exp(-rate * k)
        models = reached, reached - 0.1, reached + 0.01
        points.append(Point(10.0 * k, 50.0 * k, sent * k, *models, 1 / k, 0.9 / k, 1 / k))
    return Result((*points, replace(points[-1], apart=0.0)), 5.0, {}, 50)


def words(path: Path, names: dict[str, Result]) -> str:
    """What is written in the picture."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):  # as text, not as outlines
        plot(names, path)
    return " ".join(text.text or "" for text in ET.parse(path).iter() if text.tag.endswith("text"))


def test_a_png_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    plot({"pair": result(0.3)}, path)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 700


def test_several_results_are_named_and_what_sends_nothing_is_drawn_too(tmp_path: Path) -> None:
    results = {"pair 4-bit": result(0.3), "diloco": result(0.4, 1e5), "isolated": result(0.1, 0.0)}
    text = words(tmp_path / "out.svg", results)
    for name in results:
        assert name in text
    for axis in ("bytes per parameter", "local steps per node", "virtual s", "accuracy", "%"):
        assert axis in text


def test_loss_stands_for_accuracy(tmp_path: Path) -> None:
    made = result(0.3)
    nan = float("nan")
    points = tuple(replace(p, mean=nan, least=nan, averaged=nan) for p in made.points)
    text = words(tmp_path / "out.svg", {"pair": replace(made, points=points)})
    assert "loss" in text
    assert "accuracy" not in text


def test_nodes_that_never_differ_are_drawn(tmp_path: Path) -> None:
    made = result(0.3)
    alike = replace(made, points=tuple(replace(point, apart=0.0) for point in made.points))
    assert "distance to the average" in words(tmp_path / "out.svg", {"average": alike})


def test_faults_are_the_callers(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        plot({"pair": result(0.3)}, tmp_path / "nowhere" / "out.png")
    with pytest.raises(ValueError, match="odd"):
        plot({"pair": result(0.3)}, tmp_path / "out.odd")
