"""Votes for a few steps at a time: what bounds a node's memory."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzsgd.messages import STEP_MAX, Reason
from byzsgd.protocol.window import Window
from byzsgd.vectors import Vector

PEERS = ("w1", "w2", "w3")
LENGTH = 3


def v(value: float = 1) -> Vector:
    return np.float32([value])


@pytest.fixture
def window() -> Window:
    return Window(PEERS, LENGTH)


def test_a_step_collects_one_vote_for_each_identity(window: Window) -> None:
    """A second vote does not count, and its reason tells a repeated one from a different one."""
    assert window.admit("w1", 0, v(1)) is None
    assert window.admit("w2", 0, v(2)) is None
    assert window.admit("w1", 0, v(1)) is Reason.DUPLICATE
    assert window.admit("w1", 0, v(3)) is Reason.EQUIVOCATION
    assert window.votes(0) == window.held == 2
    assert window.lacking(0) == ("w3",)
    window.validate()


def test_nobody_has_voted_in_a_step_that_nobody_spoke_of(window: Window) -> None:
    """Such a step has no votes, and lacks everybody, in order."""
    assert window.votes(5) == 0
    assert window.lacking(5) == PEERS
    assert window.newest(1) is None
    assert window.fullest() is None


def test_votes_below_the_floor_are_refused(window: Window) -> None:
    """The step just over is late, which is normal; all before it are stale."""
    window.advance(7)

    assert window.admit("w1", 7, v()) is None
    assert window.admit("w1", 6, v()) is Reason.LATE
    assert window.admit("w1", 5, v()) is Reason.STALE
    assert window.admit("w1", 0, v()) is Reason.STALE
    assert window.held == 1


def test_advancing_forgets_what_is_over(window: Window) -> None:
    """Votes of earlier steps give their room back; those of later steps stay."""
    for step in (0, 1, 2):
        for peer in PEERS:
            window.admit(peer, step, v(step))

    window.advance(2)

    assert [window.votes(step) for step in (0, 1, 2)] == [0, 0, 3]
    assert window.held == 3
    assert window.admit("w1", 3, v()) is window.admit("w1", 4, v()) is None
    assert window.votes(2) == 3
    window.validate()


def test_a_vote_too_many_pushes_out_the_oldest_of_the_same_peer(window: Window) -> None:
    """A peer that floods wastes its own room and nobody else's."""
    window.admit("w2", 0, v())
    for step in (0, 900, 2, 1):
        assert window.admit("w1", step, v()) is None

    assert window.votes(0) == 1
    assert "w2" in window.quorum(0)
    assert [window.votes(step) for step in (900, 2, 1)] == [1, 1, 1]
    assert window.held == 4
    window.validate()


def test_a_refused_vote_pushes_nothing_out(window: Window) -> None:
    """Only a vote that counts takes room."""
    for step in (0, 1, 2):
        window.admit("w1", step, v())
    for _ in range(10):
        assert window.admit("w1", 2, v(9)) is Reason.EQUIVOCATION

    assert [window.votes(step) for step in (0, 1, 2)] == [1, 1, 1]


def test_the_newest_step_with_enough_votes(window: Window) -> None:
    """A newer step with too few votes does not count, nor an older one with enough."""
    for peer, steps in {"w1": (4, 5, 6), "w2": (4, 5), "w3": (4,)}.items():
        for step in steps:
            window.admit(peer, step, v())

    assert window.newest(1) == 6
    assert window.newest(2) == 5
    assert window.newest(3) == 4
    assert window.newest(4) is None


def test_the_fullest_step(window: Window) -> None:
    """The step with the most votes, the newest of several."""
    window.admit("w1", 4, v())
    window.admit("w1", 9, v())
    assert window.fullest() == 9

    window.admit("w2", 4, v())
    assert window.fullest() == 4


def test_a_window_that_is_opened_again_takes_votes_of_any_step(window: Window) -> None:
    """What was over is no longer refused, and what was held stays."""
    window.advance(7)
    window.admit("w1", 8, v())

    window.reopen()

    assert window.admit("w2", 0, v()) is None
    assert window.votes(8) == 1
    window.validate()


def test_a_window_that_is_cleared_is_as_new(window: Window) -> None:
    """No vote counts any more, and any may."""
    window.advance(7)
    window.admit("w1", 8, v(1))

    window.clear()

    assert window.held == 0
    assert window.admit("w1", 8, v(2)) is None
    assert window.admit("w2", 0, v()) is None


STEPS = st.integers(0, 6) | st.sampled_from([10**6, STEP_MAX])
MOVES = st.one_of(
    st.tuples(st.just("admit"), st.sampled_from(PEERS), STEPS, st.integers(0, 1)),
    st.tuples(st.just("advance"), STEPS),
    st.just(("reopen",)),
    st.just(("clear",)),
)


@settings(max_examples=300)
@given(moves=st.lists(MOVES, max_size=60))
def test_no_sequence_of_events_exceeds_length_times_identities(moves: list[tuple]) -> None:
    """At most one vector an identity for each step of a short window, whatever peers send."""
    window = Window(PEERS, LENGTH)
    actions: dict[str, Callable[..., object]] = {
        "admit": lambda peer, step, value: window.admit(peer, step, v(value)),
        "advance": window.advance,
        "reopen": window.reopen,
        "clear": window.clear,
    }
    for name, *arguments in moves:
        actions[name](*arguments)

        window.validate()
        assert window.held <= LENGTH * len(PEERS)
        for peer in PEERS:
            mine = [step for step in window._steps if peer in window.quorum(step)]
            assert len(mine) <= LENGTH


def test_ten_times_as_many_votes_as_there_is_room_for(window: Window) -> None:
    """A flood of votes fills the window once; empty steps leave nothing behind."""
    for step in range(10 * LENGTH):
        for peer in PEERS:
            window.admit(peer, step, v())

    assert window.held == LENGTH * len(PEERS)
    assert len(window._steps) == LENGTH
    window.validate()
