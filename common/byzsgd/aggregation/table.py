"""Every rule and every pre-step by name, and rules that begin with pre-steps."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from byzsgd.aggregation.average import AVERAGE
from byzsgd.aggregation.bucketing import BUCKETING
from byzsgd.aggregation.bulyan import BULYAN
from byzsgd.aggregation.centered_clipping import CENTERED_CLIPPING
from byzsgd.aggregation.clipping import CLIPPING
from byzsgd.aggregation.coordinate_median import COORDINATE_MEDIAN
from byzsgd.aggregation.geometric_median import GEOMETRIC_MEDIAN
from byzsgd.aggregation.krum import KRUM
from byzsgd.aggregation.mda import MDA
from byzsgd.aggregation.mean_around_median import MEAN_AROUND_MEDIAN
from byzsgd.aggregation.monna import MONNA
from byzsgd.aggregation.multi_krum import MULTI_KRUM
from byzsgd.aggregation.nnm import NNM
from byzsgd.aggregation.pre_step import PreStep
from byzsgd.aggregation.rule import (
    AggregationError,
    Bound,
    Rule,
    Vectors,
    checked_rows,
    refuse_non_finite,
    result_vector,
)
from byzsgd.aggregation.trimmed_mean import TRIMMED_MEAN
from byzsgd.vectors import Vector

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            AVERAGE,
            BULYAN,
            CENTERED_CLIPPING,
            COORDINATE_MEDIAN,
            GEOMETRIC_MEDIAN,
            KRUM,
            MDA,
            MEAN_AROUND_MEDIAN,
            MONNA,
            MULTI_KRUM,
            TRIMMED_MEAN,
        )
    }
)
"""Every rule by its name."""

PRE_STEPS: Mapping[str, PreStep] = MappingProxyType(
    {pre_step.name: pre_step for pre_step in (BUCKETING, CLIPPING, NNM)}
)
"""Every pre-step by its name."""


def compose(pre_steps: Sequence[str], rule: str, seed: int = 0) -> Rule:
    """The rule that does the pre-steps in their order, and then aggregates by another rule.

    Args:
        pre_steps: Names of ``PRE_STEPS``, none twice; with none, the result is the rule itself.
        rule: A name of ``RULES``.
        seed: What chance there is in a pre-step: equal on all servers, such as the step.

    Returns:
        A rule that keeps the contract of ``byzsgd.aggregation``; its check covers the whole chain.
        It has no ``select``, for its result is no average of some of the rows.

    Raises:
        AggregationError: If a name is unknown, or a pre-step is there twice.

    Example:
        >>> compose(["nnm"], "coordinate_median").aggregate(np.float32([[1], [2], [900]]), f=1)
        array([1.5], dtype=float32)
    """
    if rule not in RULES:
        raise AggregationError(f"there is no rule {rule!r}")
    for name in pre_steps:
        if name not in PRE_STEPS:
            raise AggregationError(f"there is no pre-step {name!r}")
    if len(set(pre_steps)) < len(pre_steps):
        # Twice would not help, and the cost of mixtures of mixtures is that of a power.
        raise AggregationError(f"a pre-step is there twice: {', '.join(pre_steps)}")
    chain = RULES[rule]
    for name in reversed(pre_steps):
        chain = _after(PRE_STEPS[name], chain, seed)
    return chain


def _after(pre_step: PreStep, rule: Rule, seed: int) -> Rule:
    """The rule that does a pre-step first."""
    name = f"{pre_step.name} + {rule.name}"
    size = pre_step.bucket
    # ceil(n / size) >= a f + b is n >= size a f + size (b - 1) + 1. Of two bounds that may hold,
    # one is larger in both numbers, or the same.
    needs = (size * rule.check.per_f, size * (rule.check.constant - 1) + 1)
    bound = Bound(name, *max(needs, (pre_step.per_f, 1)))

    def aggregate(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
        """What the rule makes of the mixtures."""
        rows = checked_rows(vectors, f, bound)
        result = result_vector(rows, out)
        refuse_non_finite(rows)
        return rule.aggregate(pre_step.mix(rows, f, seed), f, out=result)

    return Rule(
        name=name,
        aggregate=aggregate,
        check=bound,
        kappa=_kappa(pre_step, rule),
        kappa_formula=f"{pre_step.kappa_formula}, where kappa is {rule.kappa_formula}",
        cost=f"{pre_step.cost} + {rule.cost}",
        use=pre_step.use,
        paper=f"{pre_step.paper}; {rule.paper}",
    )


def _kappa(pre_step: PreStep, rule: Rule) -> Callable[[int, int], float] | None:
    first, then = pre_step.kappa, rule.kappa
    if first is None or then is None:
        return None
    return lambda n, f: first(n, f, then(n, f))
