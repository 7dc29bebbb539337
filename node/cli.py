"""The ``covey`` command.

Exit codes: 0 ok, 1 error, 2 wrong usage, 3 no node runs here, 4 the node runs but is degraded, 130
interrupted; ``covey run`` gives the script's own.  Data goes to standard output, messages to
standard error.  Imports are inside the commands, so that each loads only what it needs.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from covey.gossip.config import ALGORITHMS
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.rate import Rate

if TYPE_CHECKING:
    from covey.node.client import Client

DEGRADED = 4
INTERRUPTED = 130
_STOP_S = 15.0  # a node says goodbye within 10 s
_UNITS_S = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
F = TypeVar("F", bound=Callable[..., Any])


def _duration(text: str) -> int:
    """Seconds; 0 for never."""
    match = re.fullmatch(r"(\d{1,6}) *([a-z]+)", text.lower())
    if text == "never":
        return 0
    if match is None or match[2] not in _UNITS_S:
        raise click.BadParameter(f"{text!r} is not a duration like 30min, 24h, 7d, or never")
    return int(match[1]) * _UNITS_S[match[2]]


def _rate(text: str) -> Rate:
    try:
        return Rate.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from error


def _examples(*lines: str) -> str:
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def _home_option(command: F) -> F:
    text = "Keep everything in this folder.  [default: COVEY_HOME, else the XDG folders]"
    return click.option("--home", "-H", metavar="FOLDER", help=text)(command)


def _json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _node_options(command: F) -> F:
    """What ``up`` and ``run`` share: each is a key of config.toml and COVEY_* too."""
    for option in reversed(
        (
            click.option("--name", help="Of this node.  [default: the machine's]"),
            click.option("--swarm", help="The name of a swarm that this start creates."),
            click.option(
                "--peer", "peers", metavar="HOST:PORT", multiple=True, help="A static peer; repeat."
            ),
            click.option("--listen", metavar="HOST:PORT", help="Where peers connect."),
            click.option("--api", metavar="HOST:PORT", help="Where the HTTP API is."),
            click.option("--no-mdns", is_flag=True, help="Do not look for peers on the network."),
            click.option("--up", metavar="RATE", help="Send at most e.g. 10mbit or 1.25MB/s."),
            click.option("--down", metavar="RATE", help="Receive at most so much."),
            click.option(
                "--algorithm",
                type=click.Choice(ALGORITHMS),
                help="Of learning together; the same on every node.",
            ),
            click.option("--codec", type=click.Choice(["mod4", "f32"]), help="f32 is exact."),
            click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"])),
            click.option("--fresh", is_flag=True, help="Set old checkpoints aside, begin anew."),
            click.option("--until-eof", is_flag=True, hidden=True),
        )
    ):
        command = option(command)
    return _home_option(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Machines that train one model together, with nobody in charge.

    \b
    On the first machine:    covey run train.py      (it prints the invite line)
    On each further one:     covey join covey1-…
                             covey run train.py
    To see it work at once:  covey demo

    Exit codes: 0 ok, 1 error, 2 wrong usage, 3 not running, 4 degraded.
    """


@cli.command(epilog=_examples("covey up", "covey up --no-mdns --peer 192.168.1.20:17700"))
@_node_options
def up(**options: Any) -> int:
    """Run a node alone.

    A script or notebook that calls covey.join() finds it.  The first start on a machine that knows
    no swarm creates one and prints the line that lets others join.  Ctrl-C ends it.
    """
    return _run_node(None, options)


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog=_examples("covey run train.py --epochs 3", "covey run --name studio train.py"),
)
@_node_options
@click.argument("script", metavar="SCRIPT.py")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def run(script: str, arguments: tuple[str, ...], **options: Any) -> int:
    """Run a node and a training script that learns through it.

    Options of covey go before the script's name, the script's own after it.  A script that crashes
    is started again and gets the node's state back.  The exit code is the script's.
    """
    if not os.path.isfile(script):
        raise OperatorError(f"there is no script {script}", "covey run PATH/TO/SCRIPT.py")
    return _run_node([sys.executable, script, *arguments], options)


