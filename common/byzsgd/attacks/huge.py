"""Huge: finite numbers so large that whoever squares or adds them in float32 gets infinity."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import WORKERS, Attack, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Huge(Attack):
    """One number near the largest that there is, in every coordinate: valid, so it counts.

    Source: ours; rules that compute distances in float32 fail on it.
    """

    roles: ClassVar[frozenset[Role]] = WORKERS
    needs_sight: ClassVar[bool] = False

    value: float = 3e38
    """The number; float32 ends at 3.4e38."""

    def forge(self, view: View, receiver: str) -> Vector:
        """The number, everywhere."""
        del receiver
        with np.errstate(over="ignore"):
            return np.full_like(view.vectors[0], self.value)
