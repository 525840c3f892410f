"""Optimal: of many lies, the one that turns the very rule in use furthest from the truth."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import WORKERS, Attack, View, deviation, mean, moved, of_length
from byzsgd.cluster import Role
from byzsgd.vectors import Vector, distance, is_finite, norm

LOUD = 1000.0
"""A length that is tried as well: what breaks averages, and is for robust rules to leave out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimal(Attack):
    """The lie with the smallest product of <rule(quorum), mean of the correct gradients>.

    The omniscient adversary: it knows the rule, its pre-steps and f, and tries on the quorum itself
    (the lies, and as many correct gradients as go with them) a few lengths in each of four
    directions from the mean: back; against the standard deviation (ALIE); against the sign of the
    mean, by standard deviations; and towards the correct gradient that is least like the mean.

    Source: Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks
    and Defenses for Federated Learning" (known aggregation); the search is ours.
    """

    roles: ClassVar[frozenset[Role]] = WORKERS

    reach: float = 2.0
    """The longest move tried, in radii: the largest distance of a correct gradient to the mean."""
    tries: float = 8
    """Lengths tried in each direction, evenly up to ``reach``."""
    quorums: float = 3
    """Quorums tried on: above 1 a lie has to work whichever correct gradients are fastest."""
    sample: float = 10_000
    """Coordinates tried on, drawn once a run, where there are more: or liars would be too slow."""

    def forge(self, view: View, receiver: str) -> Vector:
        """That lie."""
        del receiver
        seen = self._sampled(view)
        truth = seen.mean().astype(np.float64)
        liars = min(seen.count, seen.quorum)
        quorums = seen.quorums(self.quorums)

        def product(lie: Vector) -> float:
            if not is_finite(lie):
                return np.inf
            results = (seen.aggregates([lie] * liars + correct, seen.f) for correct in quorums)
            return float(sum(np.dot(result.astype(np.float64), truth) for result in results))

        # The first of equally good ones, so that the same view makes the same lie.
        best = int(np.argmin([product(lie) for lie in self._lies(seen)]))
        return next(islice(self._lies(view), best, None))

    def _sampled(self, view: View) -> View:
        """The view of some coordinates."""
        d, size = len(view.vectors[0]), max(int(self.sample), 1)
        if d <= size:
            return view
        some = np.sort(np.random.default_rng(view.seed[0]).choice(d, size, replace=False))
        return replace(view, vectors=tuple(vector[some] for vector in view.vectors))

    def _lies(self, view: View) -> Iterator[Vector]:
        """All lies that are tried, the same number of any view."""
        middle = mean(view.vectors)
        radius = max(distance(vector, middle) for vector in view.vectors) or norm(middle)
        tries = max(int(self.tries), 1)
        for direction in _directions(view, middle):
            unit = of_length(direction, radius)
            for place in range(tries):
                yield moved(middle, unit, self.reach * (place + 1) / tries)
        yield moved(middle, of_length(middle, radius), -LOUD)


def _directions(view: View, middle: Vector) -> Iterator[Vector]:
    spread = deviation(view.vectors)
    yield -middle
    yield -spread
    yield -np.sign(middle) * spread
    least = min(view.vectors, key=lambda vector: float(np.dot(vector.astype(np.float64), middle)))
    yield moved(least, middle, -1)
