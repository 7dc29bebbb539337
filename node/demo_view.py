"""What ``covey demo`` shows: a live table in a terminal, plain lines elsewhere, then the result."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_FIRST_LINE_S, _LINE_EVERY_S = 1.0, 5.0
_WIDE = 104  # columns; below, ids and some space are left out


@dataclass(frozen=True, slots=True)
class Row:
    """One node as its own HTTP API describes it, and how its script did without a swarm."""

    name: str
    id: str = ""  # short
    state: str = "starting"
    step: int = 0
    loss: float | None = None
    accuracy: float | None = None
    alone: float | None = None
    peers: int = 0  # alive
    found_by: str = ""
    exchanges: int = 0
    wire_bytes: int = 0
    raw_bytes: int = 0


class View:
    """Draws on ``console``; a context manager, so that the terminal is always left in order."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._started = time.monotonic()
        self._note = ""
        self._rows: tuple[Row, ...] = ()
        self._next_line = _FIRST_LINE_S
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=False)

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._started

    def note(self, text: str) -> None:
        """What is going on now, or something the operator should know."""
        self._note = text
        if self._live is None:
            self._console.print(f"{self.seconds:5.1f} s  {text}", highlight=False, soft_wrap=True)
        self.show(self._rows)

    def show(self, rows: Sequence[Row]) -> None:
        """The nodes as they are now."""
        self._rows = tuple(rows)
        if self._live is not None:
            self._live.update(self._drawing(), refresh=True)
        elif rows and self.seconds >= self._next_line:
            self._next_line = self.seconds + _LINE_EVERY_S
            words = "   ".join(_words(row) for row in rows)
            self._console.print(f"{self.seconds:5.1f} s  {words}", highlight=False, soft_wrap=True)

    def _drawing(self) -> Group:
        head = Text.assemble((self._title, "bold"), f"   {self.seconds:.0f} s", overflow="ellipsis")
        return Group(
            head,
            _live_table(self._rows, self._console.width >= _WIDE),
            Text(self._note, style="dim"),
        )

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        else:
            self._console.print(self._title, highlight=False, soft_wrap=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()


def result_table(rows: Sequence[Row]) -> Table:
    """Alone against together, node by node and on average."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("node", "alone", "together", "gain"):
        table.add_column(name, justify="left" if name == "node" else "right")
    for row in rows:
        table.add_row(row.name, _share(row.alone), _share(row.accuracy), _gain(row))
    mean = Row("mean", accuracy=mean_of(rows, "accuracy"), alone=mean_of(rows, "alone"))
    table.add_section()
    table.add_row("mean", _share(mean.alone), _share(mean.accuracy), _gain(mean), style="bold")
    return table


def mean_of(rows: Sequence[Row], field: str) -> float:
    """The mean of a field that every row has."""
    return sum(float(getattr(row, field)) for row in rows) / len(rows)


def _live_table(rows: Sequence[Row], wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1 if wide else 0), pad_edge=False)
    table.add_column("node", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=9)
    names = ("step", "loss", "alone", "accuracy", "peers", "exchanges", "sent", "of raw")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row.name} [dim]{row.id}[/]" if wide else row.name,
            _state(row.state),
            f"{row.step:,}" if row.step else "",
            f"{row.loss:.3f}" if row.loss is not None else "",
            _share(row.alone),
            f"[bold]{_share(row.accuracy)}[/]",
            f"{row.peers} {row.found_by}",
            f"{row.exchanges:,}",
            _size(row.wire_bytes),
            f"{row.wire_bytes / row.raw_bytes:.0%}" if row.raw_bytes else "",
        )
    return table


def _words(row: Row) -> str:
    if row.step:
        accuracy = f" acc {_share(row.accuracy)}" if row.accuracy is not None else ""
        return f"{row.name} step {row.step:,}{accuracy}"
    if row.alone is None:
        return f"{row.name} {row.state}"
    return f"{row.name} alone {_share(row.alone)}" + (
        f", {row.state}" if row.state != "alone" else ""
    )


def _state(state: str) -> str:
    waiting = dict.fromkeys(("starting", "idle", "alone", "loading"), "dim")
    colour = (waiting | {"training": "green", "settling": "cyan"}).get(state)
    return f"[{colour}]{state}[/]" if colour else state


def _share(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else ""


def _gain(row: Row) -> str:
    if row.accuracy is None or row.alone is None:
        return ""
    gain = row.accuracy - row.alone
    return f"[{'green' if gain > 0 else 'red'}]{gain:+.3f}[/]"


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
