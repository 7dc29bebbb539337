"""What the node reports of itself and its peers, gathered from the parts that know."""

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from covey.gossip.membership import Life, Member
from covey.node import report
from covey.node.addresses import AddressBook
from covey.node.host import Host
from covey.node.ledger import Lane, Ledger
from covey.node.neighbours import Neighbours
from covey.node.report import Severity, WarningReport
from covey.node.throttle import Limits
from covey.protocols import PROTOCOL
from covey.protocols.messages import Phase

_RATE_S = 2.0  # over which the transfer rates are averaged


@dataclass(frozen=True)
class Facts:
    """What does not change while the node runs."""

    id: str
    name: str
    instance: str
    version: str
    home: Path
    swarm_id: bytes
    swarm_name: str
    algorithm: str
    codec: str
    listen: str
    api: str
    addresses: tuple[str, ...]
    started: float = field(default_factory=time.monotonic)


def greeting(facts: Facts, invitation: str | None) -> str:
    """What a node prints when it has started.

    ``invitation`` is that of a swarm it created, empty where it must not be seen, such as in a log.
    """
    lines = [
        f"covey {facts.version}: node {facts.name} ({facts.id[:7]}) of swarm {facts.swarm_name!r}, "
        f"status at http://{facts.api}/api/v1/status"
    ]
    if invitation:
        lines += ["A new swarm.  On each further machine, once:", f"    covey join {invitation}"]
    elif invitation is not None:
        lines += ["A new swarm.  `covey invite` prints the line that lets other machines join."]
    return "\n".join(lines)


