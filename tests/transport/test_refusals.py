"""How long who was cut off stays out."""

from byzsgd.transport.refusals import BAN_SECONDS, BAN_SECONDS_MAX, FORGIVE_SECONDS, Bans


def test_a_ban_grows_with_every_offence_up_to_a_limit() -> None:
    """Each storm costs twice as long a silence as the last one, and a peer is never shut out."""
    bans, now, seconds = Bans(), 1000.0, []
    for _ in range(20):
        seconds.append(bans.add("w1", now))
        assert bans.holds("w1", now + seconds[-1] * 0.99)
        now += seconds[-1]
        assert not bans.holds("w1", now)

    assert seconds[:3] == [BAN_SECONDS, 2 * BAN_SECONDS, 4 * BAN_SECONDS]
    assert seconds == sorted(seconds)
    assert seconds[-1] == BAN_SECONDS_MAX
    assert not bans.holds("w2", now)


def test_what_is_cut_off_during_a_ban_is_the_same_offence() -> None:
    """Ten connections that are cut one after the other count once."""
    bans = Bans()

    assert bans.add("w1", 10.0) == BAN_SECONDS
    for _ in range(9):
        assert bans.add("w1", 10.5) == BAN_SECONDS - 0.5
    assert bans.add("w1", 20.0) == 2 * BAN_SECONDS


def test_an_offence_is_forgotten() -> None:
    """Who behaves for an hour begins anew."""
    bans, now = Bans(), 100.0
    for _ in range(5):
        now += bans.add("w1", now)

    assert bans.add("w1", now + FORGIVE_SECONDS + 1) == BAN_SECONDS
