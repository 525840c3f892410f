"""MDA's variance condition: what is seen of it, whether it holds, and what would mend it.

MDA promises progress while, with some kappa > 1,
``kappa * 2 f_w / (q_w - f_w) * sqrt(E ||G - E G||^2) <= ||grad L||``. A server sees only the m
selected gradients of each update, g_1 to g_m, with mean M:

- ``sum ||g_i - M||^2 / (m - 1)`` is an unbiased estimate of the left side's variance V;
- ``||M||^2`` overrates the right side's square by V / m: m gradients that are nothing but noise
  have a mean too. Left in, that bounds the ratio by ``2 f_w / (q_w - f_w) * sqrt(m - 1)``, which is
  1 for four workers of which one may lie: such a cluster would never see its condition fail.

So V and ||M||^2 are averaged over some updates, and the ratio is taken of the averages, with V / m
taken off. It is a low estimate: the selected gradients are those that lie closest together.

The condition must fail near a stationary point, where grad L vanishes: what matters is that it
holds while the gradient is still long. ``Condition`` tells the two apart.

Source of the condition: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed
Byzantine Machine Learning" (MDA).
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, sqrt

from byzsgd.cluster import Cluster, Variant

SPAN = 20
"""Updates that the averages reach back, and before which nothing is said: an EMA of worker momentum
0.9 has warmed up by then."""

CLEAR = 0.8
"""A violated condition holds again below this, not just below 1: it is told when it changes."""

FADED = 0.25
"""Of its largest length: a shorter gradient is near where it vanishes, and most is learned."""

RETURNED = 0.5
"""Of its largest length: a faded gradient that is longer again than this has more to learn."""

RATIO_MAX = 100.0
"""Stands for every larger ratio: gradients whose mean is no longer than chance would make it."""

MOMENTUM_MAX = 0.99
"""The largest worker momentum that is proposed: a longer average is slow to follow the gradient."""

BATCH_GROWTH_MAX = 16
"""The largest growth of a batch that is proposed: beyond it, more workers cost less."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How the selected gradients of one update differ."""

    factor: float
    """``2 f / (q - f)``, of the condition's left side."""
    count: int
    """m: how many gradients were selected, at least 2."""
    variance: float
    """Unbiased estimate of ``E ||G - E G||^2``."""
    square: float
    """Square of the length of their mean."""


def factor(n_votes: int, f: int) -> float:
    """``2 f / (q - f)``: how much spread MDA must see through; more workers make it smaller."""
    return 2 * f / (n_votes - f)


def momentum_variance(beta: float) -> float:
    """Variance of a moving average ``m = beta m + (1 - beta) g``, over that of one gradient.

    ``(1 - beta)^2 (1 + beta^2 + beta^4 + ...) = (1 - beta) / (1 + beta)``, once it is warm: 1/19
    for 0.9. It counts noise alone. Where the gradient itself turns from step to step, its moving
    average is shorter too, and momentum wins less than this says.
    """
    return (1 - beta) / (1 + beta)


def batch_for(batch_size: int, excess: float) -> int:
    """The batch size that divides the spread by ``excess``: it falls with the root of the batch."""
    return ceil(batch_size * excess**2 * (1 - 1e-9))


def momentum_for(beta: float, excess: float) -> float:
    """The worker momentum that divides the spread by ``excess``, rounded up to hundredths."""
    variance = momentum_variance(beta) / excess**2
    return ceil(100 * (1 - variance) / (1 + variance) - 1e-6) / 100


def workers_for(n_workers: int, quorum: int, f: int, excess: float) -> int:
    """How many workers divide 2 f / (q - f) by ``excess``, as many as now being outside of q.

    Their gradients vary as before, but MDA sees through more of it.
    """
    return ceil(n_workers - quorum + f + (quorum - f) * excess - 1e-9)


class State(StrEnum):
    """Whether the variance condition holds."""

    UNKNOWN = "unknown"
    """Too few updates so far, a rule without this condition, or no worker that may lie."""
    HOLDS = "holds"
    """On average over the last updates."""
    VIOLATED = "violated"
    """It failed while the gradient was long; stays so until the condition clearly holds."""
    FADED = "faded"
    """It failed once the gradient had become short, as it must near an optimum."""


