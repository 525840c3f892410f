"""Inf: infinity, which no average survives."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import WORKERS, Attack, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Infinite(Attack):
    """Infinity in every coordinate; receivers refuse it before it counts.

    Source: ours; it is what a node sends whose training has diverged.
    """

    roles: ClassVar[frozenset[Role]] = WORKERS
    needs_sight: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> Vector:
        """The infinities."""
        del receiver
        return np.full_like(view.vectors[0], np.inf)
