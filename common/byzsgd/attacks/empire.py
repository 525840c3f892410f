"""Fall of empires: a small step backwards, close enough to be taken for a correct one."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import WORKERS, Attack, View, moved
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Empire(Attack):
    """Minus epsilon times the mean of the correct gradients (inner product manipulation).

    Source: Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
    Manipulation".
    """

    roles: ClassVar[frozenset[Role]] = WORKERS

    eps: float = 1.1
    """epsilon. Small values slip through robust rules, large ones turn an average round."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``-eps`` times the mean."""
        del receiver
        return moved(0, view.mean(), -self.eps)
