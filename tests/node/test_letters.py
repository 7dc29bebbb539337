"""Messages over a channel: their order, what is refused, and what an unfinished one breaks."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from covey.node.letters import Letters, Refused
from covey.protocols import limits, packing
from covey.protocols.errors import Malformed, RemoteError, Stale, TooLarge, Unsupported
from tests.node.members import MESSAGE, SECRET, Member, noise
from tests.node.pipes import End, listen, say
from tests.protocols.examples import Sealed


def play(scenario: Callable[[Letters, Letters], Awaitable[None]]) -> None:
    async def go() -> None:
        here, there = (Letters(end) for end in End.pair())
        try:
            await scenario(here, there)
        finally:
            here.channel.abort()
            await here.close()
            await there.close()

    asyncio.run(go())


def sealed(payload: bytes = b"") -> Sealed:
    return Member(1, SECRET).sealed(payload)


@pytest.mark.parametrize("length", [0, 1, 200_000])
def test_a_message_is_announced_and_sealed(length: int) -> None:
    payload = noise(length)

    async def scenario(here: Letters, there: Letters) -> None:
        for _ in range(2):
            await say(here, sealed(payload), payload)
        for _ in range(2):
            assert await there.announcement() == MESSAGE
            received = bytearray()
            while (part := await there.part()) is not None:
                received += part
            assert received == payload
            assert (there.announced, there.envelope) == sealed(payload)

    play(scenario)


@pytest.mark.parametrize(
    ("chunk", "last", "error"),
    [
        (bytes(limits.MESSAGE_BYTES_MAX + 1), False, TooLarge),
        (bytes(limits.MESSAGE_BYTES_MAX + 1), True, TooLarge),
        (b"", False, Malformed),
        (packing.pack({"status": 400}), False, Malformed),
        (packing.pack(["busy"]), False, Malformed),
        (packing.pack(["busy", {}]), False, Malformed),
        (packing.pack(["gossip", {}]), False, Unsupported),
        (b"why", True, Refused),
    ],
)
def test_what_is_no_announcement(chunk: bytes, last: bool, error: type[Exception]) -> None:
    async def scenario(here: Letters, there: Letters) -> None:
        await here.channel.write(chunk, last)
        with pytest.raises(error):
            await there.announcement()

    play(scenario)


def test_a_refusal_says_why() -> None:
    async def scenario(here: Letters, there: Letters) -> None:
        await here.refuse(409, "stale", "x" * 5000)
        with pytest.raises(Refused) as caught:
            await there.announcement()
        fields = packing.unpack(caught.value.body, limits.MESSAGE_BYTES_MAX)
        assert fields == {"status": 409, "reason": "stale", "detail": "x" * 1024}

    play(scenario)


def test_letters_leave_in_order() -> None:
    async def scenario(here: Letters, there: Letters) -> None:
        gate = asyncio.Event()

        async def late() -> None:
            await gate.wait()
            await say(here, sealed(b"first"), b"first")

        here.post(late())
        here.post(say(here, sealed(b"second"), b"second"))
        await asyncio.sleep(0)
        gate.set()
        assert [(await listen(there))[1] for _ in range(2)] == [b"first", b"second"]

    play(scenario)


def test_who_does_not_read_is_not_heard() -> None:
    """Else the answers to a peer that only ever asks would pile up."""

    async def scenario(here: Letters, there: Letters) -> None:
        gate = asyncio.Event()

        async def unread() -> None:
            await gate.wait()

        for _ in range(3):
            await say(there, sealed())
        for _ in range(2):
            here.post(unread())
            assert (await listen(here))[0] == MESSAGE
        here.post(unread())
        hearing = asyncio.create_task(listen(here))
        for _ in range(20):  # turns in which it would have been heard
            await asyncio.sleep(0)
        assert not hearing.done()
        gate.set()
        assert (await hearing)[0] == MESSAGE

    play(scenario)


@pytest.mark.parametrize("error", [ConnectionError("cut"), TimeoutError(), Stale("given up")])
def test_what_cannot_be_finished_breaks_the_channel(error: Exception) -> None:
    async def scenario(here: Letters, there: Letters) -> None:
        async def broken() -> None:
            await here.channel.write(b"half")
            raise error

        here.post(broken())
        here.post(say(here, sealed()))
        assert bytes((await there.channel.read())[0]) == b"half"
        with pytest.raises(ConnectionError):
            await there.channel.read()
        assert here.given_up

    play(scenario)


def test_a_bug_in_a_letter_is_not_lost() -> None:
    async def scenario(here: Letters, there: Letters) -> None:
        async def bug() -> None:
            raise ZeroDivisionError

        here.post(bug())
        with pytest.raises(ConnectionError):
            await there.announcement()
        with pytest.raises(ZeroDivisionError):
            await here.close()
        assert not issubclass(ZeroDivisionError, RemoteError)

    play(scenario)


async def endless() -> None:
    await asyncio.Event().wait()


def test_closing_gives_up_what_is_being_sent() -> None:
    async def scenario(here: Letters, there: Letters) -> None:
        here.post(endless())
        here.post(say(here, sealed()))
        await here.close()
        with pytest.raises(ConnectionError):
            await there.announcement()

    play(scenario)


def test_a_refusal_does_not_cut_into_a_message() -> None:
    async def scenario(here: Letters, there: Letters) -> None:
        here.post(endless())
        await here.refuse(400, "malformed", "no")
        with pytest.raises(ConnectionError):
            await there.announcement()

    play(scenario)
