"""Finds addresses of peers on the local network by mDNS (RFC 6762), and says whether that can work.

mDNS is a hint and nothing more: anybody may announce anything, and the crashed stay announced for
an hour.  Identity is proven by dialing, liveness by our own probes.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import zeroconf
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from covey.node import interfaces
from covey.node.announcement import SERVICE, Announcement, Claim, claim, records
from covey.node.ear import Ear
from covey.node.interfaces import Interface
from covey.node.tasks import Tasks
from covey.protocols import limits

__all__ = ["Announcement", "Discovery", "State", "Status"]

TEST_S = 4.0  # until an announcement that has not come back will not
RETEST_S = 60.0
RESCAN_S = 15.0  # between looks at the interfaces
REMIND_S = 300.0  # between tellings of what is still announced
RETRY_S = 30.0
SLEEP_S = 30.0  # a gap between wall and monotonic clock that means the machine slept
GOODBYE_S = 1.0
RESOLVE_MS = 3000
_FIX = "name a peer with --peer HOST:PORT"

_log = logging.getLogger(__name__)

Found = Callable[[tuple[str, ...], str], None]


class State(StrEnum):
    STARTING = "starting"
    WORKING = "working"
    SILENT = "silent"  # our own announcement does not come back: no multicast here
    OFF = "off"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Status:
    """How discovery is doing: a state and one line for the operator."""

    state: State
    detail: str


class Discovery:
    """Announces this node and browses for others until closed.

    ``found`` gets the addresses of a node of the same swarm and the first group of the id it
    claims (or nothing); it is called again with the same ones now and then.
    """

    def __init__(self, announcement: Announcement, found: Found) -> None:
        self._announcement = announcement
        self._found = found
        self._status = Status(State.STARTING, "looking at the network interfaces")
        self._tasks = Tasks(self._failed)

    @property
    def status(self) -> Status:
        return self._status

    def start(self) -> None:
        """Begin in the background; nothing waits for it."""
        # What zeroconf logs with tracebacks, packet by packet, is told by the status in one line.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        self._tasks.spawn(self._run())

    async def close(self) -> None:
        """Say goodbye, within about a second."""
        await self._tasks.close()
        self._status = Status(State.OFF, "stopped")

    async def _run(self) -> None:
        """One session after another: a new one whenever the interfaces change."""
        while True:
            chosen = await self._choose()
            tasks = Tasks(self._failed)
            session = _Session(self._announcement, chosen, self._found, self._tell, tasks)
            try:
                try:
                    await session.open()
                except (OSError, zeroconf.Error) as error:
                    self._tell(State.FAILED, f"cannot use mDNS ({error}); {_FIX}")
                    await asyncio.sleep(RETRY_S)
                else:
                    await self._changed(chosen)
            finally:
                await session.close()

    def _tell(self, state: State, detail: str) -> None:
        if self._status.state is not state:
            level = logging.WARNING if state in (State.SILENT, State.FAILED) else logging.INFO
            _log.log(level, "discovery is %s: %s", state, detail)
        self._status = Status(state, detail)

    def _failed(self, bug: BaseException) -> None:
        """Discovery is a help only: the node goes on with the peers it is told of."""
        _log.critical("a bug in discovery", exc_info=bug)
        self._tell(State.FAILED, f"stopped by a bug ({bug!r}); {_FIX}")

    async def _choose(self) -> list[Interface]:
        found = await asyncio.to_thread(interfaces.survey)
        return interfaces.for_multicast(found, self._announcement.host)

    async def _changed(self, chosen: list[Interface]) -> None:
        """Wait until the interfaces are others, twice the same, or the machine has slept."""
        before = chosen
        skew = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(RESCAN_S)
            now = await self._choose()
            if now != chosen and now == before:
                _log.info("the network interfaces changed: %s", _names(now) or "none is up")
                return
            before = now
            if abs(time.time() - time.monotonic() - skew) > SLEEP_S:
                _log.info("the machine slept; announcing again")
                return


class _Session:
    """mDNS on a fixed set of interfaces, under a name of its own."""

    def __init__(
        self,
        announcement: Announcement,
        chosen: list[Interface],
        found: Found,
        tell: Callable[[State, str], None],
        tasks: Tasks,
    ) -> None:
        self._chosen = chosen
        self._found = found
        self._tell = tell
        self._swarm = announcement.swarm
        # Random: a stale cache elsewhere would refuse a name that is used again.
        self._label = f"{announcement.peer.short}-{secrets.token_hex(4)}".lower()
        self._records = records(announcement, self._label, chosen)
        self._claims: dict[str, Claim] = {}  # by service name
        self._resolving: set[str] = set()
        self._unheard = ""  # what to tell once somebody is heard
        self._tasks = tasks
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._ear: Ear | None = None

    async def open(self) -> None:
        """Announce and browse.  Raises OSError or zeroconf.Error."""
        if not self._chosen:
            raise OSError("no network interface is up")
        self._tell(State.STARTING, f"announcing on {_names(self._chosen)}")
        self._ear = await Ear.open(self._chosen, self._label)
        self._zeroconf = AsyncZeroconf(
            interfaces=[interface.address for interface in self._chosen],
            ip_version=zeroconf.IPVersion.V4Only,
        )
        # The name is random, so the second of probing whether it is free can be left out.
        announcing = await self._zeroconf.async_register_service(
            self._records, cooperating_responders=True
        )
        self._tasks.spawn(_finish(announcing))
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE, handlers=[self._heard_of]
        )
        self._tasks.spawn(self._test(self._zeroconf, self._ear))
        self._tasks.spawn(self._remind())

    async def close(self) -> None:
        await self._tasks.close()
        if self._ear is not None:
            self._ear.close()
        if self._zeroconf is None:
            return
        try:
            async with asyncio.timeout(GOODBYE_S):
                if self._browser is not None:
                    await self._browser.async_cancel()
                await _finish(await self._zeroconf.async_unregister_service(self._records))
        except (TimeoutError, OSError, zeroconf.Error, KeyError) as error:
            _log.debug("no goodbye over mDNS: %r", error)  # KeyError: it never was registered
        with suppress(OSError, TimeoutError, zeroconf.Error):
            async with asyncio.timeout(GOODBYE_S):
                await self._zeroconf.async_close()

    async def _test(self, zero: AsyncZeroconf, ear: Ear) -> None:
        """Find out whether our own announcement comes back, and keep trying while it does not."""
        outside = [i for i in self._chosen if not i.loopback]
        while True:
            await ear.wait(TEST_S)
            heard = [i for i in outside or self._chosen if i.address in ear.own]
            if heard:
                break
            names = _names(outside or self._chosen)
            self._tell(State.SILENT, f"multicast does not come back on {names}{_why()}; {_FIX}")
            await asyncio.sleep(RETEST_S)
            with suppress(OSError, zeroconf.Error):
                await _finish(await zero.async_update_service(self._records))
        working = f"announced on {_names(heard)}"
        if not outside:
            self._tell(State.WORKING, f"{working}: finds the nodes of this machine only")
        else:
            self._tell(State.WORKING, working)
            await asyncio.sleep(TEST_S)
            if not ear.others and not self._claims:
                self._unheard = working
                self._tell(State.WORKING, f"{working}; no multicast of another machine so far")
        ear.close()

    async def _remind(self) -> None:
        """Tell again what is still announced, for addresses that were given up in between."""
        while True:
            await asyncio.sleep(REMIND_S)
            for known in list(self._claims.values()):
                self._found(known.addresses, known.prefix)

    def _heard_of(
        self,
        zeroconf: zeroconf.Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """zeroconf's news of a service; it passes them by these names."""
        if state_change is ServiceStateChange.Removed:
            self._claims.pop(name, None)
        elif (
            not name.lower().startswith(self._label)
            and name not in self._resolving
            and len(self._resolving) + len(self._claims) < limits.UNVERIFIED_MAX
        ):
            self._resolving.add(name)
            self._tasks.spawn(self._resolve(zeroconf, name))

    async def _resolve(self, zero: zeroconf.Zeroconf, name: str) -> None:
        """Ask for what is behind ``name`` and pass on the addresses of our swarm's nodes."""
        try:
            info = AsyncServiceInfo(SERVICE, name)
            if not await info.async_request(zero, RESOLVE_MS):
                return
        except (OSError, zeroconf.Error) as error:
            _log.debug("no sense in the mDNS service %r: %r", name, error)
            return
        finally:
            self._resolving.discard(name)
        known = claim(info, self._swarm)
        if known is not None:
            self._claims[name] = known
            if self._unheard:
                self._tell(State.WORKING, self._unheard)
                self._unheard = ""
            self._found(known.addresses, known.prefix)


async def _finish(announcing: Any) -> None:
    """Wait for what zeroconf's calls give back; awaited only once, a packet may never leave."""
    await announcing


def _names(chosen: list[Interface]) -> str:
    return ", ".join(map(str, chosen))


def _why() -> str:
    """What kind of machine this is, where that alone explains the silence."""
    if Path("/.dockerenv").exists():
        return " (a container's network passes none; --network host would)"
    with suppress(OSError):
        if "microsoft" in Path("/proc/version").read_text().lower():
            return " (WSL passes none unless its network is mirrored)"
    return " (a firewall, or a network that keeps its machines apart?)"
