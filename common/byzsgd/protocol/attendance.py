"""Who is waited for where delays are bounded: who missed a round is passed over.

A correct peer answers in time, so one that did not is Byzantine or unlucky. Either way nobody waits
for it again until it has been in time for some rounds in a row: one after the first miss, and twice
as many after each further one. So an unlucky peer is back at once, and one that is late on purpose
soon holds up next to no round. Being passed over costs no vote: what comes in time counts.
"""

from collections import Counter
from collections.abc import Collection

RETURN_AFTER_MAX = 1024
"""Rounds in a row that a peer must be in time, at most, before it is waited for again."""


class Attendance:
    """Which of some peers are waited for."""

    def __init__(self, missed: Counter[str]) -> None:
        """Begin by waiting for everybody.

        Args:
            missed: Where the rounds that a peer has missed are counted.
        """
        self._missed = missed
        self._owed: dict[str, int] = {}

    @property
    def passed_over(self) -> Collection[str]:
        """The peers that nobody waits for now."""
        return self._owed.keys()

    def miss(self, peer: str) -> None:
        """Note that a peer has missed a round."""
        self._missed[peer] += 1
        self._owed[peer] = min(2 ** (self._missed[peer] - 1), RETURN_AFTER_MAX)

    def attend(self, peer: str) -> None:
        """Note that a peer was in time."""
        owed = self._owed.pop(peer, 0)
        if owed > 1:
            self._owed[peer] = owed - 1
