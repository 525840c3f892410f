"""The filters of the synchronous variant: whether one server's model is a plausible next one.

A worker that believes a single server asks two questions of the model it was given. Does the
gradient change there about as fast as it usually does (Lipschitz filter)? Is the model within reach
of where the worker itself would have gone (Outliers filter)?

Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine
Learning" (ByzSGD, synchronous variant). Which gradients are compared, over which length, and what
counts as seen is ours.
"""

from collections import deque
from enum import StrEnum
from math import inf, isfinite

import numpy as np

COEFFICIENTS_KEPT = 1000
"""Of the Lipschitz filter: enough for its quantile, and a bound for a training of months."""


class Filter(StrEnum):
    """Which filter refused a model: the label of what is counted."""

    LIPSCHITZ = "lipschitz"
    """The gradient changes faster there than in most models seen."""
    OUTLIERS = "outliers"
    """The model is out of reach of where the worker itself went."""


class LipschitzFilter:
    """Refuses models at which the gradient changes faster than at most of those seen.

    It asks that the coefficient k of a model be at most the (n_ps - f_ps) / n_ps quantile of all
    that were seen, refused ones included: with accepted ones alone the quantile would creep
    downwards until hardly anything passed. So it refuses about f_ps in n_ps correct models, by
    construction.
    """

    def __init__(self, n_servers: int, f_servers: int) -> None:
        self._quantile = (n_servers - f_servers) / n_servers
        self._seen: deque[float] = deque(maxlen=COEFFICIENTS_KEPT)

    def note(self, coefficient: float) -> None:
        """Remember the coefficient of a model; one that is no number says nothing of the others."""
        if isfinite(coefficient):
            self._seen.append(coefficient)

    def accepts(self, coefficient: float) -> bool:
        """Whether a model of that coefficient passes; the coefficient is remembered either way."""
        passes = isfinite(coefficient) and coefficient <= self.limit()
        self.note(coefficient)
        return passes

    def limit(self) -> float:
        """The largest coefficient that passes; infinite while none has been seen."""
        return float(np.quantile(self._seen, self._quantile)) if self._seen else inf


def outliers_bound(
    step: int, *, gather_period: int, n_workers: int, f_workers: int, stride: float
) -> float:
    """How far a correct model of a step may be from where the worker itself went.

    That is ``stride * ((3 T + 2) (n_w - f_w) / (4 f_w) + 2 ((t - 1) mod T))``, and infinite where
    no worker may lie.

    Args:
        step: t, at least 1.
        gather_period: T.
        n_workers: n_w.
        f_workers: f_w.
        stride: eta_a times the norm of what the worker sent at the last gather step a.
    """
    if f_workers == 0:
        return inf
    spread = (3 * gather_period + 2) * (n_workers - f_workers) / (4 * f_workers)
    return stride * (spread + 2 * ((step - 1) % gather_period))
