"""Where an exchange's time goes: ``python -m tests.benchmarks.perf.stages``.

Each stage of one exchange alone, of one node and in one thread, on real vectors: the bytes that it
must touch, the time it takes, and the time that this machine's memory, hash, cipher or loopback
would take for those bytes at best.
"""

import argparse
import os
import socket
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.signing import SigningKey

from covey.gossip import quantiser
from covey.gossip.codecs import Coder, Side, coder
from covey.gossip.config import OuterStep
from covey.gossip.quantiser import Floats
from covey.gossip.replica import Replica, Saved
from covey.node.learner_link import _make_map
from covey.node.ledger import Lane, Ledger
from covey.node.tls import Credentials
from covey.protocols.envelope import ENVELOPE_BYTES, Hash, Scope, Sealer, announce, open_sealed
from covey.protocols.identity import Identity
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import Commit
from tests.benchmarks import document

PIECE = 64 * 1024  # bytes that stay in cache
_NONCES = bytes(32)
Work = Callable[[], object]


@dataclass(frozen=True)
class Stage:
    """``bytes`` are read and written; ``limit_s`` is what ``limit`` takes for them at best."""

    name: str
    bytes: float
    seconds: float
    limit: str
    limit_s: float


@dataclass(frozen=True)
class Limits:
    """What this machine can do, in bytes per second, and in seconds per signature."""

    memory: float  # a copy of a large vector: bytes read and written
    hash: float  # BLAKE3 of a piece in cache
    cipher: float  # AES-256-GCM of pieces in cache, encrypted and decrypted again
    loopback: float  # a blocking TCP connection to another thread
    sign_s: float
    verify_s: float

    @classmethod
    def measured(cls, parameters: int, repeats: int) -> "Limits":
        source = np.ones(max(parameters, PIECE), np.float32)
        target = np.zeros_like(source)
        piece, cipher = os.urandom(PIECE), AESGCM(bytes(32))
        sealed = cipher.encrypt(bytes(12), piece, None)
        key = SigningKey(bytes(32))
        signed = key.sign(piece[:256])

        def best(work: Work, times: int) -> float:
            found = timed(lambda: [work() for _ in range(times)], repeats)
            return min(found) / times

        both_s = best(lambda: cipher.encrypt(bytes(12), piece, None), 50)
        both_s += best(lambda: cipher.decrypt(bytes(12), sealed, None), 50)
        payload = bytearray(max(parameters, PIECE))
        return cls(
            memory=2 * source.nbytes / best(lambda: np.copyto(target, source), 1),
            hash=PIECE / best(lambda: Hash(piece), 50),
            cipher=PIECE / both_s,
            loopback=len(payload) / best(lambda: carry(payload), 1),
            sign_s=best(lambda: key.sign(piece[:256]), 50),
            verify_s=best(lambda: key.verify_key.verify(signed), 50),
        )


def seconds(work: Work, repeats: int) -> float:
    """The median time of ``work``."""
    return statistics.median(timed(work, repeats))


