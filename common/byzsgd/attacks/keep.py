"""Keep: each server is told what it believes already, so that a gather brings nobody together."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import SERVERS, Attack, View, mean, moved
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep(Attack):
    """A receiver's own model, or one on its side of the mean; against the contraction.

    Workers are dealt out to the servers' camps by their place.

    Source: ours, after El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed
    Byzantine Machine Learning" (Distributed Median Contraction, which it fights).
    """

    roles: ClassVar[frozenset[Role]] = SERVERS
    per_receiver: ClassVar[bool] = True

    scale: float = 1.0
    """1 tells a server its own model; more, one that is further out on its side of the mean."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean + scale * (own - mean)``."""
        models = list(view.last.values()) or list(view.vectors)
        middle = mean(models)
        own = view.last.get(receiver)
        if own is None:
            own = models[view.place(receiver) % len(models)]
        return moved(middle, moved(own, middle, -1), self.scale)