class Condition:
    """Watches the variance condition from update to update.

    ::

        unknown --(SPAN updates)--> holds or violated
        holds --(ratio > 1)--> violated, or faded if the gradient is shorter than FADED
        violated --(ratio < CLEAR)--> holds
        faded --(gradient longer than RETURNED)--> violated if ratio > 1, holds if ratio < CLEAR

    Lengths are shares of the largest that was seen. A server that did not see the first steps does
    not know the largest: what fails there counts as faded.
    """

    def __init__(self) -> None:
        self.state = State.UNKNOWN
        self.since = 0
        """The step at which the state became what it is."""
        self.ratio: float | None = None
        """Left side over right side over the last updates; None before the first."""
        self.early = True
        """Whether the first steps of the training were seen."""
        self.excess = 1.0
        """Of a violated condition: what the spread must be divided by for it to hold until the
        gradient fades, as it was when that last was long. What held with the gradient of then
        would have failed again some steps later."""
        self._updates = 0
        self._factor = 0.0
        self._count = 2
        self._variance = 0.0
        self._square = 0.0
        self._largest = 0.0

    def update(self, step: int, spread: Spread | None) -> None:
        """Take note of an update.

        Args:
            step: Its learning step.
            spread: What it showed; None where it showed nothing, as under another rule.
        """
        if spread is None:
            return
        self._updates += 1
        if self._updates == 1:
            self.since, self.early = step, step < SPAN
        weight = 1 / min(self._updates, SPAN)
        self._factor, self._count = spread.factor, spread.count
        self._variance += weight * (spread.variance - self._variance)
        self._square += weight * (spread.square - self._square)
        self.ratio = self._ratio_at(self.length)
        if self._updates >= SPAN:
            self._largest = max(self._largest, self.length)
            state = self._next(self.ratio)
            if state is not self.state:
                self.state, self.since = state, step
            if state is State.VIOLATED and self.share >= FADED:
                self.excess = max(self._ratio_at(FADED * self._largest), 1.0)

    @property
    def length(self) -> float:
        """Estimate of ``||E G||``: the mean's, without what chance adds; 0 if nothing is left."""
        return sqrt(max(self._square - self._variance / self._count, 0.0))

    @property
    def share(self) -> float:
        """``length`` over the largest so far; 1 before there is one."""
        return self.length / self._largest if self._largest else 1.0

    def _ratio_at(self, length: float) -> float:
        spread = self._factor * sqrt(self._variance)
        return spread / length if spread < RATIO_MAX * length else RATIO_MAX if spread else 0.0

    def _next(self, ratio: float) -> State:
        match self.state:
            case State.UNKNOWN | State.HOLDS if ratio > 1:
                long = self.early and self.share >= FADED
                return State.VIOLATED if long else State.FADED
            case State.UNKNOWN:
                return State.HOLDS
            case State.VIOLATED if ratio < CLEAR:
                return State.HOLDS
            case State.FADED if self.early and self.share >= RETURNED and ratio > 1:
                return State.VIOLATED
            case State.FADED if self.share >= RETURNED and ratio < CLEAR:
                return State.HOLDS
            case state:
                return state


def sentence(condition: Condition, cluster: Cluster) -> str:
    """The state of the condition for an operator, with what would mend it.

    Args:
        condition: As a server has watched it.
        cluster: Whose settings the remedy is about.
    """
    ratio = f"{condition.ratio or 0.0:.3g}{' or more' if condition.ratio == RATIO_MAX else ''}"
    failed = f"{ratio} over the last updates, failed at step {condition.since}"
    match condition.state:
        case State.UNKNOWN:
            words = "not known"
        case State.HOLDS:
            words = f"holds, {ratio} over the last updates"
        case State.FADED if condition.early:
            words = (
                f"{failed}, when the gradient had shrunk below a quarter of its largest: near an "
                "optimum it vanishes, and no setting holds the condition"
            )
        case State.FADED:
            words = f"{failed}; this server has not seen the training begin, when it matters"
        case State.VIOLATED:
            words = (
                f"{failed} with the gradient still long: robustness is not promised; "
                f"{remedy(condition.excess, cluster)}"
            )
    return f"variance condition: {words}"


def remedy(excess: float, cluster: Cluster) -> str:
    """What would divide the spread of the gradients by ``excess``, for an operator."""
    batch, beta = cluster.batch_size, cluster.worker_momentum
    largest = BATCH_GROWTH_MAX * batch
    if excess >= RATIO_MAX:
        return "the gradients show no common direction: look at the data and the learning_rate"
    choices = []
    if (larger := batch_for(batch, excess)) <= largest:
        choices.append(
            f"batch_size {larger} instead of {batch} would hold it until the gradient has shrunk "
            "to a quarter, if workers differ by chance alone"
        )
    if (longer := momentum_for(beta, excess)) <= MOMENTUM_MAX:
        choices.append(f"worker_momentum helps, {longer:g} or more instead of {beta:g}")
    if choices:
        return "; ".join(choices)
    synchronous = cluster.variant is Variant.SYNCHRONOUS
    quorum = cluster.n_workers if synchronous else cluster.worker_quorum
    needed = workers_for(cluster.n_workers, quorum, cluster.f_workers, excess)
    return (
        f"neither a batch_size up to {largest} nor a worker_momentum up to {MOMENTUM_MAX} does; "
        f"{needed} workers instead of {cluster.n_workers} would, or a smaller f_workers"
    )
