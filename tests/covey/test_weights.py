"""An array as weights: changed in place, never replaced."""

import numpy as np

from covey.weights import ArrayWeights


def test_an_array_is_changed_in_place() -> None:
    array = np.arange(4, dtype=np.float32)
    weights = ArrayWeights(array)
    copy = np.empty(4, np.float32)
    weights.gather(copy)
    assert copy.tolist() == [0, 1, 2, 3]
    weights.add(np.ones(4, np.float32))
    assert array.tolist() == [1, 2, 3, 4]
    weights.set(np.full(4, 7, np.float32))
    assert array.tolist() == [7, 7, 7, 7]
    assert weights.array is array
