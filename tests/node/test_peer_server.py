"""What hostile and clumsy members may send to the peer port, and what becomes of it."""

import asyncio
import functools
from pathlib import Path

import pytest

from covey.node import listener, peer_server, streams
from covey.node.ledger import Lane
from covey.node.transport import Kind, Unreachable
from covey.protocols import limits, packing
from covey.protocols.errors import Stale
from tests.node import pipes
from tests.node.members import SECRET, Member, members, noise
from tests.node.pipes import chunk, framed, refusal, rest
from tests.node.waiting import until


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    declared = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {declared}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answered(response: bytes) -> tuple[int, str]:
    """The status of an answer and the reason or detail it carries."""
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), packing.unpack(body, 10_000)["detail"]


def say(request: bytes, **settings: object) -> tuple[Member, bytes]:
    """The server after one bare request of a member, and its answer."""

    async def go() -> tuple[Member, bytes]:
        async with members(SECRET, SECRET) as (one, two):
            for name, value in settings.items():
                setattr(two.handler, name, value)
            return two, await one.say(two, request)

    return asyncio.run(go())


def test_an_oversized_probe_is_refused_before_it_is_read() -> None:
    server, answer = say(post("/p/probe", b"", length=limits.CONTROL_BYTES_MAX + 1))
    assert answered(answer)[0] == 413
    assert server.handler.probes == []
    assert server.handler.reasons == ["too_large"]
    assert server.ledger.received[Lane.CONTROL] < 4000


def test_compressed_bodies_are_refused() -> None:
    for header in ("Content-Encoding: gzip", "Content-Encoding: deflate, br"):
        server, answer = say(post("/p/probe", b"\x1f\x8b" + bytes(100), header))
        assert answered(answer) == (426, "a message has no Content-Encoding")
        assert server.handler.reasons == ["unsupported"]


def test_a_body_of_unknown_length_is_refused() -> None:
    chunked = (
        b"POST /p/probe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    server, answer = say(chunked)
    assert answered(answer) == (400, "the message has no Content-Length")
    assert server.handler.reasons == ["malformed"]


def test_headers_without_end_are_refused() -> None:
    request = b"GET /p/hello HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"
    _, answer = say(request)
    assert answer.startswith(b"HTTP/1.") or answer == b""
    assert b" 200 " not in answer.split(b"\r\n")[0]


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1", b"GET /p/state/../x HTTP/1.1", b"PUT /p/probe HTTP/1.1"]
)
def test_other_requests_find_nothing(request_line: bytes) -> None:
    server, answer = say(request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] in (b"404", b"405")
    assert server.handler.rejections == []


def test_noise_instead_of_http_is_refused() -> None:
    _, answer = say(noise(3000) + b"\r\n\r\n")
    assert b" 200 " not in answer.split(b"\r\n")[0]


def test_a_message_that_stops_is_given_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 0.1)
    monkeypatch.setattr(streams, "RATE_MIN", 1 << 30)

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            whole = framed(one.sealed(bytes(500)), bytes(500))
            answer = await one.say(two, whole[:-10], Lane.EXCHANGE)
            assert refusal(answer) == (400, "the message takes too long to arrive")
            assert two.handler.reasons == ["malformed"]

    asyncio.run(go())


def test_a_message_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 0.2)
    monkeypatch.setattr(streams, "RATE_MIN", 1 << 30)

    async def go() -> tuple[list[str], int]:
        async with members(SECRET, SECRET) as (one, two):
            reader, writer = await one.connect(two, Lane.EXCHANGE)
            whole = framed(one.sealed(bytes(5000)), bytes(5000))
            writer.write(whole[:-5000])
            sent = 0
            while not two.handler.rejections and sent < 5000:
                writer.write(b"x")
                sent += 1
                await asyncio.sleep(0.005)
            writer.transport.abort()
            assert reader is not None
            return two.handler.reasons, sent

    reasons, sent = asyncio.run(go())
    assert reasons[0] == "malformed"
    assert sent < 5000


def test_a_cut_message_is_counted_and_its_slot_is_free_again() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            payload = noise(1000)
            for _ in range(2 * peer_server.TRANSFERS_PER_PEER_MAX):
                _, writer = await one.connect(two, Lane.EXCHANGE)
                writer.write(framed(one.sealed(payload), payload)[:-10])
                await writer.drain()
                await until(lambda: two.server._exchanges._of.total() == 1)
                writer.transport.abort()
                await until(lambda: two.server._exchanges._of.total() == 0)
            assert two.handler.reasons == ["malformed"] * 2 * peer_server.TRANSFERS_PER_PEER_MAX
            assert str(two.handler.rejections[0][1]) == "the message was cut off"
            await one.exchange(two.peer, two.address, one.sealed(payload), payload)
            assert [received for _, received in two.handler.exchanges] == [payload]

    asyncio.run(go())


def _heard(member: Member, count: int) -> bool:
    return len(member.handler.exchanges) == count


def test_who_hangs_up_after_a_message_is_told() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            lines = [await one.connect(two, Lane.EXCHANGE) for _ in range(2)]
            for number, (_, writer) in enumerate(lines, 1):
                writer.write(framed(one.sealed()))
                await until(functools.partial(_heard, two, number))
            lines[0][1].transport.abort()  # its last message came on the other
            visits = two.server._listener._visits.values()
            await until(lambda: any(visit.transport.is_closing() for visit in visits))
            assert two.handler.gone == []
            lines[1][1].transport.abort()
            await until(lambda: two.handler.gone)
            assert two.handler.gone == [one.peer]
            assert two.handler.rejections == []

    asyncio.run(go())