@cli.command(epilog=_examples("covey join covey1-aebagbaf…", "covey join - < invite.txt"))
@click.argument("invite", metavar="INVITE")
@click.option("--force", is_flag=True, help="Leave another swarm for this one.")
@_home_option
@_json_option
def join(invite: str, force: bool, home: str | None, as_json: bool) -> None:
    """Become a member of a swarm, with the line that `covey invite` prints on another member."""
    from covey.node.store import load_swarm, save_swarm
    from covey.protocols.invite import parse

    text = sys.stdin.read() if invite == "-" else invite
    try:
        parsed = parse(text.strip().removeprefix("covey join"), time.time())
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        raise OperatorError(what, fix) from error
    place = Home.find(home, os.environ)
    known = None if force else load_swarm(place)
    if known is not None and known.secret == parsed.secret and place.holder() is not None:
        record = known  # its node has it already, and knows better addresses
    else:
        with place.lock():
            record = save_swarm(place, parsed, force)
    if as_json:
        click.echo(json.dumps({"swarm": record.name, "addresses": record.addresses}))
    else:
        start = f"`covey run{place.option} SCRIPT.py`"
        click.echo(f"a member of {record.name!r} now; start with {start}", err=True)


@cli.command(epilog=_examples("covey invite", "covey invite --expires never --json"))
@click.option("--expires", type=_duration, default="24h", show_default=True, help="Or never.")
@_home_option
@_json_option
def invite(expires: int, home: str | None, as_json: bool) -> None:
    """Print the line that lets another machine join.

    Whoever has it is a member: send it as you would a password.  From a running node it names the
    addresses where that node can be reached.
    """
    from covey.node.inviting import invite_line

    place = Home.find(home, os.environ)
    token = invite_line(place, expires)
    if as_json:
        expires_at = int(time.time()) + expires if expires else None
        click.echo(json.dumps({"token": token, "expires_at": expires_at}))
        return
    click.echo(f"covey join {token}")
    until = time.strftime("it expires on %d %B at %H:%M", time.localtime(time.time() + expires))
    click.echo(
        f"Whoever has this line is a member; {until if expires else 'it never expires'}.", err=True
    )


@cli.command(epilog=_examples("covey status", "covey status --json | jq .training.loss"))
@_home_option
@_json_option
def status(home: str | None, as_json: bool) -> int:
    """Show what the node does, with whom, and what is wrong.

    Exit codes: 0 ok, 3 not running, 4 degraded.
    """
    plain = _client(home).get("/api/v1/status")
    if as_json:
        click.echo(json.dumps(plain, indent=2))
    else:
        from covey.node import views

        views.print_status(views.console(), plain, time.time())
    return DEGRADED if plain["health"] != "ok" else 0


@cli.command(epilog=_examples("covey peers -v", "covey peers --json"))
@click.option("--verbose", "-v", is_flag=True, help="Also each address and what failed there.")
@_home_option
@_json_option
def peers(verbose: bool, home: str | None, as_json: bool) -> None:
    """List the peers and by what each was found.

    \b
    mdns        it announces itself on the network
    static      it was named here, by --peer or an invite
    peers       another member told of it, or it called
    remembered  it was there in an earlier run
    """
    plain = _client(home).get("/api/v1/peers")
    if as_json:
        click.echo(json.dumps(plain, indent=2))
    else:
        from covey.node import views

        views.print_peers(views.console(), plain["items"], verbose)


@cli.command(epilog=_examples("covey events -f", "covey events --type 'peer.*' --json"))
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until Ctrl-C.")
@click.option("--since", metavar="ID", type=click.IntRange(0), default=0, help="After this id.")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="E.g. peer.dead, 'train.*'.")
@_home_option
@_json_option
def events(
    follow: bool, since: int, types: tuple[str, ...], home: str | None, as_json: bool
) -> None:
    """Show what has happened; with --json a line of JSON each."""
    found = _client(home).events(since, types, follow)
    if as_json:
        for event in found:
            click.echo(json.dumps(event))
        return
    from covey.node import views

    out = views.console()
    for event in found:
        views.print_event(out, event)


