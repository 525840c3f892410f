"""A little is enough: lies within the spread of the correct gradients."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.aggregation import mda_subset
from byzsgd.attacks import View
from byzsgd.attacks.alie import HALVINGS, Z_MAX, Alie, AlieAdaptive

FINER = 2 * Z_MAX / 2**HALVINGS


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("z", [-1.0, 0.0, 1.5])
def test_standard_deviations_from_the_mean(z: float, ddof: int, view: Callable[..., View]) -> None:
    """The lie is z standard deviations below the mean in every coordinate."""
    seen = view()
    wide = np.array(seen.vectors, np.float64)
    lie = Alie(z=z, ddof=ddof).forge(seen, "s1")

    np.testing.assert_allclose(lie, wide.mean(0) - z * wide.std(0, ddof=ddof), atol=1e-5)


def test_of_one_vector_no_deviation(view: Callable[..., View]) -> None:
    """Where a single gradient was seen, the lie is that gradient."""
    seen = view(correct=1)

    np.testing.assert_array_equal(Alie(ddof=1).forge(seen, "s1"), seen.vectors[0])


def test_the_largest_z_that_is_selected(view: Callable[..., View]) -> None:
    """Adaptive lies are all selected by minimum-diameter averaging; a little further, not all."""
    for seed in range(30):
        correct, count, quorum = [(5, 2, 5), (3, 1, 3), (7, 3, 7), (8, 2, 8)][seed % 4]
        seen = view(correct=correct, count=count, f=count, quorum=quorum, seed=seed)
        mean, deviation = np.mean(seen.vectors, 0), np.std(seen.vectors, 0)
        lie = AlieAdaptive().forge(seen, "s1")
        z = float(np.median((mean - lie) / deviation))

        def selected(z: float, seen: View = seen) -> bool:
            mean, deviation = np.mean(seen.vectors, 0), np.std(seen.vectors, 0)
            rows = [mean - np.float32(z) * deviation] * seen.count
            rows += seen.vectors[: seen.quorum - seen.count]
            return set(range(seen.count)) <= set(mda_subset(rows, seen.f))

        np.testing.assert_allclose(lie, mean - z * deviation, atol=1e-4)
        assert 0 < z < Z_MAX
        assert selected(z - FINER)
        assert not selected(z + FINER)


def test_fewer_liars_than_tolerated(view: Callable[..., View]) -> None:
    """One liar where two are tolerated reckons with the f of its receivers, not with its own."""
    fs: list[int] = []
    seen = view(correct=6, count=1, f=2, quorum=5)

    def selects(rows: object, f: int) -> tuple[int, ...]:
        fs.append(f)
        return (0,)

    AlieAdaptive().forge(replace(seen, selects=selects), "s1")

    assert set(fs) == {2}


def test_liars_who_are_the_majority_of_the_quorum(view: Callable[..., View]) -> None:
    """Where the quorum is too small for the rule's bound, the lie is as far as lies go."""
    seen = view(correct=5, count=2, f=2, quorum=4)
    lie = AlieAdaptive().forge(seen, "s1")

    np.testing.assert_array_equal(lie, Alie(z=Z_MAX).forge(seen, "s1"))
