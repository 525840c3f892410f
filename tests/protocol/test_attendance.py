"""Who is waited for, where delays are bounded."""

from collections import Counter

import pytest

from byzsgd.protocol.attendance import DOUBLINGS_MAX, Attendance


@pytest.fixture
def missed() -> Counter[str]:
    return Counter()


@pytest.fixture
def attendance(missed: Counter[str]) -> Attendance:
    return Attendance(missed)


def test_everybody_is_waited_for_at_first(attendance: Attendance) -> None:
    """Nobody is passed over, and being in time changes nothing."""
    attendance.attend("w1", 1)

    assert not attendance.passed_over


def test_who_missed_a_round_is_passed_over(attendance: Attendance, missed: Counter[str]) -> None:
    """A node that misses a round is counted and passed over."""
    attendance.miss("w1")

    assert set(attendance.passed_over) == {"w1"}
    assert missed == {"w1": 1}


def test_an_unlucky_peer_is_back_at_once(attendance: Attendance) -> None:
    """Who missed a single round has to be in time once."""
    attendance.miss("w1")
    attendance.attend("w1", 1)

    assert not attendance.passed_over


def test_who_is_late_on_purpose_holds_up_ever_fewer_rounds(attendance: Attendance) -> None:
    """Twice as many after each miss, up to a limit."""
    rounds = []
    numbers = iter(range(10_000))
    for _ in range(13):
        attendance.miss("w1")
        count = 0
        while "w1" in attendance.passed_over:
            attendance.attend("w1", next(numbers))
            count += 1
        rounds.append(count)

    assert rounds == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert rounds[-1] == 2**DOUBLINGS_MAX


def test_a_round_counts_once(attendance: Attendance) -> None:
    """Who says the same again, or something else, was in time in one round all the same."""
    attendance.miss("w1")
    attendance.miss("w1")
    for number in (1, 1, 1, 0):
        attendance.attend("w1", number)
    assert set(attendance.passed_over) == {"w1"}

    attendance.attend("w1", 2)
    assert not attendance.passed_over
