"""A network in virtual time: one seed decides the fate of every message."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What the network and the machines do to a cluster; probabilities are per message."""

    delay: tuple[float, float] = (0.001, 0.01)
    """Seconds that a message travels, drawn uniformly: unequal delays reorder messages."""
    straggle: float = 0.0
    """Probability that a message takes ``straggle_factor`` times as long."""
    straggle_factor: float = 50.0
    """How much longer a message travels that is held up."""
    loss: float = 0.0
    """Probability that a message is lost."""
    duplication: float = 0.0
    """Probability that a message arrives twice."""
    crash_every: float = 0.0
    """Mean seconds between two crashes of some correct node; 0 for none."""
    crash_until: float = inf
    """Seconds after which nothing crashes any more."""
    down: tuple[float, float] = (0.05, 2.0)
    """Seconds that a crashed node stays away."""
    work: tuple[float, float] = (0.0005, 0.003)
    """Seconds that an aggregation or a gradient takes."""


CALM = Faults()
"""Nothing is lost; messages are reordered."""


class Timeline:
    """Things to happen, in the order of their time; ties in the order of their scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, happen: Callable[[], None]) -> None:
        """Let something happen at a time, which is not in the past."""
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, happen))

    def advance(self) -> bool:
        """Let the next thing happen; False when nothing is left."""
        if not self._heap:
            return False
        self.now, _, happen = heapq.heappop(self._heap)
        happen()
        return True


class Network:
    """Delivers messages late, out of order, twice or never, as its dice say."""

    def __init__(self, timeline: Timeline, faults: Faults, rng: np.random.Generator) -> None:
        self._timeline = timeline
        self._faults = faults
        self._rng = rng
        self.cut_until = 0.0
        """Time before which no message that is sent arrives."""
        self.lost = 0
        """Messages that never arrived."""

    def carry(self, deliver: Callable[[], None], *, at_once: bool = False) -> None:
        """Deliver a message some time, perhaps.

        Args:
            deliver: Called at the time of arrival.
            at_once: Whether the message arrives before any other: the worst that liars can do.
        """
        if self._timeline.now < self.cut_until:
            self.lost += 1
            return
        if at_once:
            self._timeline.at(self._timeline.now, deliver)
            return
        faults = self._faults
        for _ in range(1 + (self._rng.random() < faults.duplication)):
            if self._rng.random() < faults.loss:
                self.lost += 1
                continue
            delay = self._rng.uniform(*faults.delay)
            if self._rng.random() < faults.straggle:
                delay *= faults.straggle_factor
            self._timeline.at(self._timeline.now + delay, deliver)
