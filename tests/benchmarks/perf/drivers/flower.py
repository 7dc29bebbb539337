"""Flower's gRPC server or one of its clients: each line on the server's standard input is a round.

``flower.py server|client ADDRESS PARAMETERS CLIENTS``, in an environment of its own (peers.sh).
A round is from the model's sending to the clients until their average is there.
"""

import json
import sys
import time
from typing import Any

import flwr as fl
import numpy as np

BYTES_MAX = 1 << 30


class Client(fl.client.NumPyClient):  # type: ignore[misc]
    """Adds one to the model, so that nothing but moving it takes time."""

    def __init__(self, parameters: int) -> None:
        self._parameters = parameters

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        return [np.zeros(self._parameters, np.float32)]

    def fit(
        self, model: list[Any], config: dict[str, Any]
    ) -> tuple[list[Any], int, dict[str, Any]]:
        return [part + np.float32(1) for part in model], 1, {}


class Rounds(fl.server.strategy.FedAvg):  # type: ignore[misc]
    """FedAvg that waits for a line before each round and tells when it was over."""

    def configure_fit(self, *given: Any, **named: Any) -> Any:
        if not sys.stdin.readline():
            sys.exit()
        self._start = time.monotonic()
        return super().configure_fit(*given, **named)

    def aggregate_fit(self, *given: Any, **named: Any) -> Any:
        made = super().aggregate_fit(*given, **named)
        print(json.dumps({"start": self._start, "end": time.monotonic()}), flush=True)
        return made


def serve(address: str, parameters: int, clients: int) -> None:
    model = fl.common.ndarrays_to_parameters([np.zeros(parameters, np.float32)])
    strategy = Rounds(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=model,
    )
    print(json.dumps({"ready": 0}), flush=True)
    config = fl.server.ServerConfig(num_rounds=1_000_000)
    fl.server.start_server(
        server_address=address, config=config, strategy=strategy, grpc_max_message_length=BYTES_MAX
    )


def main(role: str, address: str, parameters: int, clients: int) -> None:
    if role == "server":
        serve(address, parameters, clients)
    else:
        fl.client.start_client(
            server_address=address,
            client=Client(parameters).to_client(),
            grpc_max_message_length=BYTES_MAX,
            insecure=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
