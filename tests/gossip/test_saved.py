"""What a checkpoint keeps of a model that has just begun."""

import numpy as np

from covey.gossip.saved import Saved


def test_a_fresh_model_is_at_rest() -> None:
    vector = np.arange(7, dtype=np.float32)
    made = Saved.fresh(vector, 5)
    assert made.x is vector
    assert np.array_equal(made.slow, vector[:5])
    assert made.momentum.shape == (5,)
    assert not made.momentum.any()
