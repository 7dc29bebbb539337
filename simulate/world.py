"""A flock in virtual time: its nodes train, exchange, go off and come back, and are measured."""

from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar

import numpy as np

from covey.gossip.algorithms import create
from covey.gossip.core import Outgoing
from covey.protocols.identity import PeerId
from covey.protocols.messages import Lineage
from covey.simulate.agenda import Agenda
from covey.simulate.attackers import Attacker, attackers_of, unbounded
from covey.simulate.carrier import Carrier
from covey.simulate.probes import Probes
from covey.simulate.resident import Resident
from covey.simulate.result import Point, Progress, Result, measure, silently
from covey.simulate.roster import Oracle, Roster
from covey.simulate.scenario import Churn, Scenario
from covey.simulate.welcome import Welcome
from covey.simulate.workload import Workload

_FOUNDER = b"f" * 32  # all begin with the same weights
_PROBING = 128  # the most nodes that find out for themselves who is there
_PATIENCE_S = 60.0  # the longest that each part of the end takes
_LOOK_S = 0.1


def peer_id(number: int) -> PeerId:
    """Of a simulated node: its number, scattered so that ties favour nobody's neighbour."""
    return PeerId(
        (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") + number.to_bytes(24, "big")
    )


class World:
    """One run of a scenario."""

    honest_kind: ClassVar[type[Resident]] = Resident  # a subclass may want to watch them

    def __init__(self, scenario: Scenario, workload: Workload) -> None:
        self.scenario = scenario
        self.agenda = Agenda()
        self._workload = workload
        self._rng = Random(f"world {scenario.seed}")
        self.carrier = Carrier(scenario.network, self.agenda, Random(f"net {scenario.seed}"))
        self._attackers = attackers_of(scenario)
        self.residents = [self._settle_in(number) for number in range(scenario.nodes)]
        self._taking_part = [resident for resident in self.residents if resident.up]
        self._by_id = {resident.core.me: resident for resident in self.residents}
        self._roster = self._know_each_other()
        self.welcome = self._mind()
        self._speeds = self._draw_speeds()
        self._due = np.zeros(scenario.nodes, np.int64)  # steps, also of those who were off
        self._steps = np.zeros(scenario.nodes, np.int64)  # done
        self._points: list[Point] = []

    def run(self, progress: Progress = silently) -> Result:
        """From the common initial weights to the settled models."""
        scenario = self.scenario
        for resident in self._taking_part:
            first = scenario.period_s * (1 + self._rng.random())
            self.agenda.at(first, self._period(resident, first))
            if scenario.churn is not None:
                self._go_off_later(resident, scenario.churn)
        tick_s = scenario.step_s / float(self._speeds.max())
        ticks = round(scenario.duration_s / tick_s)
        measured = {round(k * ticks / scenario.measures) for k in range(1, scenario.measures + 1)}
        for tick in range(1, ticks + 1):
            self.agenda.run(tick * tick_s)
            self._train()
            if tick in measured:
                self._measure()
            progress(tick / ticks)
        self._close_down()
        return self._result()

    # --- training --------------------------------------------------------------------------------

    def _train(self) -> None:
        """The local steps that are due, of all nodes in one batch."""
        due = self._speeds * (self.agenda.now / self.scenario.step_s) + 1e-9
        nodes = np.flatnonzero(due.astype(np.int64) > self._due)
        self._due[nodes] += 1
        up = nodes[[self.residents[number].up for number in nodes.tolist()]]
        self._steps[up] += 1
        if len(up):
            self._workload.step(up)
        for number in up.tolist():
            self.residents[number].boundary()

    def _period(self, resident: Resident, due: float) -> Callable[[], None]:
        """The snapshot that is due at ``due``, and the one after it."""

        def begin() -> None:
            if self.agenda.now >= self.scenario.duration_s:
                return
            self._roster.renew(resident)
            resident.begin_period()
            following = due + self.scenario.period_s
            self.agenda.at(following, self._period(resident, following))

        return begin

    def _draw_speeds(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Steps per step of a node of mean speed: mean 1, so the samples in all are the same."""
        scenario = self.scenario
        places = np.linspace(0, 1, scenario.nodes) if scenario.nodes > 1 else np.zeros(1)
        speeds = scenario.spread**places
        np.random.default_rng([scenario.seed, 1]).shuffle(speeds)
        normal: np.ndarray[tuple[int], np.dtype[np.float64]] = speeds / speeds.mean()
        return normal

    # --- the network as residents see it ---------------------------------------------------------

    def partners(self, resident: Resident) -> Sequence[PeerId]:
        return self._roster.partners(resident)

    def send(self, sender: Resident, out: Outgoing) -> None:
        called = self._by_id[out.peer]
        self.carrier.converse(sender, called, out, lambda: self._reaches(sender, called))

    def _reaches(self, resident: Resident, other: Resident) -> bool:
        cut = self.scenario.cut
        if cut is None or (resident.number + other.number) % 2 == 0:
            return other.up
        share = self.agenda.now / self.scenario.duration_s
        return other.up and not cut.begin <= share < cut.end

    def _go_off_later(self, resident: Resident, churn: Churn) -> None:
        def off() -> None:
            if self.agenda.now < self.scenario.duration_s:  # then all come back, and stay
                resident.up = False
                self.agenda.at(self.agenda.now + self._rng.expovariate(1 / churn.off_s), on)

        def on() -> None:
            resident.up = True
            self._go_off_later(resident, churn)

        self.agenda.at(self.agenda.now + self._rng.expovariate(1 / churn.on_s), off)

    # --- beginning and end -----------------------------------------------------------------------

    def _settle_in(self, number: int) -> Resident:
        scenario, vector = self.scenario, self._workload.vectors[number]
        rng = Random(f"node {scenario.seed} {number}")
        kind = scenario.attack.kind if scenario.attack and number in self._attackers else ""
        false = kind not in ("", "flip", "silent")
        config = unbounded(scenario.config) if false else scenario.config
        core = create(peer_id(number), config, self._workload.layout, rng)
        core.begin(vector, Lineage(_FOUNDER))
        core.replica.learner_has(vector)
        core.accepting = True
        if not false:
            resident = self.honest_kind(number, core, vector, self, rng)
            resident.up = kind != "silent"
            return resident
        attacker = Attacker(number, core, vector, self, rng)
        attacker.kind = kind
        return attacker

    def _know_each_other(self) -> Roster:
        scenario = self.scenario
        calm = not (scenario.churn or scenario.cut)
        if scenario.nodes > _PROBING or calm:
            return Oracle(self.residents, self._reaches, self._rng, calm)
        rng, latency_s = Random(f"probes {scenario.seed}"), scenario.network.latency_s
        return Probes(self._taking_part, self._reaches, rng, self.agenda, latency_s)

    def _mind(self) -> Welcome:
        """Whoever falls behind, or is refused by nearly all, copies a model."""
        scenario = self.scenario
        welcome = Welcome(self._by_id, self._roster, self._reaches, self.agenda, scenario.network)
        if scenario.nodes <= _PROBING:
            for resident in self._taking_part:
                if not isinstance(resident, Attacker):
                    welcome.mind(resident)
        return welcome

    def _close_down(self) -> None:
        """Training is over: the last snapshots, then exchanges without training."""
        for resident in self._taking_part:
            resident.up = True
        self._wait_until(lambda resident: resident.at_rest)  # else a snapshot would be skipped
        for resident in self._taking_part:
            resident.begin_period()
        self._wait_until(lambda resident: resident.at_rest)
        if self.scenario.settle:
            for resident in self._taking_part:
                resident.settle()
            self._wait_until(lambda it: it.settled and not self.welcome.left_behind(it))
        for resident in self._taking_part:
            resident.finish()
        self._measure()

    def _wait_until(self, true: Callable[[Resident], bool]) -> None:
        """Without training, and not for ever."""
        until = self.agenda.now + _PATIENCE_S
        while self.agenda.now < until and not all(map(true, self._taking_part)):
            self.agenda.run(self.agenda.now + _LOOK_S)

    # --- measuring -------------------------------------------------------------------------------

    def honest(self) -> list[Resident]:
        """Those that do not attack: only they are measured."""
        return [r for r in self.residents if r.number not in self._attackers]

    def _measure(self) -> None:
        honest = self.honest()
        vectors = self._workload.vectors[[resident.number for resident in honest]]
        sent = sum(resident.sent for resident in honest) / len(honest)
        steps = float(self._steps[[resident.number for resident in honest]].mean())
        self._points.append(measure(self._workload, vectors, self.agenda.now, steps, sent))

    def _result(self) -> Result:
        honest = self.honest()
        reasons: dict[str, int] = {}
        for resident in honest:
            for reason, times in resident.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + times
        exchanges = sum(resident.exchanges for resident in honest)
        parameters = self._workload.layout.parameters
        return Result(tuple(self._points), exchanges / len(honest), reasons, parameters)
