"""What liars know of a step, made up."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.aggregation import mda, mda_subset
from byzsgd.attacks import View
from byzsgd.attacks.attack import mean
from byzsgd.cluster import Role


@pytest.fixture(scope="session")
def view() -> Callable[..., View]:
    """Makes views: some correct vectors around 1, of which a receiver waits for some.

    What was said a step ago was 0.5 less, and 0.5 less for each step before that.
    """

    def make_view(
        *,
        role: Role = Role.WORKER,
        correct: int = 5,
        count: int = 2,
        f: int = 2,
        quorum: int = 5,
        d: int = 40,
        seed: int = 7,
    ) -> View:
        chance = np.random.default_rng(seed)
        vectors = tuple(1 + chance.standard_normal((correct, d), np.float32))
        first = tuple(5 + chance.standard_normal((correct, d), np.float32))
        flipped = chance.standard_normal(d, np.float32)
        return View(
            role=role,
            step=3,
            vectors=vectors,
            first=first,
            last={f"s{place + 1}": vector for place, vector in enumerate(vectors)},
            past=lambda age: mean(vectors) - np.float32(age / 2),
            f=f,
            count=count,
            quorum=quorum,
            receivers=("s1", "s2", "s3", "s4"),
            seed=(1, 3, 1),
            selects=mda_subset,
            aggregates=lambda rows, f: mda(rows, f) if len(rows) > 2 * f else mean(rows),
            flipped=lambda: flipped,
        )

    return make_view
