"""The daemon: builds the parts, runs them together, and stops them on a signal."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Coroutine
from dataclasses import replace
from importlib.metadata import version as installed_version
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from covey.gossip import config as gossip
from covey.gossip.membership import Config as MembershipConfig
from covey.gossip.membership import Membership
from covey.node import interfaces, store
from covey.node.addresses import AddressBook, Source, format_address
from covey.node.api import Api
from covey.node.checkpoints import Checkpoints
from covey.node.desk import Desk
from covey.node.events import EventLog
from covey.node.faults import OperatorError
from covey.node.handout import Handout
from covey.node.home import (
    Home,
    Ports,
    load_or_create_token,
    load_ports,
    save_ports,
    write_atomically,
)
from covey.node.host import Host, Parts
from covey.node.learner_link import LearnerLink
from covey.node.ledger import Ledger
from covey.node.metrics import Metrics
from covey.node.neighbours import Neighbours
from covey.node.notify import Notifier
from covey.node.overview import Facts, Overview
from covey.node.peer_server import PeerServer
from covey.node.report import DiscoveryReport, PeerReport, StatusReport
from covey.node.settings import PEER_PORT, Settings
from covey.node.tls import Credentials
from covey.node.transport import Transport
from covey.protocols import PROTOCOL, invite, limits
from covey.protocols.certificates import swarm_id
from covey.protocols.envelope import Sealer
from covey.protocols.messages import Phase, Standing

if TYPE_CHECKING:
    from covey.node.discovery import Discovery

log = logging.getLogger(__name__)

_STOP_S = 9.0  # from the first signal to the end, whatever hangs
_SAVE_PEERS_S = 30.0


def run(
    settings: Settings, home: Home, script: list[str] | None = None, until_eof: bool = False
) -> int:
    """Run a node, and ``script`` as its learner, until a signal or the script's end.

    ``until_eof``: also until standard input closes.  Returns the exit code.  Raises OperatorError.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    with home.lock():
        return asyncio.run(_run(settings, home, script, until_eof))


async def _run(settings: Settings, home: Home, script: list[str] | None, until_eof: bool) -> int:
    node = Daemon(settings, home)
    _handle_signals(node)
    try:
        await node.start()
        return await node.serve(script, until_eof)
    finally:
        await node.close()


