"""TLS over TCP: who meets whom, every byte, who must wait, handshakes that fail, and goodbyes."""

import asyncio
import ssl

import pytest

from covey.node import streams, tunnel
from covey.node.ledger import Lane, Ledger
from covey.node.tls import Credentials, WrongIdentity
from covey.protocols.identity import Identity
from tests.node.members import OTHER_SECRET, SECRET, noise
from tests.node.roads import CLIENT, MIB, SERVER, Copied, Road, contexts, play
from tests.node.waiting import until

THIRD = Identity(b"\x03" * 32)


@pytest.mark.parametrize("lane", list(Lane))
@pytest.mark.parametrize("piece", [1, 7, MIB])
def test_users_meet_once_both_ends_are_proven(lane: Lane, piece: int) -> None:
    """However small the pieces that the hello comes in."""

    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        road.near.connection_made(road.up)
        assert road.user.lane is None
        assert road.guest.lane is None
        road.pump(piece)
        await road.near.ready()
        await road.far.ready()
        assert road.user.lane is lane
        assert road.guest.lane is lane
        assert road.guest.transport is road.far
        assert (road.ours.peer, road.theirs.peer) == (SERVER.peer, CLIENT.peer)
        assert road.far.get_extra_info("ssl_object").peer == CLIENT.peer
        assert road.far.get_extra_info("peername") == "the peername of TCP"

    play(scenario, *contexts(lane=lane))


def test_what_is_said_with_the_end_of_the_handshake_is_heard() -> None:
    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        road.near.connection_made(road.up)
        road.down.take(MIB)
        road.up.take(MIB)
        road.near.write(b"at once")
        road.pump()
        assert road.guest.got == b"at once"

    play(scenario)


@pytest.mark.parametrize("piece", [1000, 16_384, 100_001, MIB])
def test_every_byte_arrives_and_is_counted(piece: int) -> None:
    """Against what passed on TCP, goodbyes included."""
    client, server = contexts()

    async def scenario(road: Road) -> None:
        await road.meet()
        there, back = noise(3 * MIB + 5), noise(MIB, 2)
        road.near.writelines([b"head", there, b""])
        road.far.write(back)
        road.pump(piece)
        assert road.guest.got == b"head" + there
        assert road.user.got == back
        road.near.close()
        await road.settle()
        assert road.up.lost
        assert road.down.lost

        up, down = road.up.sent, road.down.sent
        ours, theirs = client.ledger, server.ledger
        assert (ours.sent[Lane.EXCHANGE], ours.received[Lane.EXCHANGE]) == (up, down)
        assert (theirs.received[Lane.EXCHANGE], theirs.sent[Lane.EXCHANGE]) == (up, down)
        assert sum(theirs.received.values()) == up
        assert up > 3 * MIB + 22 * 3 * 64

    play(scenario, client, server)


@pytest.mark.parametrize("piece", [1000, 300_001, MIB])
def test_bytes_are_copied_for_who_wants_them_so(piece: int) -> None:
    async def scenario(road: Road) -> None:
        copied = Copied()
        road.far._make = lambda lane: copied
        await road.meet()
        road.near.write(data := noise(3 * MIB))
        road.pump(piece)
        assert copied.got == data

    play(scenario)


def test_memory_may_change_after_it_was_written() -> None:
    async def scenario(road: Road) -> None:
        await road.meet()
        data = bytearray(noise(MIB))
        road.near.write(data)
        data[:] = bytes(len(data))
        road.pump()
        assert road.guest.got == noise(MIB)

    play(scenario)


def test_who_pauses_gets_no_more() -> None:
    """Also of what has come already; and all of it afterwards."""

    async def scenario(road: Road) -> None:
        await road.meet()
        road.guest.most = 150_000
        road.near.write(data := noise(2 * MIB))
        await road.settle()
        assert 150_000 <= len(road.guest.got) < 250_000
        assert not road.down.reading
        assert len(road.up.out) > MIB, "TCP makes the sender wait"

        before = len(road.guest.got)
        road.guest.most = 350_000
        road.far.resume_reading()
        assert len(road.guest.got) == before, "who resumes is not called in the midst of that"
        await road.settle()
        assert 350_000 <= len(road.guest.got) < 450_000

        road.guest.most = 1 << 30
        road.far.resume_reading()
        await road.settle()
        assert road.guest.got == data

    play(scenario)


