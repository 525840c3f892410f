"""Push: models from further back, so that training is undone."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import SERVERS, Attack, View, moved, of_length, undoing
from byzsgd.cluster import Role
from byzsgd.vectors import Vector, norm


@dataclass(frozen=True, kw_only=True, slots=True)
class Push(Attack):
    """The mean of the correct models, moved against the way that training went in the last step.

    A median is pushed to the edge of the correct models' range, and no further.

    Source: ours, after El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed
    Byzantine Machine Learning" (what the median is there for).
    """

    roles: ClassVar[frozenset[Role]] = SERVERS

    scale: float = 1.0
    """How far, in lengths of the mean. 0.01 and less stays within a synchronous worker's bounds."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean + scale * |mean|`` in the direction that undoes training."""
        del receiver
        mean = view.mean()
        return moved(mean, of_length(undoing(view), self.scale * norm(mean)), 1)
