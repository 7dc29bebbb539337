"""The rates at which eth0 carries bulk: lines ``start`` and ``stop`` on standard input.

Runs inside a network namespace.  A rate is that of the middle 80 % of the bytes of one direction
between the two lines, in bytes of TCP's payload per second: without the waiting before and after.
"""

import json
import select
import sys
import time
from pathlib import Path

LOOK_S = 0.001
HEADERS = 66  # bytes of a packet: Ethernet 14, IPv4 20, TCP 32
Sample = tuple[float, int, int]  # time, bytes sent, bytes received


def look() -> Sample:
    words = Path("/proc/net/dev").read_text().partition("eth0:")[2].split()
    received, sent = (int(words[n]) - HEADERS * int(words[n + 1]) for n in (0, 8))
    return time.monotonic(), sent, received


def rate(samples: list[Sample], column: int) -> float:
    """Bytes/s between the first sample with 10 % of the bytes and the first with 90 %."""
    first, last = samples[0][column], samples[-1][column]
    bounds = [first + share * (last - first) for share in (0.1, 0.9)]
    begin, end = (next(s for s in samples if s[column] >= bound) for bound in bounds)
    return float(end[column] - begin[column]) / max(end[0] - begin[0], LOOK_S)


def main() -> None:
    print(json.dumps({"ready": 0}), flush=True)
    while sys.stdin.readline():  # start
        samples = [look()]
        while not select.select([sys.stdin], [], [], LOOK_S)[0]:
            samples.append(look())
        sys.stdin.readline()  # stop
        samples.append(look())
        print(json.dumps({"sent": rate(samples, 1), "received": rate(samples, 2)}), flush=True)


if __name__ == "__main__":
    main()
