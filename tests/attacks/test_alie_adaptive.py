"""As far within the spread of the correct gradients as the rule lets a lie go."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.aggregation import mda_subset
from byzsgd.attacks import View
from byzsgd.attacks.alie import Alie
from byzsgd.attacks.alie_adaptive import AlieAdaptive

Z_MAX = 16.0
FINER = 0.01


@pytest.mark.parametrize("quorums", [1, 3])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_z_that_is_selected(sign: int, quorums: int, view: Callable[..., View]) -> None:
    """Lies are all selected, whichever quorum it is; a little further, in some quorum not all."""
    for seed in range(20):
        correct, count, quorum = [(5, 2, 5), (3, 1, 3), (7, 3, 7), (8, 2, 8)][seed % 4]
        seen = view(correct=correct, count=count, f=count, quorum=quorum, seed=seed)
        mean, deviation = np.mean(seen.vectors, 0), np.std(seen.vectors, 0)
        lie = AlieAdaptive(sign=sign, quorums=quorums).forge(seen, "s1")
        z = float(np.median(sign * (lie - mean) / deviation))

        def selected(z: float, seen: View = seen) -> bool:
            mean, deviation = np.mean(seen.vectors, 0), np.std(seen.vectors, 0)
            lies = [mean + np.float32(sign * z) * deviation] * seen.count
            return all(
                set(range(seen.count)) <= set(mda_subset(lies + others, seen.f))
                for others in seen.quorums(quorums)
            )

        np.testing.assert_allclose(lie, mean + sign * z * deviation, atol=1e-4)
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


@pytest.mark.parametrize("z_max", [2.0, 16.0])
def test_liars_who_are_the_majority_of_the_quorum(z_max: float, view: Callable[..., View]) -> None:
    """Where the quorum is too small for the rule's bound, the lie is as far as lies go."""
    seen = view(correct=5, count=2, f=2, quorum=4)
    lie = AlieAdaptive(z_max=z_max).forge(seen, "s1")

    np.testing.assert_array_equal(lie, Alie(z=z_max).forge(seen, "s1"))


def test_the_search_ends(view: Callable[..., View]) -> None:
    """A precision of nothing at all is taken for as much as float32 can show."""
    seen = view()
    fine, finest = (AlieAdaptive(precision=p).forge(seen, "s1") for p in (0.001, 0.0))

    np.testing.assert_allclose(fine, finest, atol=0.01)
