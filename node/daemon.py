"""The daemon: builds the parts, runs them together, and stops them on a signal."""

import asyncio
import contextlib
import importlib
import logging
import os
import secrets
import signal
import sys
import time
from dataclasses import replace
from importlib.metadata import version as installed_version
from random import SystemRandom
from typing import TYPE_CHECKING

from covey.gossip.membership import Config as MembershipConfig
from covey.gossip.membership import Membership
from covey.node import interfaces, remembered, store
from covey.node.addresses import AddressBook, Source, format_address
from covey.node.api import Api
from covey.node.checkpoints import Checkpoints
from covey.node.desk import Desk
from covey.node.endings import Deadline, end_of_input, give_up, on_signals
from covey.node.events import EventLog
from covey.node.faults import OperatorError, file_faults
from covey.node.handout import Handout
from covey.node.herald import Herald
from covey.node.home import Home, Ports, load_or_create_token, load_ports, save_ports
from covey.node.host import Host, Parts, learning_config
from covey.node.learner_link import LearnerLink
from covey.node.ledger import Ledger
from covey.node.metrics import Metrics
from covey.node.neighbours import Neighbours
from covey.node.notify import Notifier
from covey.node.overview import Facts, Overview, greeting
from covey.node.peer_server import PeerServer
from covey.node.report import DiscoveryReport, PeerReport, StatusReport
from covey.node.settings import PEER_PORT, Settings
from covey.node.tasks import Tasks
from covey.node.throttle import Limits
from covey.node.tls import Credentials
from covey.node.transport import Transport
from covey.protocols import PROTOCOL, invite, limits
from covey.protocols.certificates import swarm_id
from covey.protocols.envelope import Sealer
from covey.protocols.messages import Phase, Standing

if TYPE_CHECKING:
    from covey.node.discovery import Discovery

log = logging.getLogger(__name__)

_INTERRUPTED = 128 + signal.SIGINT  # as exit code
_STOP_S = 9.0  # from being told to end to the end, whatever hangs
_GOODBYE_S = 2.0
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
    deadline = Deadline(_STOP_S)

    async def live() -> int:
        node = Daemon(settings, home, deadline)
        on_signals(node.signalled)
        try:
            await node.start()
            code = await node.serve(script, until_eof)
        finally:
            await node.close()
        return node.verdict(code)

    try:
        with home.lock():
            return asyncio.run(live())
    finally:
        deadline.cancel()


