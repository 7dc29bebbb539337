"""How long an accepter waits, and that going silent does not pay."""

from covey.gossip.patience import Patience
from covey.protocols.identity import PeerId

ALICE, BOB = PeerId(b"a" * 32), PeerId(b"b" * 32)


def test_it_follows_what_exchanges_take() -> None:
    patience = Patience()
    assert patience.seconds == 10.0
    for _ in range(40):
        patience.heard(ALICE, 0.01)
    assert patience.seconds == 4.0
    patience.heard(BOB, 3.0)
    assert patience.seconds == 12.0
    patience.heard(ALICE, 0.01)
    assert patience.seconds > 9.0, "a slow peer among fast ones is waited for"
    patience.heard(BOB, 1e9)
    assert patience.seconds == 60.0


def test_a_large_model_over_a_slow_link_is_waited_for() -> None:
    """100 million parameters at 1 Mbit/s take 800 s; at 10 Mbit/s they take 80."""
    patience = Patience(10**8)
    assert patience.seconds == 10.0
    patience.heard(ALICE, 80.0)
    assert patience.seconds == 320.0
    patience.heard(ALICE, 800.0)
    assert patience.seconds == 3200.0
    patience.heard(ALICE, 1e9)
    assert patience.seconds < 3300.0


def test_one_silence_costs_nothing() -> None:
    patience = Patience()
    patience.silent(ALICE, 100.0)
    assert not patience.refuses(ALICE, 100.0)
    assert patience.seconds == 20.0


def test_silence_after_silence_costs_ever_more() -> None:
    patience, now, shares = Patience(), 0.0, []
    for _ in range(12):
        waited = patience.seconds
        now += waited
        patience.silent(ALICE, now)
        penance = 0.0
        while patience.refuses(ALICE, now + penance):
            penance += 1.0
        assert not patience.refuses(BOB, now)
        now += penance
        shares.append(waited / (waited + penance))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert shares[-1] < 0.03, "of our time that a silent peer can hold us"


def test_codes_in_time_clear_the_slate() -> None:
    patience = Patience()
    for now in (0.0, 100.0, 200.0):
        patience.silent(ALICE, now)
    assert patience.refuses(ALICE, 201.0)
    patience.heard(ALICE, 0.1)
    assert not patience.refuses(ALICE, 201.0)


def test_it_remembers_a_bounded_number_of_peers() -> None:
    patience = Patience()
    for number in range(3000):
        patience.silent(PeerId(number.to_bytes(32, "big")), 0.0)
    assert len(patience._silent) <= 1024