def test_a_peer_that_hangs_up_before_the_answer_is_not_at_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.gate = asyncio.Event()
            _, writer = await one.connect(two, Lane.EXCHANGE)
            writer.write(framed(one.sealed()))
            await until(lambda: two.handler.exchanges)
            writer.transport.abort()
            visits = two.server._listener._visits.values()
            await until(lambda: all(visit.transport.is_closing() for visit in visits))
            two.handler.gate.set()
            await until(lambda: two.server._exchanges._of.total() == 0)
            assert two.handler.reasons == []

    with caplog.at_level("ERROR"):
        asyncio.run(go())
    assert not caplog.records


def test_a_reader_that_does_not_read_is_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 0.3)
    monkeypatch.setattr(streams, "RATE_MIN", 1 << 40)

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            offer = two.handler.give(noise(32 << 20), tmp_path / "state")
            reader, writer = await one.connect(two, Lane.STATE)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            path = f"/p/state/{offer.digest.hex()}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until(lambda: two.server._transfers._of.total() == 1)
            await until(lambda: two.server._transfers._of.total() == 0)
            assert two.ledger.sent[Lane.STATE] < 32 << 20
            assert two.handler.rejections == []
            writer.transport.abort()
            assert reader is not None

    asyncio.run(go())


def test_a_line_is_not_idle_while_its_answer_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 0.1)

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.answer = noise(16 << 20)
            async with one.transport.call(two.peer, two.address) as letters:
                await pipes.say(letters, one.sealed())
                await letters.announcement()
                # Meanwhile another line is idle, and closed for it.
                await one.say(two, b"GET /p/hello HTTP/1.1\r\nHost: x\r\n\r\n")
                assert await rest(letters) == two.handler.answer
                await until(lambda: two.handler.gone)  # and now it is idle
                assert two.handler.rejections == []
            assert not one.transport._lines._idle

    asyncio.run(go())


def test_few_exchanges_at_once() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.gate = asyncio.Event()

            async def exchange() -> str:
                try:
                    await one.exchange(two.peer, two.address, one.sealed(), b"", 10.0)
                except Unreachable as error:
                    return error.kind
                return "done"

            held = [asyncio.ensure_future(exchange()) for _ in range(2)]
            await until(lambda: len(two.handler.exchanges) == 2)
            bare = await one.say(two, framed(one.sealed()), Lane.EXCHANGE)
            assert refusal(bare) == (429, "too many exchanges at once")
            two.handler.gate.set()
            assert await asyncio.gather(*held) == ["done", "done"]
            assert await exchange() == "done"
            assert two.handler.rejections == []  # busy is nobody's fault

    asyncio.run(go())


def test_what_the_handler_finds_wrong_is_counted_and_answered() -> None:
    async def go() -> Unreachable:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.fault = Stale("message 3 was seen before")
            with pytest.raises(Unreachable) as caught:
                await one.exchange(two.peer, two.address, one.sealed(), b"", 10.0)
            assert two.handler.rejections == [(one.peer, two.handler.fault)]
            return caught.value

    error = asyncio.run(go())
    assert error.kind is Kind.REJECTED
    assert "message 3 was seen before" in str(error)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (chunk(b"\xc1"), "malformed"),
        (chunk(bytes(limits.MESSAGE_BYTES_MAX + 1)), "too_large"),
        (b"\x7f\xff\xff\xff", "too_large"),
        (chunk(packing.pack({"status": 400}), last=True), "malformed"),
        (chunk(packing.pack(["gossip", {}])), "unsupported"),
        (b"POST /p/exchange HTTP/1.1\r\n\r\n", "too_large"),
    ],
)
def test_noise_on_a_line_is_refused(sent: bytes, reason: str) -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            status, _ = refusal(await one.say(two, sent, Lane.EXCHANGE))
            assert status in (400, 413, 426)
            assert two.handler.reasons == [reason]
            assert two.handler.exchanges == []

    asyncio.run(go())


def test_lanes_speak_their_own_protocol() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            assert b"400" in await one.say(two, framed(one.sealed()), Lane.CONTROL)
            assert two.handler.exchanges == []

    asyncio.run(go())


@pytest.mark.parametrize("header", ["bytes=5-7", "bytes=-5", "bytes=1000-", "rows=1-", "bytes=²-"])
def test_ranges_that_make_no_sense(header: str, tmp_path: Path) -> None:
    async def go() -> tuple[int, str]:
        async with members(SECRET, SECRET) as (one, two):
            offer = two.handler.give(noise(1000), tmp_path / "state")
            path = f"/p/state/{offer.digest.hex()}"
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: {header}\r\n\r\n"
            return answered(await one.say(two, request.encode()))

    status, detail = asyncio.run(go())
    assert status == 400
    assert "Range" in detail


def test_a_bug_in_the_handler_is_no_answer_to_the_peer(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.fault = AssertionError("a bug")  # type: ignore[assignment]
            with pytest.raises(Unreachable) as caught:
                await one.exchange(two.peer, two.address, one.sealed(), b"", 10.0)
            assert caught.value.kind is Kind.CUT
            assert two.handler.rejections == []

    asyncio.run(go())
    assert "a bug" in caplog.text


def test_closing_is_quick_and_final() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            await one.transport.probe(two.peer, two.address, one.handler.standing(), 5.0)
            two.handler.gate = asyncio.Event()
            held = asyncio.ensure_future(
                one.exchange(two.peer, two.address, one.sealed(), b"", 30.0)
            )
            await until(lambda: two.handler.exchanges)
            async with asyncio.timeout(5):
                await two.server.close()
            with pytest.raises(Unreachable) as caught:
                await held
            assert caught.value.kind is Kind.CUT
            with pytest.raises(Unreachable) as again:
                await one.transport.hello(two.address)
            assert again.value.kind is Kind.REFUSED

    asyncio.run(go())
