"""Messages of exchanges over a channel: announced, then the payload in chunks, then sealed.

A side that finds fault sends a refusal in place of a message: a map of ``status``, ``reason`` and
``detail``.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from covey.node.line import Channel
from covey.protocols import limits, packing
from covey.protocols.envelope import announced
from covey.protocols.errors import RemoteError, TooLarge
from covey.protocols.messages import ExchangeMessage

_UNREAD = 2  # answers of ours on their way: who has more to read is not heard


class Refused(Exception):
    """The other side found fault with what we sent, or has no room.  ``body`` says why."""

    def __init__(self, body: bytes) -> None:
        super().__init__("the peer refuses")
        self.body = body


class Letters:
    """The messages of one channel, each way one after the other.

    Reading raises RemoteError, Refused, or ConnectionError.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.announced = b""  # of the message that is read
        self.envelope = b""  # of the message that was read to its end
        self.heard = 0  # messages
        self.given_up = False  # we broke the channel, as what we sent could not be finished
        self._letters: list[asyncio.Task[None]] = []  # that are being sent

    async def announcement(self) -> ExchangeMessage:
        """The next message; its payload is to be read with ``part``."""
        if len(self._letters) > _UNREAD:
            await asyncio.wait(self._letters[:-_UNREAD])
        chunk, last = await self.channel.read()
        if len(chunk) > limits.MESSAGE_BYTES_MAX:
            raise TooLarge(
                f"a message of {len(chunk)} bytes; the most is {limits.MESSAGE_BYTES_MAX}"
            )
        if last:
            raise Refused(bytes(chunk))
        self.heard += 1
        self.announced = bytes(chunk)
        return announced(self.announced)

    async def part(self) -> memoryview | None:
        """The next part of the payload, valid until the next; None at its end."""
        chunk, last = await self.channel.read()
        if not last:
            return chunk
        self.envelope = bytes(chunk)
        return None

    async def refuse(self, status: int, reason: str, detail: str) -> None:
        """Say what is wrong instead of answering; a message half way out cannot be taken back."""
        if not all(letter.done() for letter in self._letters):
            self.channel.abort()
            return
        detail = detail[: limits.DETAIL_CHARS_MAX]
        fields = {"status": status, "reason": reason, "detail": detail}
        await self.channel.write(packing.pack(fields), True)

    def post(self, letter: Coroutine[Any, Any, None]) -> None:
        """Send ``letter`` behind those before it, while others are read.

        If that fails the channel breaks, which whoever reads will notice.
        """
        before = self._letters[-1] if self._letters else None
        sending = asyncio.create_task(self._post(before, letter))
        sending.add_done_callback(lambda _: letter.close())  # which may not have begun
        self._letters = [task for task in self._letters if not task.done() or _failed(task)]
        self._letters.append(sending)

    async def close(self) -> None:
        """Give up what is being sent, which breaks the channel.  Raises what is a bug."""
        letters, self._letters = self._letters, []
        if not all(letter.done() for letter in letters):
            self.channel.abort()
        for letter in letters:
            letter.cancel()
        for ended in await asyncio.gather(*letters, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _post(
        self, before: "asyncio.Task[None] | None", letter: Coroutine[Any, Any, None]
    ) -> None:
        try:
            if before is not None:
                await before
            await letter
        except BaseException as error:
            self.given_up = True
            self.channel.abort()
            if not isinstance(error, ConnectionError | TimeoutError | RemoteError):
                raise  # else it is lost, stuck, or given up


def _failed(letter: "asyncio.Task[None]") -> bool:
    """Whether it ended by a bug, which ``close`` is to tell."""
    return not letter.cancelled() and letter.exception() is not None
