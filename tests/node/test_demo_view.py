"""What the demo shows: a table in a terminal, lines elsewhere, and the result."""

import io

import pytest
from rich.console import Console

from covey.node.demo_view import Row, View, mean_of, result_table

QUAIL = Row(
    name="quail",
    id="K7QX2MF",
    state="training",
    step=1234,
    loss=0.51234,
    accuracy=0.951,
    alone=0.612,
    peers=2,
    found_by="mdns",
    exchanges=41,
    wire_bytes=123_456,
    raw_bytes=987_648,
)
GROUSE = Row("grouse", state="loading", accuracy=0.949, alone=0.712)


def screen(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_gets_a_live_table() -> None:
    console = screen(terminal=True)
    with View(console, "the title") as view:
        view.note("they meet")
        view.show([QUAIL, Row("grouse")])
    text = written(console)
    for word in ("the title", "they meet", "quail", "K7QX2MF", "training", "1,234", "0.512"):
        assert word in text
    for word in ("0.951", "0.612", "2 mdns", "41", "123 kB", "12%", "grouse", "starting"):
        assert word in text


def test_a_pipe_gets_plain_lines() -> None:
    console = screen(terminal=False)
    with View(console, "the title") as view:
        view.note("they meet")
        view.show([QUAIL])
    lines = written(console).splitlines()
    assert lines[0] == "the title"
    assert lines[1].endswith(" s  they meet")
    assert len(lines) == 2, "the nodes are told every few seconds only"
    assert "\x1b" not in written(console)


def test_a_pipe_is_told_how_the_nodes_do_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    console = screen(terminal=False)
    monkeypatch.setattr("covey.node.demo_view._FIRST_LINE_S", 0.0)
    with View(console, "the title") as view:
        view.show([QUAIL, GROUSE, Row("chukar", state="alone")])
        view.show([QUAIL])  # soon after: no line
    said = "quail step 1,234 acc 0.951   grouse alone 0.712, loading   chukar alone"
    assert written(console).splitlines()[1].endswith(f" s  {said}")
    assert len(written(console).splitlines()) == 2


def test_the_result_compares_every_node_and_the_mean() -> None:
    console = screen(terminal=True)
    console.print(result_table([QUAIL, GROUSE]))
    rows = [line.replace("│", " ").split() for line in written(console).splitlines()]
    assert ["quail", "0.612", "0.951", "+0.339"] in rows
    assert ["grouse", "0.712", "0.949", "+0.237"] in rows
    assert ["mean", "0.662", "0.950", "+0.288"] in rows
    assert mean_of([QUAIL, GROUSE], "alone") == pytest.approx(0.662)
