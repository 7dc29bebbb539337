"""A running node as its API shows it: real sockets, a made-up daemon behind them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest

from covey.node.api import Api
from covey.node.events import EventLog
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.metrics import Metrics
from covey.node.report import (
    AddressReport,
    NodeReport,
    PeerReport,
    StatusReport,
    SwarmReport,
    TrainingReport,
    WarningReport,
)
from covey.node.settings import Endpoint, Settings
from covey.node.throttle import Limits
from tests.node.waiting import PATIENCE_S

hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")

SWARM = SwarmReport("abcd", "lab", members=2, alive=2)
TRAINING = TrainingReport("training", step=18420, loss=1.83, parameters=1000)


def status_report(*warnings: WarningReport) -> StatusReport:
    node = NodeReport("AAAAAAA-BBBBBBB", "one", "00ff", "0.1.0", 12.5, 42, "/home")
    return StatusReport(node, SWARM, TRAINING, warnings=warnings)


@dataclass
class FakeControl:
    """The daemon as the API sees it.  Methods run on the loop; fields are read by the test."""

    events: EventLog = field(default_factory=EventLog)
    metrics: Metrics = field(default_factory=Metrics)
    token: str = "t" * 43
    limits: Limits = field(default_factory=Limits)
    warnings: tuple[WarningReport, ...] = ()
    readiness: dict[str, str] = field(default_factory=lambda: {"identity": "ok", "listen": "ok"})
    added: list[str] = field(default_factory=list)
    invited: list[int] = field(default_factory=list)
    stopped: list[bool] = field(default_factory=list)
    on_stop: Callable[[], None] = lambda: None

    def status(self) -> StatusReport:
        return status_report(*self.warnings)

    def peers(self) -> list[PeerReport]:
        address = AddressReport("10.0.0.2:17700", ok=True, source=("mdns",))
        alive = PeerReport(
            "CCCCCCC-DDDDDDD",
            "two",
            "alive",
            ("mdns",),
            (address,),
            rtt_s=0.002,
            step=18402,
            lag=18,
        )
        silent = AddressReport("10.0.0.9:1", ok=False, source=("static",), last_error="refused")
        return [alive, PeerReport("", "", "unverified", ("static",), (silent,))]

    def checks(self) -> dict[str, str]:
        return self.readiness

    def version(self) -> dict[str, str]:
        return {"version": "0.1.0"}

    async def add_peer(self, address: str) -> None:
        if address.startswith("full"):
            raise OperatorError("too many peers", "remove some")
        if address.startswith("bug"):
            raise KeyError("a bug")
        self.added.append(address)

    def invite(self, expires_s: int) -> str:
        self.invited.append(expires_s)
        return "covey1-fake"

    def stop(self, now: bool) -> None:
        self.stopped.append(now)
        self.on_stop()


@dataclass
class FakeNode:
    """A locked home whose API answers, with its loop in a thread of its own."""

    home: Home
    control: FakeControl
    loop: asyncio.AbstractEventLoop
    port: int = 0

    def emit(self, type: str, **data: object) -> None:
        """Add an event, from the test's thread."""
        done = threading.Event()

        def add() -> None:
            self.control.events.emit(type, **data)
            done.set()

        self.loop.call_soon_threadsafe(add)
        assert done.wait(PATIENCE_S)


@contextmanager
def running(home: Home, settings: Settings) -> Iterator[FakeNode]:
    """Serve the API of ``home`` until the block ends or somebody asks the node to stop."""
    started: list[FakeNode | BaseException] = []
    up, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        node = FakeNode(home, FakeControl(on_stop=stop.set), asyncio.get_running_loop())
        api = Api(node.control, settings)
        try:
            node.port = await api.start(home.api_socket)
        except BaseException as error:
            started.append(error)
            raise
        else:
            started.append(node)
            up.set()
            await stop.wait()
        finally:
            await api.close()
            up.set()

    def run() -> None:
        with home.lock({}):
            try:
                asyncio.run(serve())
            except OperatorError:
                assert isinstance(started[0], OperatorError)  # the test gets it

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(PATIENCE_S)
        node = started[0]
        if isinstance(node, BaseException):
            raise node
        yield node
    finally:
        if isinstance(started[0], FakeNode):
            with suppress(RuntimeError):  # its loop has ended already
                started[0].loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find(tmp_path / "home", {})


@pytest.fixture
def settings() -> Settings:
    return Settings(api=Endpoint("127.0.0.1", 0), api_hosts=("studio.lan",))


@pytest.fixture
def node(home: Home, settings: Settings) -> Iterator[FakeNode]:
    with running(home, settings) as node:
        yield node


@pytest.fixture
def run_node() -> Callable[..., object]:
    return running
