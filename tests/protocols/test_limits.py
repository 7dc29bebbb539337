"""Limits: every one is a positive whole number, and what honest nodes send fits them."""

from covey.protocols import limits


def test_every_limit_is_a_positive_whole_number() -> None:
    found = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert len(found) > 15
    assert all(type(value) is int and value > 0 for value in found.values())


def test_a_layout_of_as_many_tensors_fits_its_bytes() -> None:
    """With names as long as those of large language models (about 60 characters) and two sizes."""
    row = 1 + 2 + 60 + 1 + 2 * 5 + 1 + 8 + 1 + 9
    assert limits.TENSORS_MAX * row <= limits.LAYOUT_BYTES_MAX
    assert limits.LAYOUT_BYTES_MAX + limits.KIB <= limits.LINK_FRAME_BYTES_MAX


def test_a_replay_window_outlasts_what_can_be_under_way() -> None:
    assert limits.REPLAY_WINDOW >= 64
    assert limits.UNVERIFIED_MAX <= limits.PEERS_MAX
