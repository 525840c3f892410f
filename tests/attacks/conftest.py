"""What liars know of a step, made up."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.aggregation import mda_subset
from byzsgd.attacks import View
from byzsgd.cluster import Role


@pytest.fixture(scope="session")
def view() -> Callable[..., View]:
    """Makes views: ten correct vectors around 1, of which a receiver waits for some."""

    def make_view(
        *, correct: int = 5, count: int = 2, f: int = 2, quorum: int = 5, d: int = 40, seed: int = 7
    ) -> View:
        chance = np.random.default_rng(seed)
        vectors = tuple(1 + chance.standard_normal((correct, d), np.float32))
        first = tuple(5 + chance.standard_normal((correct, d), np.float32))
        return View(
            role=Role.WORKER,
            step=3,
            vectors=vectors,
            first=first,
            f=f,
            count=count,
            quorum=quorum,
            receivers=("s1", "s2", "s3", "s4"),
            seed=(1, 3, 1),
            selects=mda_subset,
        )

    return make_view
