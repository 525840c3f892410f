"""What liars have seen of correct nodes' vectors."""

from collections.abc import Mapping

from byzsgd.attacks.attack import mean
from byzsgd.vectors import Vector

STEPS_KEPT = 3
"""Steps of correct nodes' vectors that the liars remember, besides the first."""


class Sight:
    """Correct nodes' vectors of the last few steps, and of the first."""

    def __init__(self, history: int) -> None:
        """Begin with nothing.

        Args:
            history: For how many steps back to remember the mean.
        """
        self.first: tuple[Vector, ...] = ()
        self.newest = -1
        """The newest step that any vector is of."""
        self._history = history
        self._steps: dict[int, dict[str, Vector]] = {}
        self._last: dict[str, Vector] = {}
        self._means: dict[int, Vector] = {}

    @property
    def last(self) -> Mapping[str, Vector]:
        """What each node said last, by identity, sorted."""
        return dict(sorted(self._last.items()))

    def note(self, identity: str, step: int, vector: Vector) -> int:
        """Remember a vector; how many of its step are known now, 0 if that is too long ago."""
        if step <= self.newest - STEPS_KEPT:
            return 0
        votes = self._steps.setdefault(step, {})
        votes.setdefault(identity, vector)
        self._last[identity] = vector
        self.newest = max(self.newest, step)
        for old in [s for s in self._steps if s <= self.newest - STEPS_KEPT]:
            forgotten = self._steps.pop(old)
            if self._history >= STEPS_KEPT:
                self._means[old] = mean(list(forgotten.values()))
        for old in [s for s in self._means if s < self.newest - self._history]:
            del self._means[old]
        return len(votes)

    def rows(self, step: int) -> tuple[Vector, ...]:
        """The vectors of a step, ordered by identity."""
        votes = self._steps.get(step, {})
        rows = tuple(votes[identity] for identity in sorted(votes))
        self.first = self.first or rows
        return rows

    def past(self, step: int) -> Vector:
        """Mean of the vectors of a step that was seen, or of the next one after it that is known.

        Args:
            step: Not later than the newest.
        """
        known = sorted({*self._means, *self._steps})
        there = next(at for at in known if at >= min(step, self.newest))
        if there in self._steps:
            return mean(list(self._steps[there].values()))
        return self._means[there]
