"""The command ``covey simulate``.

Exit codes: 0 ok, 1 error, 2 wrong usage, 130 interrupted.  The result goes to standard output,
messages and progress to standard error.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from covey.gossip.config import ALGORITHMS, Config, OuterStep
from covey.simulate.experiment import BASELINE_NAMES, Experiment, TaskError
from covey.simulate.result import Progress, Result, silently
from covey.simulate.scenario import ATTACKS, Attack, Churn, Cut, Network, Outer, Scenario
from covey.simulate.splits import Split

INTERRUPTED = 130
_EXTRA = {"torch", "sklearn", "mlxtend", "matplotlib"}  # what covey[simulate] brings
_PICTURES = (".png", ".svg", ".pdf")
_BITS = 8
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _value(read: Callable[[str], T]) -> Callable[[str], T]:
    """An option's type: what ``read`` makes of the text, or the ValueError's own words."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return convert


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _PICTURES:
        raise ValueError(f"{text!r} does not end in {' or '.join(_PICTURES)}")
    return path


def _flock(command: F) -> F:
    """What learns, and how."""
    positive = click.FloatRange(0, min_open=True)
    for option in reversed(
        (
            click.option("--nodes", type=click.IntRange(1), default=16, help="In the flock."),
            click.option("--periods", type=click.IntRange(1), default=60, help="To train."),
            click.option("--period", metavar="S", type=positive, default=2.0, help="Seconds each."),
            click.option(
                "--steps", type=click.IntRange(1), default=10, help="Local steps per period."
            ),
            click.option(
                "--task",
                metavar="TASK",
                default="digits",
                help="digits, mnist (a CNN on 5 000 images), text (a transformer on the standard "
                "library's sources), text:FILE, or consensus:SIZE (vectors without training).",
            ),
            click.option(
                "--split",
                metavar="SPLIT",
                type=_value(Split.parse),
                default="iid",
                help="Of the examples: iid, dirichlet:ALPHA, classes:K per node, sizes:RATIO of "
                "the largest share to the smallest, parts (contiguous).",
            ),
            click.option(
                "--algorithm",
                type=click.Choice([*ALGORITHMS, *BASELINE_NAMES]),
                default=Config().algorithm,
                help=f"Of covey: {', '.join(ALGORITHMS)}; the others are baselines.",
            ),
            click.option("--codec", type=click.Choice(["mod4", "f32"]), help="f32 is exact."),
            click.option(
                "--exchanges", type=click.IntRange(1), help="Proposed per period and node."
            ),
            click.option("--momentum", type=float, help="Of the outer step, in [0, 1)."),
            click.option("--rate", type=float, help="Of the outer step, above 0."),
            click.option("--no-settle", is_flag=True, help="End without settling."),
            click.option("--seed", type=click.IntRange(0), default=0, help="Of everything."),
        )
    ):
        command = option(command)
    return command


def _troubles(command: F) -> F:
    """What the flock has to cope with."""
    for option in reversed(
        (
            click.option(
                "--spread",
                metavar="RATIO",
                type=click.FloatRange(1),
                default=1.0,
                help="Speed of the fastest node over the slowest's; the mean stays.",
            ),
            click.option(
                "--latency",
                metavar="MS",
                type=click.FloatRange(0),
                default=1.0,
                help="Of each link, one way, in milliseconds.",
            ),
            click.option(
                "--bandwidth",
                metavar="MBIT",
                type=click.FloatRange(0, min_open=True),
                default=1000.0,
                help="Of each link and direction, in Mbit/s.",
            ),
            click.option(
                "--loss",
                metavar="SHARE",
                type=click.FloatRange(0, 1, max_open=True),
                default=0.0,
                help="Of exchanges whose connection breaks, in [0, 1).",
            ),
            click.option(
                "--churn",
                metavar="ON:OFF",
                type=_value(Churn.parse),
                help="Nodes go off and come back: mean times in seconds.",
            ),
            click.option(
                "--cut",
                metavar="BEGIN:END",
                type=_value(Cut.parse),
                help="Two halves are apart in this part of the run: shares, as 0.3:0.6.",
            ),
            click.option(
                "--attack",
                metavar="KIND[:SHARE]",
                type=_value(Attack.parse),
                help=f"SHARE of the nodes (default 0.2) lie: {', '.join(ATTACKS)}.  The others "
                "are measured.",
            ),
        )
    ):
        command = option(command)
    return command