def test_who_sends_is_told_to_wait_by_tcp() -> None:
    async def scenario(road: Road) -> None:
        told: list[str] = []
        road.near.pause_writing()  # in the handshake nobody is there to be told
        road.near.resume_writing()
        road.user.pause_writing = lambda: told.append("pause")  # type: ignore[method-assign]
        road.user.resume_writing = lambda: told.append("resume")  # type: ignore[method-assign]
        await road.meet()
        assert road.up.high == 2 * streams.SLICE_BYTES
        road.near.pause_writing()
        road.near.resume_writing()
        assert told == ["pause", "resume"]

    play(scenario)


def test_tls_keeps_little_memory_of_what_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffers never shrink."""

    async def scenario(road: Road) -> None:
        await road.meet()
        far, most = road.far.encrypted, 0
        feed, seal = far.feed, road.near.encrypted.sealed

        def fed(data: memoryview) -> None:
            nonlocal most
            feed(data)
            most = max(most, far._incoming.pending)

        def sealed() -> bytes:
            found = seal()
            assert len(found) < 1.1 * streams.SLICE_BYTES
            return found

        monkeypatch.setattr(far, "feed", fed)
        monkeypatch.setattr(road.near.encrypted, "sealed", sealed)
        road.near.write(bytes(4 * MIB))
        road.pump()
        assert tunnel._FEED_BYTES <= most < tunnel._FEED_BYTES + 17_000

    play(scenario)


# --- handshakes that fail ------------------------------------------------------------------------


async def refused(road: Road) -> tuple[BaseException, BaseException]:
    """What both ends raise."""
    await road.shake()
    ends = await asyncio.gather(road.near.ready(), road.far.ready(), return_exceptions=True)
    assert isinstance(ends[0], OSError)
    assert isinstance(ends[1], OSError)
    assert road.user.lane is None
    assert road.guest.lane is None
    await road.settle()
    assert road.up.lost
    assert road.down.lost
    return ends[0], ends[1]


def test_a_server_of_another_swarm_is_told_so() -> None:
    async def scenario(road: Road) -> None:
        _, theirs = await refused(road)
        assert isinstance(road.ours.refusal, ssl.SSLCertVerificationError)
        assert isinstance(theirs, ssl.SSLError)
        assert "UNKNOWN_CA" in theirs.reason
        assert road.theirs.refusal is theirs

    play(scenario, *contexts(OTHER_SECRET))


def test_another_peer_than_expected_gets_no_byte() -> None:
    client = Credentials(CLIENT, SECRET, Ledger()).client_context(Lane.EXCHANGE, THIRD.peer)

    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        road.near.connection_made(road.up)
        hello = road.up.sent
        await road.settle()
        with pytest.raises(WrongIdentity):
            await road.near.ready()
        with pytest.raises(ConnectionResetError):
            await road.far.ready()
        assert road.up.sent == hello

    play(scenario, client, contexts()[1])


def test_a_client_of_another_swarm_is_told_so_amid_what_it_says() -> None:
    """In TLS 1.3 its handshake is done before the server has seen its certificate."""

    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        road.near.connection_made(road.up)
        road.down.take(MIB)
        road.up.take(MIB)
        await road.near.ready()
        road.near.write(bytes(4 * MIB))
        while road.down.take(MIB):  # all of it comes before the client hears anything
            assert not road.down.closing, "a reset would overtake the alert"
        await road.settle()
        assert road.ours.refusal is not None
        assert "UNKNOWN_CA" in road.ours.refusal.reason
        assert road.user.lost
        with pytest.raises(ConnectionResetError):
            await road.far.ready()
        assert isinstance(road.theirs.refusal, ssl.SSLCertVerificationError)
        assert road.guest.lane is None

    play(scenario, *contexts("of another"))


def test_who_is_refused_and_stays_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "CLOSE_S", 0.01)

    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        road.near.connection_made(road.up)
        road.down.take(MIB)
        road.up.take(MIB)
        road.down.take(MIB)
        assert not road.down.closing
        with pytest.raises(ConnectionResetError):
            await road.far.ready()
        assert not road.up.closing

    play(scenario, *contexts("of another"))


def test_noise_is_no_hello() -> None:
    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        road.up.out += noise(500)
        road.down.take(MIB)
        road.up.out.clear()
        road.up.closing = True
        await road.settle()
        assert isinstance(road.theirs.refusal, ssl.SSLError)
        with pytest.raises(ssl.SSLError):
            await road.far.ready()

    play(scenario)


@pytest.mark.parametrize("come", [0, 100])
def test_a_connection_that_ends_in_the_handshake(come: int) -> None:
    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        road.near.connection_made(road.up)
        if come:
            road.down.take(come)
        road.up.abort()
        await road.settle()
        for end in (road.near, road.far):
            with pytest.raises(ConnectionResetError, match="in the handshake"):
                await end.ready()
        assert road.theirs.refusal is None

    play(scenario)


def test_who_is_not_waited_for_any_more_is_dropped() -> None:
    async def scenario(road: Road) -> None:
        road.far.connection_made(road.down)
        waiting = asyncio.create_task(road.far.ready())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert road.down.closing

    play(scenario)


# --- how it ends ---------------------------------------------------------------------------------


def test_what_was_said_before_a_goodbye_is_heard() -> None:
    async def scenario(road: Road) -> None:
        await road.meet()
        road.near.write(b"goodbye")
        road.near.close()
        assert road.near.is_closing()
        road.near.write(b"and another thing")
        road.far.write(b"too late")
        await road.settle()
        assert road.guest.got == b"goodbye"
        assert road.user.got == b""
        for end in (road.user, road.guest, road.up, road.down):
            assert end.lost

    play(scenario)


def test_who_closes_lets_the_other_end_read_first() -> None:
    """What it still sends is let go by: a reset would overtake the goodbye."""

    async def scenario(road: Road) -> None:
        await road.meet()
        road.far.pause_reading()  # as a line does after what is wrong
        road.near.write(bytes(2 * MIB))
        road.far.write(b"that is wrong")
        road.far.close()
        await asyncio.sleep(0)
        while road.down.take(MIB):
            pass
        assert not road.up.out
        assert not road.down.closing
        await road.settle()
        assert road.user.got == b"that is wrong"
        assert road.down.lost
        assert road.guest.got == b""

    play(scenario)


def test_who_does_not_answer_a_goodbye_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "CLOSE_S", 0.01)

    async def scenario(road: Road) -> None:
        await road.meet()
        road.near.close()
        await until(lambda: road.user.lost)
        assert not road.down.closing

    play(scenario)


@pytest.mark.parametrize("cut", [1, 50, 20_000])
def test_a_connection_that_is_cut_is_lost(cut: int) -> None:
    async def scenario(road: Road) -> None:
        await road.meet()
        road.near.write(noise(20_000))
        del road.up.out[cut:]
        road.up.closing = True
        await road.settle()
        assert road.guest.lost
        assert road.guest.got == noise(20_000)[: 16_384 * (cut == 20_000)]
        road.far.close()
        road.far.abort()
        road.far.write(b"nobody hears this")
        road.far.resume_reading()
        await road.settle()

    play(scenario)


def test_what_is_no_tls_ends_it() -> None:
    async def scenario(road: Road) -> None:
        await road.meet()
        road.near.write(noise(100_000))
        road.up.out[50_000] ^= 1
        await road.settle()
        assert road.guest.lost
        assert noise(100_000).startswith(bytes(road.guest.got))
        assert len(road.guest.got) <= 50_000

    play(scenario)
