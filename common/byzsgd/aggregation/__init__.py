"""Aggregation rules: maps from n vectors, of which at most f are Byzantine, to one vector.

``RULES`` holds those that a cluster file may name. Each is also a plain function::

    from byzsgd.aggregation import mda
    gradient = mda(rows, f=2)

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
   calls, chance or other threads. Several threads may call it at once.
5. MUST return finite coordinates for finite rows, however large they are.
6. MUST come with a ``check(n, f)`` that returns None or one sentence with the violated
   inequality and its numbers: "krum needs n >= 2 f + 3, but 5 < 7".
7. MUST come with a ``select`` if its result is the average of some of the rows, and the average
   of the rows that it names MUST be that result, bit for bit.
"""

from collections.abc import Mapping
from types import MappingProxyType

from byzsgd.aggregation.average import AVERAGE, average
from byzsgd.aggregation.coordinate_median import COORDINATE_MEDIAN, coordinate_median
from byzsgd.aggregation.krum import KRUM, krum, krum_subset
from byzsgd.aggregation.mda import MDA, mda, mda_subset
from byzsgd.aggregation.rule import AggregationError, Rule, Vectors

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "average": AVERAGE,
        "coordinate_median": COORDINATE_MEDIAN,
        "krum": KRUM,
        "mda": MDA,
    }
)
"""Every rule by its name."""

__all__ = [
    "RULES",
    "AggregationError",
    "Rule",
    "Vectors",
    "average",
    "coordinate_median",
    "krum",
    "krum_subset",
    "mda",
    "mda_subset",
]