def _handle_signals(node: "Daemon") -> None:
    """The first signal stops in order, the second at once."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        node.interrupted = number == signal.SIGINT
        node.stop(now=node.stopping)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)


class Daemon:
    """One running node.  Implements api.Control."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self.settings = settings
        self.home = home
        self.events = EventLog()
        self.metrics = Metrics()
        self.token = load_or_create_token(home)
        self.stopping = False
        self.interrupted = False  # by the terminal, whose Ctrl-C reaches the script as well
        self._notifier = Notifier()
        self._stop = asyncio.Event()
        self._listening = False
        self._identity = store.load_or_create_identity(home)
        known = store.load_swarm(home)
        self._swarm = known or store.create_swarm(home, settings.swarm)
        self._created = known is None
        self._instance = secrets.token_bytes(16)
        self._ledger = Ledger()
        self._credentials = Credentials(self._identity, self._swarm.secret, self._ledger)
        self._build()

    def _build(self) -> None:
        """Everything that needs no socket."""
        settings, me = self.settings, self._identity.peer
        rng = SystemRandom()
        membership = Membership(me, self._instance, MembershipConfig(), rng)
        self._book = AddressBook(me, rng)
        self._neighbours = Neighbours(
            membership,
            self._book,
            Transport(self._credentials),
            lambda: self._desk.standing(),
            self.events,
            self.metrics,
        )
        handout = Handout(self.home.state / "handout")
        self._host = Host(
            Parts(
                me=me,
                swarm=swarm_id(self._swarm.secret),
                sealer=Sealer(self._identity, self._instance),
                config=_learning(settings),
                neighbours=self._neighbours,
                events=self.events,
                metrics=self.metrics,
                checkpoints=Checkpoints(self.home.checkpoints, settings.checkpoint_keep),
                handout=handout,
                checkpoint_every_s=settings.checkpoint_every_s,
            )
        )
        self._neighbours.compare_with(lambda: self._host.layout)
        self._neighbours.on_death = self._host.peer_died
        card = Standing(
            instance=self._instance,
            name=settings.name,
            version=installed_version("covey"),
            protocol=PROTOCOL,
            port=0,
            addresses=(),
            phase=Phase.IDLE,
        )
        self._desk = Desk(card, self._host, self._neighbours, handout)
        self._server = PeerServer(self._credentials, self._desk)
        self._link = LearnerLink(
            self.home.link_socket, self.home.maps, self._host, self._identity.peer.short
        )
        self._api = Api(self, settings)
        self._discovery: Discovery | None = None  # once it has started

    # --- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen everywhere.  Discovery goes on in the background.  Raises OperatorError."""
        remembered, settings = load_ports(self.home), self.settings
        port = await self._listen(remembered)
        addresses = await asyncio.to_thread(_addresses, settings.listen.host, port)
        self._desk.card = replace(self._desk.card, port=port, addresses=addresses)
        self._learn_addresses()
        api_port = await self._api.start(self.home.api_socket, remembered.api)
        save_ports(self.home, Ports(port, api_port))
        await self._link.start()
        facts = Facts(
            id=self._identity.peer.text,
            name=settings.name,
            instance=self._instance.hex(),
            version=self._desk.card.version,
            home=self.home.root,
            swarm_id=swarm_id(self._swarm.secret),
            swarm_name=self._swarm.name,
            codec=settings.codec,
            listen=f"{settings.listen.host}:{port}",
            api=f"{settings.api.host}:{api_port}",
            addresses=self._desk.card.addresses,
        )
        self._overview = Overview(facts, self._host, self._neighbours, self._ledger)
        self._listening = True
        self.events.emit("node.started", id=facts.id, listen=facts.listen, api=facts.api)
        self._notifier.ready(self._one_line())
        self._greet(facts)

    async def serve(self, script: list[str] | None, until_eof: bool) -> int:
        """Run until ``stop``; with a script until its end, whose exit code is returned."""
        watchers: list[Coroutine[Any, Any, None]] = [
            self._neighbours.run(),
            self._host.keep(),
            self._discover(),
            self._remember(),
            self._notifier.watch(),
        ]
        if until_eof:
            watchers.append(self._watch_stdin())
        exit_code = 0
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in watchers]
            if script:
                exit_code = await self._supervise(script)
            else:
                await self._stop.wait()
            self.stopping = True
            for task in tasks:
                task.cancel()
        return exit_code

    async def _supervise(self, script: list[str]) -> int:
        from covey.node.supervisor import Supervisor

        environ = {
            **os.environ,
            "COVEY_HOME": str(self.home.root),
            "COVEY_SUPERVISED": str(os.getpid()),
        }
        supervisor = Supervisor(self.events.emit, lambda: bool(self._host.lineage.founder))
        learner = asyncio.create_task(supervisor.run(script, environ))
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({learner, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not learner.done():
            await supervisor.stop(self.interrupted)
        return await learner

    async def close(self) -> None:
        """Say goodbye, save, stop listening: within _STOP_S, whatever hangs."""
        self.stopping = self._desk.leaving = True
        self._notifier.stopping()
        asyncio.get_running_loop().call_later(_STOP_S, _give_up)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._neighbours.leave(self._desk.standing())
        await self._link.close()
        await self._host.close()
        if self._discovery is not None:
            await self._discovery.close()
        self._save_peers()
        await self._neighbours.close()
        await self._server.close()
        await self._api.close()

    # --- api.Control -----------------------------------------------------------------------------

    def status(self) -> StatusReport:
        if self._discovery is not None:
            status = self._discovery.status
            self._overview.discovery = DiscoveryReport(status.state, status.detail)
        return self._overview.status()

    def peers(self) -> list[PeerReport]:
        return self._overview.peers()

    def checks(self) -> dict[str, str]:
        ok = "ok" if self._listening else "starting"
        leaving = "ok" if not self.stopping else "leaving"
        return {"identity": "ok", "listen": ok, "membership": leaving}

    def version(self) -> dict[str, str]:
        card = self._desk.card
        python = sys.version.split()[0]
        return {"version": card.version, "protocol": str(card.protocol), "python": python}

    async def add_peer(self, address: str) -> None:
        self._book.learn(address, Source.STATIC, time.monotonic())

    def invite(self, expires_s: int) -> str:
        expires = int(time.time()) + expires_s if expires_s else 0
        addresses = self._desk.card.addresses
        return invite.Invite(self._swarm.name, self._swarm.secret, addresses, expires).text

    def stop(self, now: bool) -> None:
        if now:
            _give_up()
        self.stopping = True
        self._stop.set()

    # --- inside ----------------------------------------------------------------------------------

    async def _listen(self, remembered: Ports) -> int:
        """The peer port: as set, else the remembered or usual one, else any that is free."""
        host, port = self.settings.listen.host, self.settings.listen.port
        if port is not None:
            return await self._server.start(host, port)
        for candidate in (remembered.peer or PEER_PORT, 0):
            try:
                return await self._server.start(host, candidate)
            except OperatorError:
                if not candidate:
                    raise
        raise AssertionError("a free port was asked for last")

    def _learn_addresses(self) -> None:
        now = time.monotonic()
        for address in (*self.settings.peers, *self._swarm.addresses):
            self._book.learn(address, Source.STATIC, now)
        with contextlib.suppress(FileNotFoundError, ValueError):  # only a hint
            self._book.restore(json.loads(self.home.peers_file.read_bytes()), now)

    def _save_peers(self) -> None:
        try:
            plain = json.dumps(self._book.plain()).encode()
            write_atomically(self.home.peers_file, plain + b"\n")
        except OperatorError as error:
            log.warning("the peers' addresses are not kept: %s", error)

    async def _remember(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_PEERS_S)
            self._save_peers()
            self._notifier.status(self._one_line())

    async def _discover(self) -> None:
        """Announce this node and look for others, where the network lets us."""
        if not self.settings.mdns:
            return
        from covey.node.discovery import Announcement, Discovery  # zeroconf is slow to import

        announcement = Announcement(
            self._identity.peer,
            swarm_id(self._swarm.secret),
            self.settings.listen.host,
            self._desk.card.port,
        )
        self._discovery = Discovery(announcement, self._found)
        self._discovery.start()

    def _found(self, addresses: tuple[str, ...], peer_prefix: str) -> None:
        """mDNS names addresses: hints, for whom it claims to be is proven only by dialling."""
        now = time.monotonic()
        for address in addresses:
            self._book.learn(address, Source.MDNS, now)

    async def _watch_stdin(self) -> None:
        """Stop when whoever started us has gone."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while await reader.read(4096):
            pass
        self.stop(now=False)

    def _one_line(self) -> str:
        """For ``systemctl status``."""
        status = self.status()
        training, swarm = status.training, status.swarm
        return f"{training.state}, step {training.step}, {swarm.alive} of {swarm.members} alive"

    def _greet(self, facts: Facts) -> None:
        """On standard error: standard output belongs to the script."""
        lines = [
            f"covey {facts.version}: node {facts.name} ({self._identity.peer.short}) of swarm "
            f"{facts.swarm_name!r}, status at http://{facts.api}/api/v1/status"
        ]
        if self._created:
            lines += [
                "A new swarm.  On each further machine, once:",
                f"    covey join {self.invite(0)}",
            ]
        print("\n".join(lines), file=sys.stderr, flush=True)


def _learning(settings: Settings) -> gossip.Config:
    """Raises OperatorError for an outer step that would diverge."""
    try:
        outer = gossip.OuterStep(settings.outer_momentum, settings.outer_rate)
        return gossip.Config(codec=settings.codec, exchanges=settings.exchanges, outer=outer)
    except ValueError as error:
        raise OperatorError(str(error), "correct outer_momentum or outer_rate") from error


def _addresses(host: str, port: int) -> tuple[str, ...]:
    """Where peers may reach a node that listens on ``host``."""
    found = interfaces.reachable(interfaces.survey(), host)
    return tuple(format_address(i.address, port) for i in found[: limits.ADDRESSES_PER_PEER_MAX])


def _give_up() -> None:
    """End at once: what must not be lost is on disk already."""
    log.warning("stopping without a goodbye")
    os._exit(1)
