"""The votes of one step: one an identity, the first q of them count."""

from collections.abc import Iterator

import numpy as np

from byzsgd.messages import Reason
from byzsgd.vectors import Vector


class Quorum:
    """Votes of one step in the order of their arrival, one an identity.

    Guarantee 1: a quorum counts authenticated identities, and of an identity that says two
    different things the first one counts.
    """

    def __init__(self) -> None:
        self._votes: dict[str, Vector] = {}

    def __len__(self) -> int:
        return len(self._votes)

    def __contains__(self, identity: str) -> bool:
        return identity in self._votes

    def __iter__(self) -> Iterator[str]:
        return iter(self._votes)

    def vote(self, identity: str, vector: Vector) -> Reason | None:
        """Count a vote, or say why it does not count.

        Args:
            identity: Who votes.
            vector: ``(d,)`` float32, finite.
        """
        first = self._votes.get(identity)
        if first is None:
            self._votes[identity] = vector
            return None
        return Reason.DUPLICATE if np.array_equal(first, vector) else Reason.EQUIVOCATION

    def of(self, identity: str) -> Vector | None:
        """The vote of an identity, or None."""
        return self._votes.get(identity)

    def withdraw(self, identity: str) -> None:
        """Forget the vote of an identity."""
        del self._votes[identity]

    def first(
        self, count: int, own: str | None = None
    ) -> tuple[tuple[str, ...], tuple[Vector, ...]]:
        """The first votes to arrive: their identities, sorted, and their vectors in that order.

        Args:
            count: How many; at least that many votes are there.
            own: An identity whose vote is among them, however many others were faster.
        """
        assert len(self._votes) >= count

        # Stable: all others stay in the order of their arrival.
        order = sorted(self._votes, key=lambda identity: identity != own)
        identities = tuple(sorted(order[:count]))
        return identities, tuple(self._votes[identity] for identity in identities)
