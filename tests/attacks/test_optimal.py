"""The lie that turns the rule in use furthest from the truth."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.aggregation import average, coordinate_median, krum
from byzsgd.attacks import Attack, View
from byzsgd.attacks.alie import Alie
from byzsgd.attacks.alie_adaptive import AlieAdaptive
from byzsgd.attacks.empire import Empire
from byzsgd.attacks.optimal import Optimal
from byzsgd.attacks.sign_flip import SignFlip
from byzsgd.attacks.zero import Zero

RULES = {"average": average, "coordinate_median": coordinate_median, "krum": krum}


def product(attack: Attack, seen: View) -> float:
    """What the rule makes of the lies and the first correct gradients, times the correct mean."""
    lie = attack.forge(seen, "s1")
    assert lie is not None
    (others,) = seen.quorums(1)
    return float(seen.aggregates([lie] * seen.count + others, seen.f) @ np.mean(seen.vectors, 0))


@pytest.mark.parametrize("rule", ["mda", *RULES])
def test_worse_than_what_knows_less(rule: str, view: Callable[..., View]) -> None:
    """Against every rule it does more harm than attacks that do not try their lies on it."""
    others = [Alie(), Empire(), Empire(eps=0.1), Zero(), SignFlip()]
    ours, theirs = [], []
    for seed in range(10):
        seen = view(correct=7, count=2, f=2, quorum=7, seed=seed)
        seen = replace(seen, aggregates=RULES.get(rule, seen.aggregates))
        ours.append(product(Optimal(quorums=1), seen))
        theirs.append([product(attack, seen) for attack in others])

    assert np.mean(ours) < np.mean(theirs, 0).min()


def test_worse_than_adaptive_alie(view: Callable[..., View]) -> None:
    """More directions than one do more harm than the most of one."""
    views = [view(seed=seed) for seed in range(20)]
    ours = np.mean([product(Optimal(quorums=1), seen) for seen in views])

    assert ours < np.mean([product(AlieAdaptive(quorums=1), seen) for seen in views])


def test_an_average_is_turned_round(view: Callable[..., View]) -> None:
    """A rule that leaves nobody out is turned round, and by far."""
    seen = replace(view(), aggregates=average)

    assert product(Optimal(), seen) < -100


def test_any_quorum(view: Callable[..., View]) -> None:
    """A lie tried on several quorums is tried with every correct gradient beside it."""
    beside: set[bytes] = set()
    seen = view(correct=5, quorum=5, count=2)

    def aggregates(rows: list[np.ndarray], f: int) -> np.ndarray:
        beside.update(row.tobytes() for row in rows[2:])
        return np.mean(rows, 0)

    Optimal(quorums=3).forge(replace(seen, aggregates=aggregates), "s1")

    assert beside == {vector.tobytes() for vector in seen.vectors}


def test_a_sample_of_the_coordinates(view: Callable[..., View]) -> None:
    """The rule is tried on a sample of the coordinates, and the lie has them all."""
    widths: set[int] = set()
    seen = view(d=4000)
    whole = Optimal(sample=4000).forge(seen, "s1")

    def aggregates(rows: list[np.ndarray], f: int) -> np.ndarray:
        widths.add(len(rows[0]))
        return seen.aggregates(rows, f)

    lie = Optimal(sample=1000).forge(replace(seen, aggregates=aggregates), "s1")

    assert widths == {1000}
    np.testing.assert_array_equal(lie, whole)


def test_options_that_ask_for_nothing(view: Callable[..., View]) -> None:
    """No lengths, no quorums and no coordinates are taken for one of each."""
    seen = view()

    assert Optimal(tries=0, quorums=0, sample=0).forge(seen, "s1").shape == (40,)
