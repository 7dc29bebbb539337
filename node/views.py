"""What ``status``, ``peers`` and ``events`` print for people, from the API's JSON."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from covey.node.rate import Rate

_STATE_STYLE = {
    "training": "bold green",
    "settling": "green",
    "joining": "cyan",
    "idle": "cyan",
    "paused": "yellow",
    "alive": "green",
    "suspect": "yellow",
    "dead": "red",
    "left": "dim",
    "unverified": "dim",
}
_FAMILY_STYLE = {"peer": "cyan", "train": "green", "merge": "green", "identity": "red"}
_SEVERITY_STYLE = {"info": "cyan", "warning": "yellow", "error": "bold red"}
_PIPE_COLUMNS = 200  # there is no edge to cut at
_WIDE_COLUMNS = 100  # below, tables do without some space
_AGREED, _APART = 0.02, 0.2  # relative distances


def console() -> Console:
    """Standard output.  Colour only in a terminal, and not with NO_COLOR; lines are never cut."""
    out = Console(highlight=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = _PIPE_COLUMNS
    return out


def print_status(out: Console, status: Mapping[str, Any], now: float) -> None:
    """One screen: what the node does, with whom, how well, and what is wrong.

    ``now`` is in seconds since the epoch.
    """
    node, swarm, net = status["node"], status["swarm"], status["net"]
    out.print("   ".join([f"[bold]{escape(swarm['name'])}[/]", *_training(status)]))
    out.print(
        f"this node   {escape(node['name'])} ({node['id'][:7]}), up {duration(node['uptime_s'])}, "
        f"version {escape(node['version'])}"
    )
    out.print(f"peers       {_counts(swarm)}; {_discovery(net['discovery'])}")
    out.print(f"exchanges   {_exchanges(status['exchange'], now)}")
    out.print(
        f"network     up {_flow(net, 'up_Bps')}, down {_flow(net, 'down_Bps')}; "
        f"peers connect to {escape(net['listen'])}, status at http://{escape(net['api'])}"
    )
    for warning in status["warnings"]:
        style = _SEVERITY_STYLE.get(warning["severity"], "yellow")
        hint = f"; {warning['hint']}" if warning["hint"] else ""
        out.print(f"[{style}]![/] {escape(warning['message'] + hint)}")


def print_peers(out: Console, peers: list[Mapping[str, Any]], verbose: bool) -> None:
    """A line per peer; with ``verbose`` also each address, where it was learned and what failed."""
    if not peers:
        out.print("no peers yet; `covey invite` prints the line for another machine")
        return
    narrow = out.width < _WIDE_COLUMNS
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 1))
    for title in ("id", "name", "state", "found by", "doing"):
        table.add_column(title, no_wrap=title not in ("name", "found by"))
    for title in ("step", "loss", "exchanges", "rtt", "silent"):
        table.add_column(title, justify="right", no_wrap=True)
    for peer in peers:
        table.add_row(*_peer_row(peer))
    out.print(table, soft_wrap=False, crop=False)
    for peer in peers:
        who = peer["name"] or peer["id"][:7]
        if peer["note"]:
            out.print(f"[yellow]![/] {escape(who)}: {escape(peer['note'])}")
        if verbose and peer["id"]:
            version = f"version {peer['version']}, instance {peer['instance'][:8]}"
            out.print(f"{escape(who)}  {escape(peer['id'])}  {escape(version)}")
        for address in peer["addresses"] if verbose else ():
            out.print(f"  {_address(address)}")


def print_event(out: Console, event: Mapping[str, Any]) -> None:
    """One line: when, what, and the data."""
    moment = datetime.datetime.fromisoformat(event["time"]).astimezone()
    style = _FAMILY_STYLE.get(event["type"].partition(".")[0], "default")
    known = {key: value for key, value in event["data"].items() if value not in ("", None)}
    data = "  ".join(f"{key}={_plain(value)}" for key, value in known.items())
    clock = moment.strftime("%H:%M:%S")
    out.print(f"{event['id']:>6}  {clock}  [{style}]{escape(event['type']):<20}[/]  {escape(data)}")


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min, 2 h 5 min, 3 d 4 h."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def size(count: float) -> str:
    """Bytes with a decimal unit: 0 B, 12.1 kB, 3.4 MB."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def _training(status: Mapping[str, Any]) -> list[str]:
    training, consensus = status["training"], status["consensus"]
    style = _STATE_STYLE.get(training["state"], "yellow")
    parts = [f"[{style}]● {escape(training['state'])}[/]"]
    if training["reason"]:
        parts[0] += f" ({escape(training['reason'])})"
    if training["parameters"]:
        median = training["swarm_step_median"]
        among = f" (swarm median {median:,.0f})" if median is not None else ""
        parts.append(f"step {training['step']:,}{among}")
    values = dict(training["values"])
    if training["loss"] is not None:
        values = {"loss": training["loss"], **values}
    parts += [f"{escape(name)} {value:.4g}" for name, value in values.items() if value is not None]
    if (distance := consensus["distance"]) is not None:
        word = "close" if distance < _AGREED else "far" if distance > _APART else "fair"
        parts.append(f"apart {distance:.2%} ({word})")
    return parts


