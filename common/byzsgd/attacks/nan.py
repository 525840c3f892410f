"""Not a number: one such coordinate poisons an average, and most medians."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import BOTH, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class NotANumber:
    """NaN in every coordinate; receivers refuse it before it counts."""

    roles: ClassVar[frozenset[Role]] = BOTH
    per_receiver: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> Vector:
        """The NaNs."""
        del receiver
        return np.full_like(view.vectors[0], np.nan)
