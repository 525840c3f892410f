"""Not a number: one such coordinate poisons an average, and most medians."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import BOTH, Attack, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class NotANumber(Attack):
    """NaN in every coordinate; receivers refuse it before it counts.

    Source: ours; it is what a node sends whose training has diverged.
    """

    roles: ClassVar[frozenset[Role]] = BOTH
    needs_sight: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> Vector:
        """The NaNs."""
        del receiver
        return np.full_like(view.vectors[0], np.nan)
