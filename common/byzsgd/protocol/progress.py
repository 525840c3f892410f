"""What a node counts of its own work: plain numbers, read when somebody looks."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from byzsgd.filters import Filter
from byzsgd.messages import Reason
from byzsgd.protocol.variance import Condition

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper bounds of the histogram's buckets in seconds: from loopback to a stuck network."""


class Buckets:
    """A histogram of durations in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        index = sum(seconds > bound for bound in SECONDS_BOUNDS)
        self.counts[index] += 1
        self.total += seconds

    def quantile(self, share: float) -> float:
        """An upper bound of this share of the durations, from those of the buckets; 0 of none."""
        below, wanted = 0, share * sum(self.counts)
        for bound, count in zip(SECONDS_BOUNDS, self.counts, strict=False):
            below += count
            if below >= wanted:
                return bound if below else 0.0
        return float(SECONDS_BOUNDS[-1])


@dataclass(slots=True)
class Drift:
    """How far a server was from its peers at the last gather, and what the gather did to it."""

    maximum: float = 0.0
    """Largest Euclidean distance from the own model to a peer's vote."""
    median: float = 0.0
    """Median of those distances: what one liar cannot move far."""
    relative: float = 0.0
    """``maximum`` over the norm of the contracted model."""
    contraction: float = 0.0
    """Median distance of the votes to the contracted model, over that to the own vote before."""


@dataclass(slots=True)
class Progress:
    """Counters of one node since its start."""

    steps: int = 0
    """Learning steps completed: updates of a server, gradients of a worker."""
    gathers: int = 0
    """Gathers completed."""
    catch_ups: int = 0
    """Times that a server adopted its peers' models because it had fallen behind."""
    skipped: int = 0
    """Steps that a worker passed over because newer models were there."""
    pulls: int = 0
    """Pulls sent: each says that something was late or lost."""
    scatter_steps: int = 0
    """Steps in which a worker took one server's model: synchronous, and not in a gather."""
    scatter_pulls: int = 0
    """Models that a worker pulled for those, refused and late ones included."""
    fallbacks: int = 0
    """Steps in which no server's model was accepted, so that a worker took their median."""
    accepted: Counter[str] = field(default_factory=Counter)
    """Models accepted from a single server, by server."""
    filtered: Counter[tuple[str, Filter]] = field(default_factory=Counter)
    """Models refused by a filter, by server and filter."""
    missed: Counter[str] = field(default_factory=Counter)
    """Rounds of the synchronous variant that a peer was waited for in vain."""
    passed_over: Collection[str] = ()
    """Peers that are not waited for now, because they missed a round."""
    loss: float | None = None
    """Loss of a worker's last mini-batch."""
    variance: Condition = field(default_factory=Condition)
    """MDA's variance condition, as a server's updates show it."""
    drift: Drift = field(default_factory=Drift)
    quorum_waits: Buckets = field(default_factory=Buckets)
    """Seconds from the start of a wait to its quorum."""
    work: dict[str, Buckets] = field(default_factory=dict)
    """Seconds of heavy work: by aggregation rule, and ``gradient``."""
    votes: Counter[str] = field(default_factory=Counter)
    """Times that a worker's gradient was in the quorum of an update."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Times that a worker's vote was in the quorum and the rule did not select it."""
    refused: Counter[tuple[str, Reason]] = field(default_factory=Counter)
    """Refusals by peer and reason."""

    def worked(self, kind: str, seconds: float) -> None:
        """Count a piece of heavy work."""
        self.work.setdefault(kind, Buckets()).observe(seconds)