def _counts(swarm: Mapping[str, Any]) -> str:
    others = [f"{swarm['alive'] - 1} alive"]  # this node is one of the alive
    others += [f"{swarm[state]} {state}" for state in ("suspect", "dead") if swarm[state]]
    return ", ".join(others)


def _discovery(discovery: Mapping[str, Any]) -> str:
    detail = f" ({discovery['detail']})" if discovery["detail"] else ""
    return escape(f"mDNS {discovery['state']}{detail}")


def _flow(net: Mapping[str, Any], way: str) -> str:
    cap = net["caps"].get(way)
    return f"{size(net[way])}/s" + (f" of {Rate(cap)}" if cap is not None else "")


def _exchanges(exchange: Mapping[str, Any], now: float) -> str:
    text = f"{exchange['exchanges']:,}"
    if exchange["last_merge"]:
        ago = now - datetime.datetime.fromisoformat(exchange["last_merge"]).timestamp()
        text += f", the last {duration(ago)} ago with {exchange['last_peer'] or 'a peer'}"
    if exchange["raw_bytes"]:
        sent, raw = exchange["wire_bytes_sent"], exchange["raw_bytes"]
        text += f"; sent {size(sent)} for {size(raw)} ({sent / raw:.1%})"
    if exchange["rejected"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in exchange["rejected"].items())
        text += f"; refused {reasons}"
    return escape(text)


def _peer_row(peer: Mapping[str, Any]) -> list[str]:
    style = _STATE_STYLE.get(peer["state"], "default")
    rtt, heard, loss = peer["rtt_s"], peer["heard_s"], peer["loss"]
    step = peer["step"]
    return [
        escape(peer["id"][:7] or "?"),
        escape(peer["name"] or ", ".join(address["addr"] for address in peer["addresses"])),
        f"[{style}]{escape(peer['state'])}[/]",
        escape(_found_by(peer["source"])),
        escape(peer["phase"]),
        f"{step:,}" if step is not None else "",
        f"{loss:.4g}" if loss is not None else "",
        f"{peer['exchanges']:,}",
        f"{rtt * 1000:.1f} ms" if rtt is not None else "",
        duration(heard) if heard is not None else "",
    ]


def _address(address: Mapping[str, Any]) -> str:
    result = {True: "[green]ok[/]", False: "[red]failed[/]", None: "[dim]not tried[/]"}
    why = (address["last_error"] or "").removeprefix(address["addr"]).lstrip(": ")
    error = f": {why}" if why else ""
    sources = _found_by(address["source"])
    return f"{escape(address['addr'])}  {result[address['ok']]}{escape(error)}  ({escape(sources)})"


def _found_by(sources: Sequence[str]) -> str:
    """In words of ``covey peers --help``; only ``exchange`` would need an explanation."""
    return ", ".join("peers" if source == "exchange" else source for source in sources)


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