class Daemon:
    """One running node.  Implements api.Control."""

    def __init__(self, settings: Settings, home: Home, deadline: Deadline | None = None) -> None:
        """``deadline`` begins when the node is told to leave."""
        self.settings = settings
        self.home = home
        self.events = EventLog()
        self.metrics = Metrics()
        self.token = load_or_create_token(home)
        self.limits = Limits(settings.up, settings.down)
        self.stopping = False
        self._interrupted = False  # by the terminal, whose Ctrl-C reaches the script as well
        self._deadline = deadline
        self._fault: BaseException | None = None  # why it ends by itself
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
            Transport(self._credentials, self.limits),
            lambda: self._desk.standing(),
            self.events,
            self.metrics,
            self.failed,
        )
        handout = Handout(self.home.handout)
        self._host = Host(
            Parts(
                me=me,
                swarm=swarm_id(self._swarm.secret),
                sealer=Sealer(self._identity, self._instance),
                config=learning_config(settings),
                neighbours=self._neighbours,
                events=self.events,
                metrics=self.metrics,
                checkpoints=Checkpoints(self.home.checkpoints, settings.checkpoint_keep),
                handout=handout,
                checkpoint_every_s=settings.checkpoint_every_s,
                on_bug=self.failed,
                bandwidth=self.limits,
            )
        )
        self._neighbours.compare_with(lambda: self._host.layout)
        self._neighbours.on_silence = self._host.peer_silent
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
        self._server = PeerServer(self._credentials, self._desk, self.failed, self.limits)
        self._link = LearnerLink(
            self.home.link_socket, self.home.maps, self._host, self._identity.peer.short
        )
        self._api = Api(self, settings)
        self._discovery: Discovery | None = None  # once it has started

    # --- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen everywhere.  Discovery goes on in the background.  Raises OperatorError."""
        ports, settings = load_ports(self.home), self.settings
        port = await self._listen(ports)
        addresses = await asyncio.to_thread(_addresses, settings.listen.host, port)
        self._desk.card = replace(self._desk.card, port=port, addresses=addresses)
        self._learn_addresses()
        facts = Facts(
            id=self._identity.peer.text,
            name=settings.name,
            instance=self._instance.hex(),
            version=self._desk.card.version,
            home=self.home.root,
            swarm_id=swarm_id(self._swarm.secret),
            swarm_name=self._swarm.name,
            algorithm=settings.algorithm,
            codec=settings.codec,
            listen=format_address(settings.listen.host, port),
            api="",  # not yet
            addresses=self._desk.card.addresses,
        )
        self._overview = Overview(facts, self._host, self._neighbours, self._ledger, self.limits)
        with file_faults("listen for learners at", self.home.link_socket):
            await self._link.start()
        api_port = await self._api.start(self.home.api_socket, ports.api)
        self._overview.facts = facts = replace(
            facts, api=format_address(settings.api.host, api_port)
        )
        save_ports(self.home, Ports(port, api_port))
        self._listening = True
        self.events.emit("node.started", id=facts.id, listen=facts.listen, api=facts.api)
        self._notifier.ready(self._one_line())
        invitation = None
        if self._created:  # whoever reads it is a member: it has no place in a log
            invitation = self.invite(0) if sys.stderr.isatty() else ""
        print(greeting(facts, invitation), file=sys.stderr, flush=True)  # stdout is the script's

    async def serve(self, script: list[str] | None, until_eof: bool) -> int:
        """Run until ``stop``; with a script until its end, whose exit code is returned."""
        watchers = Tasks(self.failed)
        for work in (
            self._neighbours.run(),
            self._discover(),
            self._remember(),
            self._notifier.watch(),
            Herald(self.events).run(),
        ):
            watchers.spawn(work)
        if until_eof:
            watchers.spawn(self._watch_stdin())
        exit_code = 0
        try:
            if script:
                exit_code = await self._supervise(script)
            else:
                await self._stop.wait()
        finally:
            self.stopping = True
            await watchers.close()
        return exit_code

    def signalled(self, now: bool, interrupted: bool) -> None:
        self._interrupted = interrupted
        self.stop(now)

    def failed(self, error: BaseException) -> None:
        """Something in the background has ended by itself: a half-dead node is worse than none."""
        if not isinstance(error, OperatorError):
            log.critical("a bug; this node ends", exc_info=error)
        self._fault = self._fault or error
        self.stop(now=False)

    def verdict(self, exit_code: int) -> int:
        """``exit_code``, or 1 after a bug.  Raises the OperatorError that ended the node."""
        if isinstance(self._fault, OperatorError):
            raise self._fault
        return exit_code if self._fault is None else 1

    async def _supervise(self, script: list[str]) -> int:
        from covey.node.supervisor import Supervisor

        environ = {
            **os.environ,
            "COVEY_HOME": str(self.home.root),
            "COVEY_SUPERVISED": str(os.getpid()),
        }
        supervisor = Supervisor(
            self.events.emit,
            lambda: bool(self._host.lineage.founder),
            lambda: self._link.trained_s,
        )
        learner = asyncio.create_task(supervisor.run(script, environ))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({learner, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not learner.done():
                await supervisor.stop(self._interrupted)
            code = await learner
            if code == 0 and self._host.learning is None and not self._stop.is_set():
                log.warning("the script ended without covey.join(), so it shared nothing")
            return code
        finally:
            stopped.cancel()
            learner.cancel()

    async def close(self) -> None:
        """Say goodbye, save, stop listening.  Works however far ``start`` has come."""
        self.stopping = self._desk.leaving = True
        self._notifier.stopping()
        async with contextlib.AsyncExitStack() as steps:  # each, even if one before it fails
            steps.push_async_callback(self._api.close)
            steps.push_async_callback(self._neighbours.close)
            if self._listening:  # else it has not read what it would overwrite
                steps.push_async_callback(self._save_peers)
            if self._discovery is not None:
                steps.push_async_callback(self._discovery.close)
            steps.push_async_callback(self._host.close)
            steps.push_async_callback(self._server.close)  # from here on nothing moves the model
            steps.push_async_callback(self._link.close)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._neighbours.leave(self._desk.standing())

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
            give_up(_INTERRUPTED if self._interrupted else 1)
        self.stopping = True
        self._stop.set()
        if self._deadline is not None:
            self._deadline.begin()

    # --- inside ----------------------------------------------------------------------------------

    async def _listen(self, ports: Ports) -> int:
        """The peer port: as set, else the remembered or usual one, else any that is free."""
        host, port = self.settings.listen.host, self.settings.listen.port
        if port is not None:
            return await self._server.start(host, port)
        for candidate in (ports.peer or PEER_PORT, 0):
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
        remembered.recall(self.home.peers_file, self._book)

    async def _save_peers(self) -> None:
        await asyncio.to_thread(remembered.keep, self.home.peers_file, self._book.plain())

    async def _remember(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_PEERS_S)
            await self._save_peers()
            self._notifier.status(self._one_line())

    async def _discover(self) -> None:
        """Announce this node and look for others, where the network lets us."""
        if not self.settings.mdns:
            return
        # zeroconf is slow to import.
        await asyncio.to_thread(importlib.import_module, "covey.node.discovery")
        from covey.node.discovery import Announcement, Discovery

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
        await end_of_input()
        self.stop(now=False)

    def _one_line(self) -> str:
        """For ``systemctl status``."""
        status = self.status()
        training, swarm = status.training, status.swarm
        return f"{training.state}, step {training.step}, {swarm.alive} of {swarm.members} alive"


def _addresses(host: str, port: int) -> tuple[str, ...]:
    """Where peers may reach a node that listens on ``host``."""
    found = interfaces.reachable(interfaces.survey(), host)
    return tuple(format_address(i.address, port) for i in found[: limits.ADDRESSES_PER_PEER_MAX])
