"""One hivemind peer: each line on standard input is a round of averaging, in groups of all.

Runs in an environment of its own (peers.sh).  A peer is a tree of processes: this one, its DHT's,
its averager's, and p2pd.
"""

import json
import sys
import time
from typing import Any

import torch
from hivemind import DHT, DecentralizedAverager
from hivemind.compression import Float16Compression, NoCompression

MATCHMAKING_S = 2.0  # at least; groups are full before that
ROUND_S_MAX = 60.0


def main(given: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    dht = DHT(initial_peers=given["initial"], host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
    vector = torch.randn(
        given["parameters"], generator=torch.Generator().manual_seed(given["number"])
    )
    averager = DecentralizedAverager(
        [vector * 0.02],
        dht,
        prefix="bench",
        target_group_size=given["nodes"],
        min_group_size=given["nodes"],
        min_matchmaking_time=MATCHMAKING_S,
        request_timeout=1.0,
        compression=Float16Compression() if given["half"] else NoCompression(),
        start=True,
    )
    addresses = [str(address) for address in dht.get_visible_maddrs()]
    print(json.dumps({"ready": given["number"], "addresses": addresses}), flush=True)
    for _ in sys.stdin:
        start = time.monotonic()
        group = averager.step(timeout=ROUND_S_MAX, allow_retries=True)
        end = time.monotonic()
        with averager.get_tensors() as tensors:
            value = float(tensors[0].mean())
        members = len(group) if group else 0
        found = {"start": start, "end": end, "value": value, "members": members}
        print(json.dumps(found), flush=True)
    averager.shutdown()
    dht.shutdown()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
