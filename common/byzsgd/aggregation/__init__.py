"""Aggregation rules: maps from n vectors, of which at most f are Byzantine, to one vector.

``RULES`` holds those that a cluster file may name. Each is also a plain function::

    from byzsgd.aggregation import mda
    gradient = mda(rows, f=2)

``PRE_STEPS`` holds what can be done to vectors first; ``compose`` makes one rule of both::

    rule = compose(["nnm"], "trimmed_mean")
    gradient = rule.aggregate(rows, f=2)

The caller of a rule:

1. MUST order the rows by identity, one row an identity: then every correct node that holds the
   same votes computes the same vector, whatever order they arrived in.
2. MUST hand over votes only, and nothing that tells the rule whom to believe.

A rule ``rule(vectors, f, *, out=None)``:

1. MUST take ``(n, d)`` float32 or a sequence of n rows ``(d,)`` float32 of any strides, and MUST
   NOT copy more of them at a time than a block.
2. MUST refuse, as an ``AggregationError`` that names what is wrong: shapes and dtypes other than
   these, rows of different or no length, a row that is not finite, an f that is negative or
   violates the rule's bound, and an ``out`` that does not fit or shares memory with a row. What
   ``out`` then holds is not defined.
3. MUST NOT change its input, and MUST NOT return an alias of it: the result is ``out``, or new.
4. MUST depend on the ordered rows and f alone, bit for bit: not on strides or container, earlier
   calls, chance or other threads. Several threads may call it at once. On another kind of CPU the
   last digits of a result that weighs rows by distances may differ; and of vectors too short for
   compiled code those of distances, and with them a choice between almost equal ones.
5. MUST return finite coordinates for finite rows, however large they are.
6. MUST come with a ``check(n, f)`` that returns None or one sentence with the violated
   inequality and its numbers: "krum needs n >= 2 f + 3, but 5 < 7".
7. MUST say what is proven of it: see ``Rule.kappa``.
8. MUST come with a ``select`` if its result is the average of some of the rows, and the average
   of the rows that it names MUST be that result, bit for bit.
"""

from byzsgd.aggregation.average import average
from byzsgd.aggregation.bulyan import bulyan
from byzsgd.aggregation.centered_clipping import centered_clipping
from byzsgd.aggregation.coordinate_median import coordinate_median
from byzsgd.aggregation.geometric_median import geometric_median
from byzsgd.aggregation.krum import krum, krum_subset
from byzsgd.aggregation.mda import mda, mda_subset
from byzsgd.aggregation.mean_around_median import mean_around_median
from byzsgd.aggregation.monna import monna, monna_subset
from byzsgd.aggregation.multi_krum import multi_krum, multi_krum_subset
from byzsgd.aggregation.pre_step import PreStep
from byzsgd.aggregation.rule import AggregationError, Bound, Rule, Vectors
from byzsgd.aggregation.table import PRE_STEPS, RULES, compose
from byzsgd.aggregation.trimmed_mean import trimmed_mean

__all__ = [
    "PRE_STEPS",
    "RULES",
    "AggregationError",
    "Bound",
    "PreStep",
    "Rule",
    "Vectors",
    "average",
    "bulyan",
    "centered_clipping",
    "compose",
    "coordinate_median",
    "geometric_median",
    "krum",
    "krum_subset",
    "mda",
    "mda_subset",
    "mean_around_median",
    "monna",
    "monna_subset",
    "multi_krum",
    "multi_krum_subset",
    "trimmed_mean",
]
