"""The configuration: flag > ``COVEY_*`` > config.toml > default, as one frozen record.

Every key is a field of ``Settings``, in config.toml as ``peers = ["10.0.0.2:17700"]``, in the
environment as ``COVEY_PEERS=10.0.0.2:17700,10.0.0.3:17700``, on the command line as ``--peer``.
"""

import dataclasses
import difflib
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from covey.gossip.config import ALGORITHMS
from covey.node.faults import OperatorError, file_faults
from covey.node.home import Home
from covey.node.rate import OFF, Rate

PEER_PORT = 17700  # taken at the first start if it is free; what a start took is kept in ports.json
API_PORT = 17701
_LOG_LEVELS = ("debug", "info", "warning", "error")
_CODECS = ("mod4", "f32")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host, and a port or None for "the usual one, else any free one"; port 0 is any free one."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def parse(cls, text: str, default_host: str = "") -> "Endpoint":
        """Read ``host``, ``host:port``, ``:port``, ``[v6]`` or ``[v6]:port``; else ValueError."""
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::(\d{1,5}))?", text.strip())
        if match is None or (match[3] and int(match[3]) > 65535):
            raise ValueError(f"{text!r} is not host:port")
        host = match[1] or match[2] or default_host
        if match[1]:
            ipaddress.IPv6Address(match[1])
        elif not _HOST.fullmatch(host):
            raise ValueError(f"{text!r} is not host:port")
        return cls(host, int(match[3]) if match[3] else None)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not text")
    return value.strip()


def _texts(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise ValueError("is not a list of texts")
    return tuple(stripped for part in parts if (stripped := _text(part)))


def _peers(value: Any) -> tuple[str, ...]:
    peers = []
    for text in _texts(value):
        endpoint = Endpoint.parse(text)
        port = PEER_PORT if endpoint.port is None else endpoint.port
        if port == 0:
            raise ValueError(f"{text!r} has no port to call")
        peers.append(str(Endpoint(endpoint.host, port)))
    return tuple(dict.fromkeys(peers))


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("is neither true nor false")
    return words[value.lower()]


def _number(least: float, most: float, whole: bool = False) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        kinds = (str, int) if whole else (str, int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError("is not a whole number" if whole else "is not a number")
        number = int(value) if whole else float(value)
        if not least <= number <= most:
            raise ValueError(f"is not between {least:g} and {most:g}")
        return number

    return read


def _one_of(words: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return str(value)

    return read


def _name(value: Any) -> str:
    text = _text(value)
    if not 0 < len(text) <= 64 or not text.isprintable():
        raise ValueError("is not 1 to 64 printable characters")
    return text


def _rate(value: Any) -> Rate:
    return Rate.parse(_text(value))


def _endpoint(default_host: str) -> Callable[[Any], Endpoint]:
    return lambda value: Endpoint.parse(_text(value), default_host)


@dataclass(frozen=True)
class Settings:
    """What the operator may choose.  Times in seconds."""

    name: str = "node"  # of this node; load_settings takes the machine's name
    swarm: str = "covey"  # the name of a swarm that this node creates
    peers: tuple[str, ...] = ()  # static peers, host:port
    listen: Endpoint = Endpoint("0.0.0.0")  # where peers connect; mDNS follows
    api: Endpoint = Endpoint("127.0.0.1")  # the HTTP API
    api_hosts: tuple[str, ...] = ()  # further Host names the API answers to
    api_cert: str = ""  # PEM files; an API beyond loopback needs them
    api_key: str = ""
    mdns: bool = True  # find peers on the local network
    up: Rate = OFF  # the most that exchanges and copies of the model may send …
    down: Rate = OFF  # … and receive
    algorithm: str = "pair"  # of learning together; all nodes of a swarm need the same
    codec: str = "mod4"  # or f32, which is exact and eight times larger
    exchanges: int = 1  # proposed in each period
    pulls: int = 7  # see gossip.config.Config
    hostile_share: float = 0.2
    outer_momentum: float = 0.85  # see gossip.config.OuterStep
    outer_rate: float = 0.7
    checkpoint_every_s: float = 60.0
    checkpoint_keep: int = 3
    log_level: str = "info"


_READERS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "swarm": _name,
    "peers": _peers,
    "listen": _endpoint("0.0.0.0"),
    "api": _endpoint("127.0.0.1"),
    "api_hosts": _texts,
    "api_cert": _text,
    "api_key": _text,
    "mdns": _switch,
    "up": _rate,
    "down": _rate,
    "algorithm": _one_of(ALGORITHMS),
    "codec": _one_of(_CODECS),
    "exchanges": _number(1, 16, whole=True),
    "pulls": _number(1, 64, whole=True),
    "hostile_share": _number(0, 0.49),
    "outer_momentum": _number(0, 0.99),
    "outer_rate": _number(0.01, 2),
    "checkpoint_every_s": _number(1, 86400),
    "checkpoint_keep": _number(1, 1000, whole=True),
    "log_level": _one_of(_LOG_LEVELS),
}
KEYS = tuple(_READERS)
assert {entry.name for entry in dataclasses.fields(Settings)} == set(KEYS)


def load_settings(home: Home, flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Merge the four sources.  A flag that is None or () was not given.

    Raises OperatorError that names the source, the key and, for an unknown key, the nearest one.
    """
    given: dict[str, Any] = {"name": socket.gethostname().partition(".")[0][:64] or "node"}
    file = home.config_file
    for key, value in _read_file(home).items():
        if key not in _READERS:
            raise OperatorError(f"{file}: unknown key {key!r}{_nearest(key)}", f"edit {file}")
        given[key] = _read(key, value, f"{file}: {key}", f"edit {file}")
    for variable, text in environ.items():
        key = variable.removeprefix("COVEY_").lower()
        if not variable.startswith("COVEY_"):
            continue
        if key in _READERS:
            given[key] = _read(key, text, variable, f"unset or correct {variable}")
        elif close := difflib.get_close_matches(key, KEYS, 1, 0.8):
            # Only a near miss: container engines set names like COVEY_PORT of their own accord.
            raise OperatorError(
                f"unknown variable {variable}; did you mean COVEY_{close[0].upper()}?",
                f"unset {variable}",
            )
    for key, flag in flags.items():
        if flag is not None and flag != ():
            option = "--" + key.replace("_", "-")
            given[key] = _read(key, flag, option, "see `covey up --help`")
    return Settings(**given)


def _read(key: str, value: Any, source: str, fix: str) -> Any:
    try:
        return _READERS[key](value)
    except ValueError as error:
        raise OperatorError(f"{source} = {value!r}: {error}", fix) from error


def _read_file(home: Home) -> dict[str, Any]:
    with file_faults("read", home.config_file):
        try:
            text = home.config_file.read_bytes().decode()
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError as error:
            raise OperatorError(f"{home.config_file} is not UTF-8 text") from error
    import tomllib  # most homes have no such file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(
            f"{home.config_file} is not valid TOML: {error}", f"edit {home.config_file}"
        ) from error


def _nearest(key: str) -> str:
    close = difflib.get_close_matches(key, KEYS, 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else f"; the keys are {', '.join(KEYS)}"
