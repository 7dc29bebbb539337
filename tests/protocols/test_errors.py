"""Errors: one class, five kinds, each with the name of its counter."""

from covey.protocols import errors
from covey.protocols.errors import RemoteError


def test_each_kind_names_its_counter() -> None:
    kinds = RemoteError.__subclasses__()
    reasons = {kind.__name__: kind.reason for kind in kinds if kind.__module__ == errors.__name__}
    assert reasons == {
        "Malformed": "malformed",
        "TooLarge": "too_large",
        "Unsupported": "unsupported",
        "Forged": "forged",
        "Stale": "stale",
    }


def test_a_peers_fault_is_no_fault_of_ours() -> None:
    """So that no clause catches both."""
    assert not issubclass(RemoteError, (ValueError, OSError, AssertionError))
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in RemoteError.__subclasses__()[:5])
