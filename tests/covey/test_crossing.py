"""A vector to a device and back.  Only the CPU's way, where each copy is done at once: no GPU has
run the other one."""

import torch

from covey.crossing import Crossing


def test_either_side_crosses_to_the_other() -> None:
    crossing = Crossing(5, torch.device("cpu"))
    crossing.there.copy_(torch.arange(5))
    crossing.fetch()
    assert crossing.done(wait=False)
    assert crossing.here.tolist() == [0, 1, 2, 3, 4]
    crossing.here.mul_(2)
    crossing.bring()
    crossing.used()
    assert crossing.done(wait=True)
    assert crossing.there.tolist() == [0, 2, 4, 6, 8]


def test_both_sides_stay_where_they_are() -> None:
    crossing = Crossing(5, torch.device("cpu"))
    addresses = crossing.here.data_ptr(), crossing.there.data_ptr()
    for _ in range(3):
        crossing.fetch()
        crossing.bring()
    assert (crossing.here.data_ptr(), crossing.there.data_ptr()) == addresses
    assert crossing.here.dtype == crossing.there.dtype == torch.float32
