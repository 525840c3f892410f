"""The contract of an attack, and what liars know when they forge a lie."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from byzsgd.cluster import Role
from byzsgd.vectors import Vector, norm


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the liars of one role know of a step."""

    role: Role
    """Whether lying workers or lying servers speak."""
    step: int
    """The step that the lie is for."""
    vectors: tuple[Vector, ...]
    """``(d,)`` float32 each, one or more: what correct nodes of that role said last, ordered by
    identity. Of the step before, where the lie has to be there before they speak."""
    first: tuple[Vector, ...]
    """The same of the first step that anybody saw."""
    last: Mapping[str, Vector]
    """What each correct node of that role said last, by identity: of whatever step that is."""
    past: Callable[[int], Vector]
    """Mean of what was said so many steps before ``vectors``, or of the oldest remembered: an
    attack remembers as many steps as its ``history``. To be asked while the lie is forged."""
    f: int
    """How many nodes of that role may lie, as the receivers believe."""
    count: int
    """How many of them really lie."""
    quorum: int
    """How many messages of that role a receiver waits for."""
    receivers: tuple[str, ...]
    """The identities that are lied to, sorted by role and then by identity."""
    seed: tuple[int, ...]
    """Of the liars' dice: the run's, then the step, then the role. All receivers of a step see
    equal throws."""
    selects: Callable[[Sequence[Vector], int], tuple[int, ...]]
    """The rows that minimum-diameter averaging selects of vectors with at most f liars."""
    aggregates: Callable[[Sequence[Vector], int], Vector]
    """What the rule in use, pre-steps included, makes of vectors with at most f liars: their mean
    where they are too few for it."""
    flipped: Callable[[], Vector] | None = None
    """What a correct worker would send that learns from flipped labels; None where unknown."""

    def mean(self) -> Vector:
        """Mean of what the correct nodes said, ``(d,)`` float32."""
        return mean(self.vectors)

    def quorums(self, count: float) -> list[list[Vector]]:
        """The correct vectors that may be in a receiver's quorum beside the lies, of some quorums.

        Nobody knows which correct nodes will be the fastest: each quorum begins with another one.
        """
        n = len(self.vectors)
        beside = min(max(self.quorum - self.count, 0), n)
        return [
            [self.vectors[(turn + place) % n] for place in range(beside)]
            for turn in range(max(int(count), 1))
        ]

    def place(self, receiver: str) -> int:
        """The place of a receiver among all, from 0: neighbours can be told opposites."""
        return self.receivers.index(receiver)


def mean(vectors: Sequence[Vector]) -> Vector:
    """Mean of vectors, ``(d,)`` float32, newly allocated."""
    wide: NDArray[np.float64] = np.mean(vectors, axis=0, dtype=np.float64)
    return wide.astype(np.float32)


def deviation(vectors: Sequence[Vector], ddof: float = 0) -> Vector:
    """Standard deviation of each coordinate; zero where too few vectors were seen."""
    if len(vectors) <= ddof:
        return np.zeros_like(vectors[0])
    wide: NDArray[np.float64] = np.std(vectors, axis=0, dtype=np.float64, ddof=ddof)
    with np.errstate(over="ignore"):
        return wide.astype(np.float32)


def moved(start: Vector | float, direction: Vector, factor: float) -> Vector:
    """``start + factor * direction``, ``(d,)`` float32, newly allocated; overflow is infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        result: Vector = np.multiply(direction, np.float32(factor))
        result += start
    return result


def of_length(vector: Vector, length: float) -> Vector:
    """A vector of the same direction and another length, newly allocated; zeros stay zeros."""
    return moved(0, vector, length / (norm(vector) or 1.0))


def undoing(view: View) -> Vector:
    """The way back: from where the correct models are to where they were a step ago."""
    now = view.mean()
    for before in (view.past(1), mean(view.first or view.vectors), np.zeros_like(now)):
        back = moved(before, now, -1)
        if back.any():
            return back
    return np.ones_like(now)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack(ABC):
    """What liars say: a frozen dataclass whose fields are the numbers that the attack takes."""

    roles: ClassVar[frozenset[Role]]
    """Who can play it."""
    per_receiver: ClassVar[bool] = False
    """Whether receivers are told different things."""
    needs_sight: ClassVar[bool] = True
    """Whether lying workers must know correct gradients; if not, any vectors will do."""
    needs_flipped: ClassVar[bool] = False
    """Whether liars need a task whose labels can be flipped."""

    @property
    def history(self) -> int:
        """How many steps back the liars must remember means."""
        return 1

    @abstractmethod
    def forge(self, view: View, receiver: str) -> Vector | None:
        """The lie that a receiver is told, ``(d,)`` float32, newly allocated; None for silence.

        All liars tell the same lie. It may hold anything that float32 can, NaN included.
        """


WORKERS = frozenset({Role.WORKER})
SERVERS = frozenset({Role.SERVER})
BOTH = WORKERS | SERVERS
