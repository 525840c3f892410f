"""The contract of an attack, and what liars know when they forge a lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the liars of one role know of a step."""

    role: Role
    """Whether lying workers or lying servers speak."""
    step: int
    """The step that the lie is for."""
    vectors: tuple[Vector, ...]
    """``(d,)`` float32 each: what correct nodes of that role said last, ordered by identity. Of
    the step before, where the lie has to be there before they speak."""
    first: tuple[Vector, ...]
    """The same of the first step that anybody saw."""
    f: int
    """How many nodes of that role may lie, as the receivers believe."""
    count: int
    """How many of them really lie."""
    quorum: int
    """How many messages of that role a receiver waits for."""
    receivers: tuple[str, ...]
    """The identities that are lied to, sorted by role and then by identity."""
    seed: tuple[int, ...]
    """Of the liars' dice, another one for each step: all receivers of a step see equal throws."""
    selects: Callable[[Sequence[Vector], int], tuple[int, ...]]
    """The rows that minimum-diameter averaging selects of vectors with at most f liars."""

    def mean(self) -> Vector:
        """Mean of what the correct nodes said, ``(d,)`` float32."""
        return mean(self.vectors)


def mean(vectors: Sequence[Vector]) -> Vector:
    """Mean of vectors, ``(d,)`` float32, newly allocated."""
    wide: NDArray[np.float64] = np.mean(vectors, axis=0, dtype=np.float64)
    return wide.astype(np.float32)


def moved(start: Vector | float, direction: Vector, factor: float) -> Vector:
    """``start + factor * direction``, ``(d,)`` float32, newly allocated; overflow is infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        result: Vector = np.multiply(direction, np.float32(factor))
        result += start
    return result


class Attack(Protocol):
    """A frozen dataclass whose fields are the numbers that the attack takes."""

    # What dataclasses.fields needs to be told of a protocol.
    __dataclass_fields__: ClassVar[dict[str, Any]]

    roles: ClassVar[frozenset[Role]]
    """Who can play it."""
    per_receiver: ClassVar[bool]
    """Whether receivers are told different things."""

    def forge(self, view: View, receiver: str) -> Vector | None:
        """The lie that a receiver is told, ``(d,)`` float32, newly allocated; None for silence.

        All liars tell the same lie. It may hold anything that float32 can, NaN included.
        """
        ...


WORKERS = frozenset({Role.WORKER})
SERVERS = frozenset({Role.SERVER})
BOTH = WORKERS | SERVERS