class Overview:
    """Builds the reports on demand; keeps nothing but the rates."""

    def __init__(
        self, facts: Facts, host: Host, neighbours: Neighbours, ledger: Ledger, limits: Limits
    ) -> None:
        self.facts = facts
        self.discovery = report.DiscoveryReport()
        self._host = host
        self._neighbours = neighbours
        self._ledger = ledger
        self._limits = limits
        self._rated = (time.monotonic(), 0, 0)
        self._rates = (0.0, 0.0)

    def status(self) -> report.StatusReport:
        facts = self.facts
        return report.StatusReport(
            node=report.NodeReport(
                id=facts.id,
                name=facts.name,
                instance=facts.instance,
                version=facts.version,
                uptime_s=time.monotonic() - facts.started,
                pid=os.getpid(),
                home=str(facts.home),
            ),
            swarm=self._swarm(),
            training=self._training(),
            consensus=self._consensus(),
            exchange=self._exchange(),
            net=self._net(),
            warnings=tuple(self._warnings()),
        )

    def peers(self) -> list[report.PeerReport]:
        """Everyone known, and static addresses that nobody has answered at."""
        now = time.monotonic()
        found = [self._peer(member, now) for member in self._neighbours.membership.members()]
        found += [
            report.PeerReport(
                id="", name="", state="unverified", source=entry.source, addresses=(entry,)
            )
            for entry in _address_reports(self._neighbours.book, None)
        ]
        return found

    # --- parts of the status ---------------------------------------------------------------------

    def _swarm(self) -> report.SwarmReport:
        lives = [member.life for member in self._neighbours.membership.members()]
        here = [life for life in lives if life is not Life.LEFT]
        return report.SwarmReport(
            id=self.facts.swarm_id.hex()[:16],
            name=self.facts.swarm_name,
            members=1 + len(here),
            alive=1 + here.count(Life.ALIVE),
            suspect=here.count(Life.SUSPECT),
            dead=here.count(Life.DEAD),
        )

    def _training(self) -> report.TrainingReport:
        learning = self._host.learning
        if learning is None:
            return report.TrainingReport(Phase.IDLE, reason="no learner has attached yet")
        attachment, values = learning.attachment, learning.tally.values
        steps = [
            member.standing.step
            for member in self._neighbours.membership.alive()
            if member.standing.layout == learning.layout.digest
        ]
        saved_s = self._host.saved_s
        return report.TrainingReport(
            state=learning.phase,
            reason=learning.reason,
            learner=attachment.name if attachment is not None else "",
            learner_pid=attachment.pid if attachment is not None else None,
            step=learning.step,
            swarm_step_median=statistics.median([learning.step, *steps]),
            loss=values.get("loss"),
            values=dict(values),
            steps_per_s=learning.tally.steps_per_s,
            parameters=learning.layout.size,
            layout=learning.layout.digest.hex(),
            founder=learning.lineage.founder.hex(),
            age=learning.lineage.age,
            last_checkpoint=report.rfc3339(saved_s) if saved_s is not None else None,
        )

    def _consensus(self) -> report.ConsensusReport:
        learning = self._host.learning
        if learning is None or learning.tally.distance is None:
            return report.ConsensusReport()
        alive = len(self._neighbours.membership.alive())
        met = f"met {len(learning.tally.per_peer)} of {alive} peers alive"
        return report.ConsensusReport(learning.tally.distance, learning.tally.trend, met)

    def _exchange(self) -> report.ExchangeReport:
        learning = self._host.learning
        ledger = self._ledger
        wire = (ledger.sent[Lane.EXCHANGE], ledger.received[Lane.EXCHANGE])
        rejected = dict(self._neighbours.rejections)
        if learning is None:
            return report.ExchangeReport(self.facts.algorithm, self.facts.codec, rejected=rejected)
        tally = learning.tally
        for reason, count in tally.reasons.items():
            rejected[reason] = rejected.get(reason, 0) + count
        merged = report.rfc3339(tally.last_merge_s) if tally.last_merge_s is not None else None
        return report.ExchangeReport(
            algorithm=self.facts.algorithm,
            codec=self.facts.codec,
            exchanges=tally.exchanges,
            accepted=tally.exchanges,
            busy=tally.busy,
            failed=tally.failed,
            rejected=rejected,
            last_merge=merged,
            last_peer=tally.last_peer.short if tally.last_peer is not None else None,
            wire_bytes_sent=wire[0],
            wire_bytes_received=wire[1],
            raw_bytes=4 * learning.layout.size * tally.exchanges,
            outer_steps=tally.outer_steps,
            missed=tally.missed,
        )

    def _net(self) -> report.NetReport:
        ledger, now = self._ledger, time.monotonic()
        sent, received = sum(ledger.sent.values()), sum(ledger.received.values())
        then, sent_then, received_then = self._rated
        if now - then >= _RATE_S:
            elapsed = now - then
            self._rates = ((sent - sent_then) / elapsed, (received - received_then) / elapsed)
            self._rated = (now, sent, received)
        return report.NetReport(
            listen=self.facts.listen,
            api=self.facts.api,
            addresses=self.facts.addresses,
            up_Bps=self._rates[0],
            down_Bps=self._rates[1],
            sent_bytes={str(lane): count for lane, count in ledger.sent.items()},
            received_bytes={str(lane): count for lane, count in ledger.received.items()},
            caps=self._limits.caps,
            discovery=self.discovery,
            event_loop_lag_s=self._neighbours.lag_s,
        )

    def _warnings(self) -> list[WarningReport]:
        found = []
        membership = self._neighbours.membership
        for member in membership.alive():
            if note := self._neighbours.notes.get(member.peer):
                who = f"{member.standing.name} ({member.peer.short})"
                hint = "start both with the same script, or put them in different swarms"
                found.append(WarningReport("other_model", Severity.WARNING, f"{who} {note}", hint))
        for entry in _address_reports(self._neighbours.book, None):
            if entry.last_error and "static" in entry.source:
                hint = "check that its node runs and that no firewall is between"
                named = entry.addr in entry.last_error
                who = "static peer" if named else f"static peer {entry.addr}"
                text = f"{who}: {entry.last_error}"
                found.append(WarningReport("peer_unreachable", Severity.WARNING, text, hint))
        if membership.conflicted:
            text = "another machine uses this node's identity: its home was copied"
            hint = "remove identity.key from one of the two homes and start it again"
            found.append(WarningReport("identity_conflict", Severity.ERROR, text, hint))
        if (fault := self._host.fault) is not None:
            found.append(
                WarningReport("checkpoint_failed", Severity.ERROR, fault.message, fault.fix)
            )
        learning = self._host.learning
        if learning is not None and "not finite" in learning.reason:
            hint = "lower the learning rate; the swarm keeps the last finite state"
            found.append(WarningReport("not_finite", Severity.ERROR, learning.reason, hint))
        return found

    # --- peers -----------------------------------------------------------------------------------

    def _peer(self, member: Member, now: float) -> report.PeerReport:
        standing, learning = member.standing, self._host.learning
        entries = _address_reports(self._neighbours.book, member)
        sources = {source for entry in entries for source in entry.source}
        step = standing.step if standing.layout else None
        mine = learning.step if learning is not None else None
        return report.PeerReport(
            id=member.peer.text,
            name=standing.name,
            state=member.life,
            source=tuple(sorted(sources)),
            addresses=tuple(entries),
            rtt_s=member.rtt_s,
            heard_s=now - member.heard_at,
            version=standing.version,
            protocol=(PROTOCOL,),
            instance=member.instance.hex(),
            phase=standing.phase,
            step=step,
            lag=mine - step if mine is not None and step is not None else None,
            loss=standing.loss,
            exchanges=learning.tally.per_peer.get(member.peer, 0) if learning is not None else 0,
            note=self._neighbours.notes.get(member.peer, ""),
        )


def _address_reports(book: AddressBook, member: Member | None) -> list[report.AddressReport]:
    """The addresses of ``member``; of nobody yet, if None."""
    now, epoch = time.monotonic(), time.time()
    return [
        report.AddressReport(
            addr=entry.address,
            ok=None if entry.tried_at is None else entry.error is None,
            source=tuple(str(source) for source in sorted(entry.sources)),
            last_error=entry.error,
            at=None if entry.tried_at is None else report.rfc3339(epoch - (now - entry.tried_at)),
        )
        for entry in book.entries(member.peer if member is not None else None)
    ]