def timed(work: Work, repeats: int) -> list[float]:
    """Its times in seconds, after a first run that maps memory."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return times


def carry(payload: bytearray) -> None:
    """Over a TCP connection of this machine, from one thread to another."""
    near, far = _connection()
    with near, far:
        sender = threading.Thread(target=near.sendall, args=(payload,))
        sender.start()
        room, left = memoryview(bytearray(1 << 20)), len(payload)
        while left:
            left -= far.recv_into(room)
        sender.join()


def _connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


class Exchange:
    """The vectors and messages of one exchange, as a node has them."""

    def __init__(self, parameters: int) -> None:
        rng = np.random.default_rng(0)
        layout = Layout((Tensor("w", (parameters,)),))
        self.parameters = parameters
        self.vector = rng.standard_normal(parameters, dtype=np.float32) * np.float32(0.02)
        self.replica = Replica(layout)
        self.replica.restore(Saved.fresh(self.vector, parameters))
        self.replica.learner_has(self.replica.x)
        self.vector += rng.standard_normal(parameters, dtype=np.float32) * np.float32(0.001)
        self.theirs = self.vector + rng.standard_normal(parameters, np.float32) * np.float32(1e-3)
        self.scales = np.full(quantiser.blocks_in(parameters), 0.004, np.float32)
        self.step = OuterStep(0.3)
        mine, other = self._coder(self.vector), self._coder(self.theirs)
        mine.open(other.scales(), _NONCES)
        other.open(mine.scales(), _NONCES)
        mine.write()
        self.layer = bytes(other.write())
        mine.read(self.layer)
        self.decoded = mine

    def scale(self) -> object:
        replica = self.replica
        scales = quantiser.own_scales(
            replica.sizes(), replica.movement(), replica.history.typical()
        )
        return quantiser.pack_scales(scales)

    def written(self) -> Coder:
        """A coder after it has encoded."""
        mine = self._coder(self.vector)
        mine.open(mine.scales(), _NONCES)
        mine.write()
        return mine

    def gate(self) -> None:
        self.decoded.outcome(self.scales)

    def _coder(self, vector: Floats) -> Coder:
        return coder("mod4", Side(vector, self.parameters, self.scales))


def stages(parameters: int, repeats: int) -> Iterator[Stage]:
    """One after the other, as they happen."""
    limits = Limits.measured(parameters, repeats)
    exchange = Exchange(parameters)
    with tempfile.TemporaryDirectory() as folder:
        areas = _make_map(Path(folder) / "bench.map", parameters)
        yield from _vectors(exchange, areas.snapshot, areas.increment, limits, repeats)
        del areas
    yield from _messages(exchange.layer, limits, repeats)


def _vectors(
    exchange: Exchange, snapshot: Floats, increment: Floats, limits: Limits, repeats: int
) -> Iterator[Stage]:
    """The stages at which vectors pass through memory."""
    d, replica, vector = exchange.parameters, exchange.replica, exchange.vector
    coded = len(exchange.layer)
    encode_s = seconds(exchange.written, repeats)

    def close() -> None:
        assert replica.progress(vector, True, lent=True, later=True)
        replica.found_finite()
        replica.mix(exchange.decoded, (0.5, 0.5))
        assert replica.outer_step(exchange.step, increment), "the learner has x"
        replica.applied()

    def decode() -> float:
        fresh = exchange.written()
        begin = time.perf_counter()
        fresh.read(exchange.layer)
        return time.perf_counter() - begin

    decode_s = statistics.median(decode() for _ in range(repeats))
    works: list[tuple[str, float, Work | float]] = [
        ("snapshot copy (learner)", 8 * d, lambda: np.copyto(snapshot, vector)),
        ("scales", 16 * d / quantiser.BLOCK, exchange.scale),
        ("check, dither and encode", 4 * d + coded, encode_s),
        ("decode", 2 * coded + d, decode_s),
        ("gate: distance, largest of each block", 10 * d / quantiser.BLOCK, exchange.gate),
        ("mix, outer step, increment", 24.5 * d, close),
        ("length of x", 4 * d / quantiser.BLOCK, replica.lengths),
        ("increment added (learner)", 12 * d, lambda: np.add(vector, increment, out=vector)),
    ]
    for name, touched, work in works:
        taken = work if isinstance(work, float) else seconds(work, repeats)
        yield Stage(name, touched, taken, "memory", touched / limits.memory)


def _messages(layer: bytes, limits: Limits, repeats: int) -> Iterator[Stage]:
    """The stages that codes and headers pass on their way: ours out, and as many bytes in."""
    identity, count = Identity(os.urandom(32)), len(layer)
    sealer, scope = Sealer(identity, bytes(16)), Scope(bytes(32), bytes(32))
    announcement, digest = announce(Commit(bytes(16))), Hash(layer).digest()

    def seal() -> bytes:
        return sealer.seal(scope, announcement, count, digest)

    envelope = seal()

    def hash_both() -> None:
        Hash(layer)
        Hash(layer)

    taken = seconds(hash_both, repeats)
    yield Stage("hash, ours and theirs", 2 * count, taken, "BLAKE3", 2 * count / limits.hash)
    yield Stage("sign", ENVELOPE_BYTES, seconds(seal, repeats), "Ed25519", limits.sign_s)

    def check() -> None:
        open_sealed(envelope, announcement, identity.peer, scope.swarm)

    yield Stage("verify", ENVELOPE_BYTES, seconds(check, repeats), "Ed25519", limits.verify_s)
    tunnel = Tunnel(identity)
    taken = seconds(lambda: tunnel.carry(layer), repeats)
    yield Stage("TLS, out and in", 2 * count, taken, "AES-GCM", count / limits.cipher)
    taken = seconds(lambda: carry(bytearray(layer)), repeats)
    yield Stage("socket", 2 * count, taken, "loopback", count / limits.loopback)


class Tunnel:
    """Both ends of a TLS connection between two nodes, in memory."""

    def __init__(self, identity: Identity) -> None:
        secret, other = bytes(32), Identity(os.urandom(32))
        client = Credentials(identity, secret, Ledger())
        server = Credentials(other, secret, Ledger())
        wires = [ssl.MemoryBIO(), ssl.MemoryBIO()]
        self._wire = wires[0]
        self._near = client.client_context(Lane.EXCHANGE, other.peer).wrap_bio(
            wires[1], wires[0], False
        )
        self._far = server.server_context().wrap_bio(wires[0], wires[1], True)
        waiting = [self._near, self._far]
        while waiting:
            for end in tuple(waiting):
                try:
                    end.do_handshake()
                    waiting.remove(end)
                except ssl.SSLWantReadError:
                    pass
        self._room = bytearray(4 * PIECE)

    def carry(self, data: bytes) -> None:
        """Encrypt ``data`` and decrypt it again, in pieces."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            self._near.write(piece)
            left = len(piece)
            while left:
                left -= self._far.read(left, self._room)


def table(found: Sequence[Stage], measured_s: float | None = None) -> str:
    """For docs/performance.md; ``measured_s`` is a whole exchange between two daemons."""
    head = ("stage", "bytes touched", "measured", "limit", "of", "share of the limit")
    lines = [_line(stage) for stage in found]
    total, least = sum(s.seconds for s in found), sum(s.limit_s for s in found)
    whole = Stage("all stages, one after the other", sum(s.bytes for s in found), total, "", least)
    lines.append(_line(whole))
    if measured_s is not None:
        ms = f"{1e3 * measured_s:.1f} ms"
        lines.append(("two daemons, snapshot to increment", "", ms, "", "", ""))
    return document.table(head, lines)


def _line(stage: Stage) -> tuple[str, ...]:
    bytes_told = f"{stage.bytes / 1e6:.1f} MB" if stage.bytes >= 1e5 else f"{stage.bytes:.0f} B"
    share = f"{stage.limit_s / stage.seconds:.0%}" if stage.seconds else document.NONE
    measured, limit = (f"{1e3 * s:.2f} ms" for s in (stage.seconds, stage.limit_s))
    return stage.name, bytes_told, measured, limit, stage.limit, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    print(table(list(stages(given.parameters, given.repeats))))


if __name__ == "__main__":
    main()