@cli.command(epilog=_examples("covey limits", "covey limits --up 10mbit --down off"))
@click.option("--up", metavar="RATE", type=_rate, help="Send at most 10mbit, 1.25MB/s, …, or off.")
@click.option("--down", metavar="RATE", type=_rate, help="Receive at most so much.")
@_home_option
@_json_option
def limits(up: Rate | None, down: Rate | None, home: str | None, as_json: bool) -> None:
    """Show or change the bandwidth of exchanges and of copies of the model.

    A change holds at once, and until the node ends; --up and --down of `up` and `run`, or up and
    down in config.toml, are for good.  Probes and status are not counted and never wait.
    """
    change = {f"{way}_Bps": rate.json for way, rate in (("up", up), ("down", down)) if rate}
    client, path = _client(home), "/api/v1/limits"
    caps = client.patch(path, change) if change else client.get(path)
    if as_json:
        click.echo(json.dumps(caps))
    else:
        for way in ("up", "down"):
            click.echo(f"{way:<5}{Rate.of_json(caps[f'{way}_Bps'])}")


@cli.command(epilog=_examples("covey stop", "covey stop --now"))
@click.option("--now", is_flag=True, help="End it without a goodbye, even if it hangs.")
@_home_option
@_json_option
def stop(now: bool, home: str | None, as_json: bool) -> None:
    """Stop the node: it says goodbye to its peers and saves its state."""
    from covey.node.stopping import stop_node

    pid = stop_node(Home.find(home, os.environ), now, _STOP_S)
    if as_json:
        click.echo(json.dumps({"stopped": True, "pid": pid}))
    else:
        click.echo("stopped", err=True)


@cli.command(epilog=_examples("covey bench", "covey bench --parameters 124000000 --json"))
@click.option("--parameters", "-p", type=click.IntRange(1), help="[default: the node's model's]")
@_home_option
@_json_option
def bench(parameters: int | None, home: str | None, as_json: bool) -> None:
    """Measure exchanges here: arithmetic, the way to each peer, and what period suits them.

    With a node that runs, for its model and its peers; without one, this machine alone.
    """
    from covey.node.bench import print_found, run

    found = run(Home.find(home, os.environ), parameters)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        print_found(found)


@cli.command(epilog=_examples("covey demo", "covey demo --nodes 4 --json"))
@click.option("--nodes", "-n", type=click.IntRange(2, 16), default=3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the data's split.")
@_json_option
def demo(nodes: int, seed: int, as_json: bool) -> int:
    """Run a swarm on this machine: learning together against alone."""
    from covey.node.demo import run

    return run(nodes, as_json, seed)


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", metavar="[OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def simulate(arguments: tuple[str, ...]) -> None:
    """Simulate many nodes in one process, in virtual time."""
    # A program of its own: it needs torch, which a node never loads.
    argv = [sys.executable, "-P", "-m", "covey.simulate", *arguments]
    sys.stdout.flush()
    os.execv(sys.executable, argv)


@cli.command(epilog=_examples("covey version", "covey version --json"))
@_json_option
def version(as_json: bool) -> None:
    """Show the versions of covey, its protocol and Python, and what computes its exchanges."""
    from importlib.metadata import version as installed

    from covey.gossip.native import IN_USE
    from covey.protocols import PROTOCOL

    own, python = installed("covey"), ".".join(map(str, sys.version_info[:3]))
    found = {"version": own, "protocol": PROTOCOL, "python": python, "kernels": IN_USE}
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo(f"covey {own} (protocol {PROTOCOL}, Python {python})\nkernels: {IN_USE}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = cli.main(args, prog_name="covey", standalone_mode=False)
        sys.stdout.flush()
    except OperatorError as error:
        return _fail(error, "--json" in args and args[0] != "run")  # there it is the script's
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # e.g. `covey events | head`; nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _fail(error: OperatorError, as_json: bool) -> int:
    if as_json:
        code = getattr(error, "code", type(error).__name__)
        plain = {"code": code, "message": error.message, "hint": error.fix}
        click.echo(json.dumps({"error": plain}))
    click.echo(f"error: {error}", err=True)
    return error.exit_code


def _run_node(script: list[str] | None, options: dict[str, Any]) -> int:
    from covey.node.imports import lean

    with lean():
        from covey.node import daemon
        from covey.node.settings import load_settings
        from covey.node.store import set_checkpoints_aside

    home, until_eof = options.pop("home"), options.pop("until_eof")
    place = Home.find(home, os.environ)
    flags = options | {"mdns": False if options.pop("no_mdns") else None}
    fresh = flags.pop("fresh")
    settings = load_settings(place, flags, os.environ)
    if fresh:
        with place.lock():
            set_checkpoints_aside(place)
    return daemon.run(settings, place, script, until_eof)


def _client(home: str | None) -> "Client":
    from covey.node.client import Client

    return Client(Home.find(home, os.environ))
