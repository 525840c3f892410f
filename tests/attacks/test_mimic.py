"""One correct worker's words, repeated."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.mimic import Mimic


@pytest.mark.parametrize("victim", [0, 3, 12])
def test_one_victim(victim: int, view: Callable[..., View]) -> None:
    """All servers hear the same correct worker repeated, the one of that place."""
    seen = view(correct=5)

    for server in seen.receivers:
        lie = Mimic(victim=victim, per_server=0).forge(seen, server)
        np.testing.assert_array_equal(lie, seen.vectors[victim % 5])


def test_a_victim_for_each_server(view: Callable[..., View]) -> None:
    """Each server hears another correct worker repeated, beginning with the victim."""
    seen = view(correct=3)
    lies = [Mimic(victim=1).forge(seen, server) for server in seen.receivers]

    for lie, place in zip(lies, (1, 2, 0, 1), strict=True):
        np.testing.assert_array_equal(lie, seen.vectors[place])
