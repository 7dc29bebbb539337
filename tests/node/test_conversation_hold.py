"""A proposal that comes while one of ours is unanswered may wait for that answer."""

import asyncio

import pytest

from covey.node import conversation
from covey.node.letters import Letters
from covey.protocols.envelope import announce
from covey.protocols.messages import Accept, Busy
from tests.node.pipes import listen, say
from tests.node.rigs import Rig, play
from tests.node.waiting import until


class Third:
    """Whom a node has asked, and who answers when it is told to: Busy, or as Accept begins."""

    def __init__(self, rig: Rig, accepts: bool = False) -> None:
        self.asked, self.told, self.left = (asyncio.Event() for _ in range(3))
        self._accepts = accepts
        self._rig = Rig(3)
        rig.serve = self._serve
        self.proposing = asyncio.create_task(rig.propose(self._rig.me))

    async def _serve(self, letters: Letters) -> None:
        message, _ = await listen(letters)
        self.asked.set()
        await self.told.wait()
        exchange = message.exchange
        if self._accepts:
            await letters.channel.write(announce(Accept(exchange, bytes(16), 1.0, 1.0)))
            await self.left.wait()
        else:
            await say(letters, self._rig.says(Busy(exchange)))

    async def close(self) -> None:
        self.told.set()
        self.left.set()
        await self.proposing
        await self._rig.runner.close()


def test_who_awaits_an_answer_lets_a_smaller_ids_proposal_wait_for_it() -> None:
    async def scenario(larger: Rig, smaller: Rig) -> None:
        assert smaller.me < larger.me
        third = Third(larger)
        await third.asked.wait()
        proposing = asyncio.create_task(smaller.propose(larger.me))
        await until(lambda: smaller.sent)
        await larger.runner.run(lambda: None)
        await smaller.runner.run(lambda: None)
        assert not proposing.done()
        await third.close()
        await proposing
        assert [outcome.reason for outcome in larger.outcomes] == ["busy", ""]
        assert [outcome.reason for outcome in smaller.outcomes] == [""]

    play(scenario)


@pytest.mark.parametrize("hold_s", [0.0, 60.0])
def test_but_not_a_larger_ones_nor_for_ever(hold_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that wait for each other in a ring: one of them must not."""
    monkeypatch.setattr(conversation, "_HOLD_S", hold_s)

    async def scenario(larger: Rig, smaller: Rig) -> None:
        asking, asked = (smaller, larger) if hold_s == 0 else (larger, smaller)
        third = Third(asked)
        await third.asked.wait()
        await asking.propose(asked.me)
        assert [outcome.reason for outcome in asking.outcomes] == ["busy"]
        await third.close()

    play(scenario)


def test_whose_proposal_is_accepted_turns_the_other_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "_HOLD_S", 60.0)

    async def scenario(larger: Rig, smaller: Rig) -> None:
        third = Third(larger, accepts=True)
        await third.asked.wait()
        proposing = asyncio.create_task(smaller.propose(larger.me))
        await until(lambda: smaller.sent)
        third.told.set()
        await proposing
        assert [outcome.reason for outcome in smaller.outcomes] == ["busy"]
        await third.close()

    play(scenario)
