"""What the simulator's tests share: seeded examples, sums in one order."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")


@pytest.fixture(scope="session", autouse=True)
def exact() -> None:
    """As an experiment does, and what makes it fastest here: one thread."""
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
