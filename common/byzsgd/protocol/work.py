"""The heavy work that nodes ask for: pure functions of an effect, for a thread or a simulation."""

from collections.abc import Callable
from math import sqrt
from statistics import median

import numpy as np

from byzsgd.aggregation import RULES, average
from byzsgd.protocol.effects import Aggregate, ComputeGradient
from byzsgd.protocol.events import Aggregated, GradientComputed, Report
from byzsgd.vectors import Vector, distance, norm


def no_clock() -> float:
    """The clock of a simulation: work takes no time."""
    return 0.0


def aggregate(effect: Aggregate, clock: Callable[[], float] = no_clock) -> Aggregated:
    """The result of an ``Aggregate`` effect, with its report.

    Args:
        effect: What to aggregate.
        clock: Seconds, to measure with.
    """
    started = clock()
    rule = RULES[effect.rule]
    chosen: tuple[int, ...] | None = None
    if rule.select is None:
        result = rule.aggregate(effect.vectors, effect.f)
    else:
        chosen = rule.select(effect.vectors, effect.f)
        result = average([effect.vectors[index] for index in chosen], 0)
    report = Report(
        seconds=clock() - started,
        left_out=_left_out(effect, chosen),
        variance_ratio=None if effect.model is None else _variance_ratio(effect, chosen, result),
    )
    if effect.own is not None:
        report = _gather_report(effect, effect.own, result, report.seconds)
    if effect.model is not None:
        np.multiply(result, np.float32(-effect.learning_rate), out=result)
        np.add(result, effect.model, out=result)
    return Aggregated(effect.step, result, report)


def compute_gradient(
    effect: ComputeGradient,
    gradient: Callable[[Vector, int], tuple[Vector, float]],
    clock: Callable[[], float] = no_clock,
) -> GradientComputed:
    """The result of a ``ComputeGradient`` effect: m = beta m + (1 - beta) g, and the loss.

    Args:
        effect: Where to compute a gradient, and the momentum to add it to.
        gradient: The task's: a fresh ``(d,)`` float32 gradient and the loss on a step's batch.
        clock: Seconds, to measure with.
    """
    started = clock()
    vector, loss = gradient(effect.vector, effect.step)
    np.multiply(vector, np.float32(1 - effect.beta), out=vector)
    if effect.momentum is not None and effect.beta:
        vector += np.float32(effect.beta) * effect.momentum
    return GradientComputed(effect.step, vector, loss, clock() - started)


def _variance_ratio(
    effect: Aggregate, chosen: tuple[int, ...] | None, mean: Vector
) -> float | None:
    """Left side over right side of MDA's variance condition, kappa left out.

    That is 2 f / (q - f) times the spread of the selected gradients, over the norm of their mean.
    None where nobody may lie, or where the mean vanishes.
    """
    rows = range(len(effect.vectors)) if chosen is None else chosen
    length = norm(mean)
    if effect.f == 0 or length == 0 or len(effect.vectors) <= effect.f:
        return None
    spread = sqrt(sum(distance(effect.vectors[row], mean) ** 2 for row in rows) / len(rows))
    return 2 * effect.f / (len(effect.vectors) - effect.f) * spread / length


def _left_out(effect: Aggregate, chosen: tuple[int, ...] | None) -> tuple[str, ...]:
    if chosen is None:
        return ()
    return tuple(who for index, who in enumerate(effect.identities) if index not in chosen)


def _gather_report(effect: Aggregate, own: str, result: Vector, seconds: float) -> Report:
    """How far the node's own model was from its peers' votes, and the contracted model is."""
    votes = dict(zip(effect.identities, effect.vectors, strict=True))
    mine = votes.pop(own)
    before = {who: distance(mine, vector) for who, vector in votes.items()}
    after = [distance(result, vector) for vector in votes.values()]
    spread = median(before.values())
    return Report(
        seconds=seconds,
        distances=before,
        contraction=median(after) / spread if spread else None,
        norm=norm(result),
    )
