"""How a server that fell behind comes back: by its peers' models, none of them believed alone.

A server that heard models of q_ps - 1 peers lately takes M of those, and goes on at the newest
step that some correct peer has surely reached: the (f_ps + 1)-th largest of their steps. With at
most f_ps liars among q_ps - 1 >= 2 f_ps + 1 models, every coordinate of the result lies within the
range of the correct ones. The own model is not among them: it may be theta_0, after the disk was
lost, and a liar beside it could pull the median half of the way back there. (Where q_ps is 2 f_ps +
1, as the synchronous variant allows, it must be: 2 f_ps peers may be all that answer, and with
that many alone a median is no longer safe.) The peers' models need
not be of one step: after a restart of the whole cluster from checkpoints no two servers may stand
at the same step, and asking for one step would then wait for ever. But they must be recent: beside
a model of before a long silence, one liar could pull the median most of the way back to it.

Going back is the other way round. Where nobody may go forward any more, at most f_ps correct
servers are ahead of the earliest, so that at least n_ps - 2 f_ps stand at its step: as many say of
themselves that they are there, whatever liars say to whom, and some of them are correct.
"""

from collections import Counter
from collections.abc import Iterable

from byzsgd.vectors import Vector


class CatchUp:
    """Where the peers stand, and the last model heard of each: one vector a peer."""

    def __init__(self, n_servers: int, f_servers: int, needed: int, recent: float) -> None:
        """Know nothing of any peer.

        Args:
            n_servers: n_ps.
            f_servers: f_ps.
            needed: Models to take M of.
            recent: Seconds for which a model counts.
        """
        self._f = f_servers
        self._many = n_servers - 2 * f_servers
        self._needed = needed
        self._recent = recent
        self._steps: dict[str, int] = {}
        self._models: dict[str, tuple[int, Vector]] = {}
        self._came: dict[str, float] = {}
        self._fresh: set[str] = set()

    @property
    def models(self) -> dict[str, tuple[int, Vector]]:
        """For each peer heard of, the step and vector of its last model."""
        return self._models

    def stands(self, peer: str, step: int) -> None:
        """Note that a peer says it is at a step."""
        self._steps[peer] = step

    def model(self, peer: str, step: int, vector: Vector, now: float) -> None:
        """Note a peer's model of a step."""
        self._steps[peer] = step
        self._came[peer] = now
        self._fresh.add(peer)
        self._models[peer] = (step, vector)

    def vote(self, peer: str, step: int, vector: Vector, now: float) -> None:
        """Note a peer's vote in a gather, unless the peer is known to be further.

        Who answers a pull sends its last vote before its model, and the model may be lost: the old
        vote does not say that its sender is still there.
        """
        if step >= self._steps.get(peer, -1):
            self.model(peer, step, vector, now)

    def rumour(self) -> int:
        """The newest step that some correct peer has reached, by what they say; -1 if unknown."""
        return self._reached(list(self._steps.values()), self._f + 1)

    def target(self, now: float, *, doubts: bool = False) -> int:
        """The step that the recent models allow to go on at; -1 while there are too few.

        Args:
            now: Seconds.
            doubts: Whether f_ps - 1 correct peers are no witnesses, for all that they say.
        """
        recent = self._recently(now)
        if len(recent) < self._needed:
            return -1
        # Who says now that it is at an earlier step has gone back there.
        steps = [min(self._models[peer][0], self._steps[peer]) for peer in recent]
        return self._reached(steps, max(self._f + 1, 2 * self._f) if doubts else self._f + 1)

    def forget_where(self) -> None:
        """Take no peer's word for where it is now that it gave before."""
        self._fresh.clear()

    def others(self, now: float) -> int:
        """The earliest step where n_ps - 2 f_ps peers are, by what they said since, or -1."""
        there = self._there(now)
        return self._earliest(there) if len(there) >= self._needed else -1

    def gathered(self) -> int:
        """The earliest step where n_ps - 2 f_ps peers are, by what they ever said last, or -1."""
        return self._earliest(self._steps.values())

    def beside(self, step: int, now: float) -> int:
        """How many peers said since that they are at a step or beyond."""
        return sum(there >= step for there in self._there(now))

    def votes(self, now: float) -> dict[str, Vector]:
        """The models to take M of: of the recent ones the ``needed`` of the latest steps."""
        newest = sorted(self._recently(now), key=lambda peer: (-self._models[peer][0], peer))
        return {peer: self._models[peer][1] for peer in newest[: self._needed]}

    def _recently(self, now: float) -> list[str]:
        return [peer for peer, came in self._came.items() if came >= now - self._recent]

    def _there(self, now: float) -> list[int]:
        return [
            self._steps[peer]
            for peer in self._recently(now)
            if peer in self._fresh and self._steps[peer] == self._models[peer][0]
        ]

    def _earliest(self, steps: Iterable[int]) -> int:
        counts = Counter(steps).items()
        return min((step for step, count in counts if count >= self._many), default=-1)

    def _reached(self, steps: list[int], witnesses: int) -> int:
        # At most f_ps of the steps are lies, so the (f_ps + 1)-th largest is no larger than a
        # correct peer's.
        return sorted(steps, reverse=True)[witnesses - 1] if len(steps) >= witnesses else -1
