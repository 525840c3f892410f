"""What every pre-step shares: its shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from byzsgd.aggregation.mixture import Row

Mix: TypeAlias = Callable[[Sequence[Row], int, int], Sequence[Row]]
"""From rows, f and a seed to the rows that the next pre-step, or the rule, sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreStep:
    """Something done to vectors before a rule sees them, and what its users need to know."""

    name: str
    """What cluster files call it."""
    mix: Mix
    """The pre-step itself: mixtures of the rows, which are finite and enough for its bound. It
    depends on the ordered rows, f and the seed alone, as a rule depends on rows and f."""
    per_f: int
    """Its own bound is ``n >= per_f * f + 1``."""
    bucket: int = 1
    """How many vectors become one, the last one maybe of fewer; f stays as it is."""
    kappa: Callable[[int, int, float], float] | None = None
    """From n, f and the coefficient of what follows to that of the whole; None: not proven."""
    kappa_formula: str
    """The same in symbols."""
    cost: str
    """Time beyond what follows, in symbols; no pre-step needs memory beyond some blocks."""
    use: str
    """When to take it, for the table in the documentation."""
    paper: str
    """Where it is from."""
