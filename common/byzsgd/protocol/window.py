"""Quorums for a few steps at a time: what bounds a node's memory.

Each identity has room for the votes of ``length`` steps, and a vote for one more pushes out the
one of its own that came first. So a peer that floods a node with votes for any steps it likes
wastes its own room and nobody else's, and a node that fell behind sees where the others are.
"""

from collections import deque
from collections.abc import Iterable

import numpy as np

from byzsgd.messages import Reason
from byzsgd.protocol.quorum import Quorum
from byzsgd.vectors import Vector

WINDOW_STEPS = 3
"""Steps of votes kept for each peer: the current one, and two for peers that are ahead."""


class Window:
    """Votes by step, of a closed set of identities, ``length`` steps an identity at most."""

    def __init__(self, identities: Iterable[str], length: int) -> None:
        self.length = length
        self.floor = 0
        """Votes for an earlier step are refused: that step is over."""
        self._steps: dict[int, Quorum] = {}
        self._held: dict[str, deque[int]] = {identity: deque() for identity in identities}

    @property
    def held(self) -> int:
        """How many vectors the window holds."""
        return sum(map(len, self._held.values()))

    def votes(self, step: int) -> int:
        """How many votes a step has."""
        return len(self._steps.get(step, ()))

    def quorum(self, step: int) -> Quorum:
        """The votes of a step, which has at least one."""
        return self._steps[step]

    def vote(self, identity: str, step: int) -> Vector | None:
        """What an identity voted in a step, or None."""
        votes = self._steps.get(step)
        return votes.of(identity) if votes else None

    def same(self, step: int, vector: Vector) -> int:
        """How many votes of a step are this vector, bit for bit."""
        votes = (self.vote(identity, step) for identity in self._held)
        return sum(vote is not None and np.array_equal(vote, vector) for vote in votes)

    def lacking(self, step: int) -> tuple[str, ...]:
        """The identities that have not voted in a step, sorted."""
        votes = self._steps.get(step, ())
        return tuple(sorted(identity for identity in self._held if identity not in votes))

    def newest(self, count: int) -> int | None:
        """The newest step with at least ``count`` votes, or None."""
        return max(
            (step for step, votes in self._steps.items() if len(votes) >= count), default=None
        )

    def fullest(self) -> int | None:
        """The step with the most votes, the newest of several, or None."""
        return max(self._steps, key=lambda step: (len(self._steps[step]), step), default=None)

    def admit(self, identity: str, step: int, vector: Vector) -> Reason | None:
        """Count a vote for a step, or say why it does not count.

        Args:
            identity: Who votes: one of the window's identities.
            step: What it votes on.
            vector: ``(d,)`` float32, finite.
        """
        if step < self.floor:
            return Reason.LATE if step == self.floor - 1 else Reason.STALE
        if reason := self._steps.setdefault(step, Quorum()).vote(identity, vector):
            return reason
        held = self._held[identity]
        held.append(step)
        if len(held) > self.length:
            self._withdraw(identity, held.popleft())
        return None

    def advance(self, floor: int) -> None:
        """Forget the votes of all steps before ``floor``, and refuse more of them."""
        self.floor = floor
        for step in [step for step in self._steps if step < floor]:
            for identity in self._steps.pop(step):
                self._held[identity].remove(step)

    def reopen(self) -> None:
        """Let votes for any step in again; those that are here stay."""
        self.floor = 0

    def clear(self) -> None:
        """Forget all votes, and let votes for any step in."""
        self.reopen()
        self._steps.clear()
        for held in self._held.values():
            held.clear()

    def validate(self) -> None:
        """Assert that no identity holds more than its room, nor anything before the floor."""
        for identity, held in self._held.items():
            assert len(held) == len(set(held)) <= self.length, (identity, held)
            assert all(identity in self._steps[step] for step in held), (identity, held)
        assert all(step >= self.floor for step in self._steps)
        assert self.held == sum(map(len, self._steps.values()))

    def _withdraw(self, identity: str, step: int) -> None:
        votes = self._steps[step]
        votes.withdraw(identity)
        if not votes:
            del self._steps[step]
