"""The heavy work that nodes ask for: pure functions of an effect, for a thread or a simulation."""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from statistics import median
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation import average, compose, coordinate_median
from byzsgd.aggregation.distances import squared_distances
from byzsgd.aggregation.mda import mda_selection
from byzsgd.protocol.effects import Aggregate, ComputeGradient, TryModel
from byzsgd.protocol.events import Aggregated, GradientComputed, ModelTried, Report
from byzsgd.protocol.variance import Spread, factor
from byzsgd.vectors import Vector, distance, norm

Gradient: TypeAlias = Callable[[Vector, int], tuple[Vector, float]]
"""A task's: from a model and a step to a fresh ``(d,)`` float32 gradient and the batch's loss."""


def no_clock() -> float:
    """The clock of a simulation: work takes no time."""
    return 0.0


def aggregate(effect: Aggregate, clock: Callable[[], float] = no_clock) -> Aggregated:
    """The result of an ``Aggregate`` effect, with its report.

    Args:
        effect: What to aggregate.
        clock: Seconds, to measure with.
    """
    if effect.buffers:
        return _aggregate_with_buffers(effect, clock)
    started = clock()
    rule = compose(effect.pre_steps, effect.rule, seed=effect.step)
    chosen: tuple[int, ...] | None = None
    squared: NDArray[np.float64] | None = None
    if _shows_spread(effect):
        # The distances that MDA selects by are those of the spread, too.
        chosen, squared = mda_selection(effect.vectors, effect.f)
    elif rule.select is not None:
        chosen = rule.select(effect.vectors, effect.f)
    if chosen is None:
        result = rule.aggregate(effect.vectors, effect.f)
    else:
        result = average([effect.vectors[index] for index in chosen], 0)
    report = Report(
        seconds=clock() - started,
        left_out=_left_out(effect, chosen),
        spread=_spread(effect, chosen, squared, result),
    )
    if effect.own is not None:
        report = _gather_report(effect, effect.own, result, report.seconds)
    if effect.model is not None:
        np.multiply(result, np.float32(-effect.learning_rate), out=result)
        np.add(result, effect.model, out=result)
    return Aggregated(effect.step, result, report)


def _aggregate_with_buffers(effect: Aggregate, clock: Callable[[], float]) -> Aggregated:
    """An update of the parameters by rule, and of the buffers by median.

    A median of votes of which most are correct lies between correct ones, in every coordinate.
    """
    assert effect.model is not None, "buffers are in models as all else is"
    started = clock()
    d = len(effect.model) - effect.buffers
    parameters = replace(
        effect,
        vectors=tuple(vector[:d] for vector in effect.vectors),
        model=effect.model[:d],
        buffers=0,
    )
    updated = aggregate(parameters, clock)
    buffers = coordinate_median([vector[d:] for vector in effect.vectors], effect.f)
    report = replace(updated.report, seconds=clock() - started)
    return Aggregated(effect.step, np.concatenate([updated.vector, buffers]), report)


def compute_gradient(
    effect: ComputeGradient,
    gradient: Gradient,
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
    d = len(vector) - effect.buffers
    momentum = None if effect.momentum is None else effect.momentum[:d]
    _average_with(momentum, effect.beta, vector[:d])
    return GradientComputed(effect.step, vector, norm(vector[:d]), loss, clock() - started)


def try_model(
    effect: TryModel, gradient: Gradient, clock: Callable[[], float] = no_clock
) -> ModelTried:
    """The result of a ``TryModel`` effect: what the filters ask of a model, and what to send there.

    Args:
        effect: The model, and the step that the worker itself took.
        gradient: The task's.
        clock: Seconds, to measure with.
    """
    started = clock()
    stride = effect.momentum * np.float32(-effect.learning_rate)
    length = norm(stride)
    stride += effect.base
    away = distance(stride, effect.vector)
    if away >= effect.bound:
        return ModelTried(effect.step, away, seconds=clock() - started)
    reference = effect.reference
    if reference is None:
        reference, _ = gradient(effect.base, effect.step)
    vector, loss = gradient(effect.vector, effect.step)
    change = distance(vector, reference)
    coefficient = change / length if length else (inf if change else 0.0)
    _average_with(effect.momentum, effect.beta, vector)
    return ModelTried(effect.step, away, coefficient, vector, norm(vector), loss, clock() - started)


def _average_with(momentum: Vector | None, beta: float, gradient: Vector) -> None:
    """Turn a gradient into the moving average that it is the newest part of, in place."""
    np.multiply(gradient, np.float32(1 - beta), out=gradient)
    if momentum is not None and beta:
        gradient += np.float32(beta) * momentum


def _shows_spread(effect: Aggregate) -> bool:
    """Whether an aggregation shows something of MDA's variance condition.

    That says nothing of models, of another rule, where nobody may lie, and after pre-steps, whose
    results are no independent gradients.
    """
    updates = effect.rule == "mda" and effect.model is not None
    return updates and effect.f > 0 and not effect.pre_steps


def _spread(
    effect: Aggregate,
    chosen: tuple[int, ...] | None,
    squared: NDArray[np.float64] | None,
    mean: Vector,
) -> Spread | None:
    """What an update shows of MDA's variance condition, if anything.

    Args:
        effect: The update.
        chosen: Rows that were selected.
        squared: ``(n, n)`` float64, squared distances between all rows; None where they show
            nothing.
        mean: ``(d,)`` float32, of the selected rows.
    """
    if chosen is None or squared is None or len(chosen) < 2:
        return None
    count = len(chosen)
    # The squared distances of m vectors from their mean add up to those of all their pairs, over m.
    pairs = squared[np.ix_(chosen, chosen)].sum() / 2
    return Spread(
        factor=factor(len(effect.vectors), effect.f),
        count=count,
        variance=pairs / count / (count - 1),
        square=norm(mean) ** 2,
    )


def _left_out(effect: Aggregate, chosen: tuple[int, ...] | None) -> tuple[str, ...]:
    if chosen is None:
        return ()
    return tuple(who for index, who in enumerate(effect.identities) if index not in chosen)


def _gather_report(effect: Aggregate, own: str, result: Vector, seconds: float) -> Report:
    """How far the node's own model was from its peers' votes, and the contracted model is."""
    away = np.sqrt(squared_distances([*effect.vectors, result]))
    mine = effect.identities.index(own)
    peers = [index for index in range(len(effect.vectors)) if index != mine]
    before = {effect.identities[index]: float(away[mine, index]) for index in peers}
    after = [float(away[-1, index]) for index in peers]
    spread = median(before.values())
    return Report(
        seconds=seconds,
        distances=before,
        contraction=median(after) / spread if spread else None,
        norm=norm(result),
    )
