"""Who is waited for where delays are bounded: who missed a round is passed over.

A correct peer answers in time, so one that did not is Byzantine or unlucky. Either way nobody waits
for it again until it has been in time in some rounds: in one after its first miss, and in twice as
many after each further one. So an unlucky peer is back at once, and one that is late on purpose
soon holds up next to no round. Being passed over costs no vote: what comes in time counts.
"""

from collections import Counter
from collections.abc import Collection

DOUBLINGS_MAX = 10
"""Of the rounds that a peer must be in time before it is waited for again: 1,024 at most."""


class Attendance:
    """Which of some peers are waited for."""

    def __init__(self, missed: Counter[str]) -> None:
        """Begin by waiting for everybody.

        Args:
            missed: Where the rounds that a peer has missed are counted.
        """
        self._missed = missed
        self._owed: dict[str, int] = {}
        self._attended: dict[str, int] = {}

    @property
    def passed_over(self) -> Collection[str]:
        """The peers that nobody waits for now."""
        return self._owed.keys()

    def miss(self, peer: str) -> None:
        """Note that a peer was waited for in vain."""
        self._missed[peer] += 1
        self._owed[peer] = 2 ** min(self._missed[peer] - 1, DOUBLINGS_MAX)

    def attend(self, peer: str, number: int) -> None:
        """Note that a peer was in time in a round; a second time in one round does not count.

        Args:
            peer: Who.
            number: Of the round; later rounds have larger ones.
        """
        if number <= self._attended.get(peer, -1):
            return
        self._attended[peer] = number
        owed = self._owed.pop(peer, 0)
        if owed > 1:
            self._owed[peer] = owed - 1
