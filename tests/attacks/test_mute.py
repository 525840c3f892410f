"""Silence."""

from collections.abc import Callable

from byzsgd.attacks import View
from byzsgd.attacks.mute import Mute


def test_says_nothing(view: Callable[..., View]) -> None:
    """A mute node tells nobody anything."""
    seen = view()
    lies = [Mute().forge(seen, receiver) for receiver in seen.receivers]  # type: ignore[func-returns-value]

    assert lies == [None] * 4
