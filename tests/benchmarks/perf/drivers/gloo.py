"""One rank of ``torch.distributed`` with Gloo: each line on standard input is a round.

``pair``: exchange vectors with the neighbour and average, without encryption, discovery or
compression.  ``all``: all-reduce and average.  Runs in covey's own environment.
"""

import argparse
import json
import os
import sys
import time

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--rank", type=int, required=True)
parser.add_argument("--nodes", type=int, required=True)
parser.add_argument("--parameters", type=int, required=True)
parser.add_argument("--meet", required=True, help="HOST:PORT of rank 0")
parser.add_argument("--interface", default="lo")


def pair(vector: torch.Tensor, room: torch.Tensor, other: int) -> None:
    sending = dist.isend(vector, other)
    dist.recv(room, other)
    assert sending is not None, "this process belongs to the group"
    sending.wait()
    vector.lerp_(room, 0.5)


def main(given: argparse.Namespace) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = given.interface
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://{given.meet}", rank=given.rank, world_size=given.nodes
    )
    vector = torch.full((given.parameters,), float(given.rank))
    room = torch.empty_like(vector)
    print(json.dumps({"ready": given.rank}), flush=True)
    for line in sys.stdin:
        dist.barrier()
        start = time.monotonic()
        if line.strip() == "pair":
            pair(vector, room, given.rank ^ 1)
        else:
            dist.all_reduce(vector)
            vector.div_(given.nodes)
        end = time.monotonic()
        print(json.dumps({"start": start, "end": end, "value": float(vector[0])}), flush=True)


if __name__ == "__main__":
    main(parser.parse_args())
