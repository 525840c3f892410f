"""How a server that fell behind comes back: by its peers' models, none of them believed alone.

A server that knows the last models of q_ps - 1 peers takes M of those, and goes on at the newest
step that some correct peer has surely reached: the (f_ps + 1)-th largest of their steps. With at
most f_ps liars among q_ps - 1 >= 2 f_ps + 1 models, every coordinate of the result lies within the
range of the correct ones. The own model is not among them: it may be theta_0, after the disk was
lost, and a liar beside it could pull the median half of the way back there. (Where q_ps is 2 f_ps +
1, as the synchronous variant allows, it must be: 2 f_ps peers may be all that answer, and with
that many alone a median is no longer safe.) The peers' models need
not be of one step: after a restart of the whole cluster from checkpoints no two servers may stand
at the same step, and asking for one step would then wait for ever.
"""

from byzsgd.vectors import Vector


class CatchUp:
    """Where the peers stand, and the last model heard of each: one vector a peer."""

    def __init__(self, f_servers: int, needed: int) -> None:
        self._f = f_servers
        self._needed = needed
        self._steps: dict[str, int] = {}
        self._models: dict[str, tuple[int, Vector]] = {}
        self._fresh: set[str] = set()

    @property
    def models(self) -> dict[str, tuple[int, Vector]]:
        """For each peer heard of, the step and vector of its last model."""
        return self._models

    def stands(self, peer: str, step: int) -> None:
        """Note that a peer says it is at a step."""
        self._steps[peer] = step

    def model(self, peer: str, step: int, vector: Vector) -> None:
        """Note a peer's model of a step."""
        self._steps[peer] = step
        self._fresh.add(peer)
        self._models[peer] = (step, vector)

    def vote(self, peer: str, step: int, vector: Vector) -> None:
        """Note a peer's vote in a gather, unless the peer is known to be further.

        Who answers a pull sends its last vote before its model, and the model may be lost: the old
        vote does not say that its sender is still there.
        """
        if step >= self._steps.get(peer, -1):
            self.model(peer, step, vector)

    def rumour(self) -> int:
        """The newest step that some correct peer has reached, by what they say; -1 if unknown."""
        return self._reached(list(self._steps.values()))

    def target(self) -> int:
        """The step that the models at hand allow to go on at; -1 while there are too few."""
        if len(self._models) < self._needed:
            return -1
        return self._reached([step for step, _ in self._models.values()])

    def forget_where(self) -> None:
        """Take no peer's word for where it is now that it gave before."""
        self._fresh.clear()

    def others(self) -> int:
        """The newest step surely reached by the peers that said since where they are, or -1."""
        there = [
            step
            for peer, (step, _) in self._models.items()
            if peer in self._fresh and self._steps[peer] == step
        ]
        return self._reached(there) if len(there) >= self._needed else -1

    def votes(self) -> dict[str, Vector]:
        """The models to take M of: those of the ``needed`` newest."""
        newest = sorted(self._models, key=lambda peer: (-self._models[peer][0], peer))
        return {peer: self._models[peer][1] for peer in newest[: self._needed]}

    def _reached(self, steps: list[int]) -> int:
        # At most f_ps of the steps are lies, so the (f_ps + 1)-th largest is no larger than a
        # correct peer's.
        return sorted(steps, reverse=True)[self._f] if len(steps) > self._f else -1
