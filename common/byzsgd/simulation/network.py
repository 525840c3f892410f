"""A network in virtual time: one seed decides the fate of every message."""

import heapq
from collections import Counter
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
    queue: int = 0
    """Messages on their way from one node to another at most, and what is more is lost, the newest
    first: as a transport's full queue does it. 0 for no limit."""
    until: float = inf
    """Seconds after which the network is calm: nothing is lost, doubled or held up any more."""
    clock_rates: tuple[float, float] = (1.0, 1.0)
    """Seconds that a node's own clock counts in a second, drawn anew for every life."""


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


class Clock:
    """A node's own clock: it began anywhere and may be fast or slow, but it never goes back."""

    def __init__(self, began: float, rate: float) -> None:
        self._began = began
        self._rate = rate

    def read(self, now: float) -> float:
        """What it shows at a time."""
        return self._began + self._rate * now

    def when(self, instant: float) -> float:
        """The time at which it shows an instant."""
        return (instant - self._began) / self._rate


@dataclass(frozen=True, slots=True)
class Wall:
    """What keeps some nodes from all others for a while."""

    inside: frozenset[str]
    until: float
    one_way: bool = False
    """Whether only what those inside say is lost, and they hear all others."""

    def stops(self, sender: str, receiver: str) -> bool:
        """Whether a message does not get through."""
        left, entered = sender in self.inside, receiver in self.inside
        return left and not entered if self.one_way else left != entered


class Network:
    """Delivers messages late, out of order, twice or never, as its dice say."""

    def __init__(self, timeline: Timeline, faults: Faults, rng: np.random.Generator) -> None:
        self._timeline = timeline
        self._faults = faults
        self._rng = rng
        self._waiting: Counter[tuple[str, str]] = Counter()
        self.cut_until = 0.0
        """Time before which no message that is sent arrives."""
        self.walls: list[Wall] = []
        """What parts the nodes now, or did before."""
        self.slowness: dict[str, float] = {}
        """How many times as long as usual everything takes that a node sends or receives."""
        self.lost = 0
        """Messages that never arrived."""

    def carry(
        self, sender: str, receiver: str, deliver: Callable[[], None], *, at_once: bool = False
    ) -> None:
        """Deliver a message some time, perhaps.

        Args:
            sender: Who sends it.
            receiver: Whom it is for.
            deliver: Called at the time of arrival.
            at_once: Whether the message arrives before any other: the worst that liars can do.
        """
        now = self._timeline.now
        walled = any(w.until > now and w.stops(sender, receiver) for w in self.walls)
        if now < self.cut_until or walled:
            self.lost += 1
            return
        if at_once:
            self._timeline.at(now, deliver)
            return
        faults = self._faults if now < self._faults.until else CALM
        for _ in range(1 + (self._rng.random() < faults.duplication)):
            if self._rng.random() < faults.loss:
                self.lost += 1
                continue
            delay = self._rng.uniform(*faults.delay)
            if self._rng.random() < faults.straggle:
                delay *= faults.straggle_factor
            delay *= self.slowness.get(sender, 1.0) * self.slowness.get(receiver, 1.0)
            self._queue((sender, receiver), faults.queue, now + delay, deliver)

    def _queue(
        self, link: tuple[str, str], room: int, when: float, deliver: Callable[[], None]
    ) -> None:
        """Put a message among those under way between two nodes, if there is room."""
        if 0 < room <= self._waiting[link]:
            self.lost += 1
            return
        self._waiting[link] += 1

        def arrive() -> None:
            self._waiting[link] -= 1
            deliver()

        self._timeline.at(when, arrive)


def speaker(key: str, routing_id: str) -> str:
    """Whose vote a message is: the identity whose key its sender has proved.

    Args:
        key: Who proved to have that identity's key.
        routing_id: What the sender calls itself, which may be another's name.
    """
    del routing_id
    return key
