"""A script can catch covey's errors as one, or each as what it is."""

import covey
from covey.errors import CoveyError, NodeError, ShareError


def test_the_family() -> None:
    assert issubclass(NodeError, CoveyError)
    assert issubclass(ShareError, CoveyError)
    assert issubclass(ShareError, ValueError)
    assert covey.CoveyError is CoveyError