_EPILOG = "\n".join(
    (
        "\b",
        "Examples:",
        "  covey simulate --split dirichlet:0.1 --exchanges 3",
        "  covey simulate --algorithm diloco --split dirichlet:0.1",
        "  covey simulate --nodes 64 --loss 0.3 --churn 30:10 --json",
        "  covey simulate --task text --split parts --nodes 8 --plot text.png",
    )
)


@click.command(
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@_flock
@_troubles
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the scenario, every point.")
@click.option(
    "--plot",
    metavar="FILE.png",
    type=_value(_picture),
    help="Draw accuracy against bytes, steps and time, and disagreement.",
)
def simulate(as_json: bool, plot: Path | None, **options: Any) -> None:
    """Simulate a flock in this process: covey's own algorithms, in virtual time.

    The nodes train in one batch and exchange over an imagined network; only clock, network and
    files are not real.  The same seed and version give the same result to the bit.
    """
    try:
        experiment = _experiment(options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    from covey.simulate import report

    draw = _drawing(plot)  # what is missing is missed before a long run, not after
    began = time.perf_counter()
    result = _run(experiment)
    draw(experiment, result)

    if as_json:
        click.echo(json.dumps(report.document(experiment, result), allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(report.table(experiment, result))
    click.echo(f"simulated in {time.perf_counter() - began:.1f} s", err=True)


def _experiment(options: dict[str, Any]) -> Experiment:
    """Raises ValueError."""
    algorithm, momentum, rate = (options[name] for name in ("algorithm", "momentum", "rate"))
    given = {"momentum": momentum, "rate": rate}
    given = {name: value for name, value in given.items() if value is not None}
    own = {name: options[name] for name in ("codec", "exchanges") if options[name] is not None}
    config, outer, baseline = Config(), None, ""
    if algorithm in ALGORITHMS:
        config = Config(algorithm=algorithm, outer=OuterStep(**given), **own)
    elif own:
        raise ValueError(f"{algorithm} is a baseline: it has no --{next(iter(own))}")
    else:
        baseline, outer = algorithm, Outer(**given) if given else None
    scenario = Scenario(
        nodes=options["nodes"],
        periods=options["periods"],
        period_s=options["period"],
        steps=options["steps"],
        spread=options["spread"],
        network=Network(
            options["latency"] / 1e3, options["bandwidth"] * 1e6 / _BITS, options["loss"]
        ),
        churn=options["churn"],
        cut=options["cut"],
        attack=options["attack"],
        config=config,
        settle=not options["no_settle"],
        seed=options["seed"],
    )
    return Experiment(scenario, options["task"], options["split"], baseline, outer)


def _run(experiment: Experiment) -> Result:
    try:
        run = experiment.prepare()
    except TaskError as error:
        raise click.BadParameter(str(error), param_hint="'--task'") from error
    with _shown(experiment.algorithm) as progress:
        return run(progress)


def _drawing(path: Path | None) -> Callable[[Experiment, Result], None]:
    """What draws a result to ``path``."""
    if path is None:
        return lambda experiment, result: None
    from covey.simulate.plot import plot

    def draw(experiment: Experiment, result: Result) -> None:
        try:
            plot({experiment.algorithm: result}, path)
        except OSError as error:
            raise click.FileError(str(path), error.strerror) from error

    return draw


@contextmanager
def _shown(name: str) -> Iterator[Progress]:
    """A bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield silently
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        simulate.main(argv, prog_name="covey simulate", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        click.echo(f"error: {error.name} is not installed; pip install 'covey[simulate]'", err=True)
        return 1
    return 0
