"""Label-flip: correct work on wrong data."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import WORKERS, Attack, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFlip(Attack):
    """What a correct worker sends that takes label y for ``classes - 1 - y``.

    Source: Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks Against Federated Learning
    Systems" (label flipping).
    """

    roles: ClassVar[frozenset[Role]] = WORKERS
    needs_sight: ClassVar[bool] = False
    needs_flipped: ClassVar[bool] = True

    def forge(self, view: View, receiver: str) -> Vector:
        """The gradient on flipped labels, momentum included."""
        del receiver
        assert view.flipped is not None, "label-flip without a task whose labels can be flipped"
        return view.flipped().copy()
