"""Zero: a vector of zeros, which slows training down rather than turning it round."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import BOTH, Attack, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Zero(Attack):
    """Zero in every coordinate: near correct gradients once they are short, so often selected.

    Source: ours; it is what a node sends whose gradients vanish, or who does no work.
    """

    roles: ClassVar[frozenset[Role]] = BOTH
    needs_sight: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> Vector:
        """The zeros."""
        del receiver
        return np.zeros_like(view.vectors[0])
