"""The worst model that is still within the correct models' range."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from byzsgd.attacks import View
from byzsgd.attacks.median_edge import MedianEdge
from byzsgd.cluster import Role


def test_the_extreme_against_training(view: Callable[..., View]) -> None:
    """A coordinate is the correct models' largest where training went down, else their smallest."""
    seen = view(role=Role.SERVER)
    way = np.where(np.arange(40) % 2 == 0, np.float32(1), np.float32(-1))
    seen = replace(seen, past=lambda age: seen.mean() + way)
    lie = MedianEdge().forge(seen, "s1")

    np.testing.assert_array_equal(lie[::2], np.max(seen.vectors, 0)[::2])
    np.testing.assert_array_equal(lie[1::2], np.min(seen.vectors, 0)[1::2])


def test_a_median_moves_to_the_edge_and_no_further(view: Callable[..., View]) -> None:
    """A lie further out moves no median further than this one does."""
    seen = view(role=Role.SERVER, correct=4)
    lie = MedianEdge().forge(seen, "s1")
    further = lie - 1000  # The made-up training went up, so this is the way back.

    np.testing.assert_array_equal(
        np.median([*seen.vectors, lie], 0), np.median([*seen.vectors, further], 0)
    )
