"""Stale: what was true at the start, said for ever."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import BOTH, Attack, View, mean
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Stale(Attack):
    """The mean of the first vectors that correct nodes sent, labelled with the current step.

    Source: ours; it is what a node sends whose clock has stopped.
    """

    roles: ClassVar[frozenset[Role]] = BOTH

    def forge(self, view: View, receiver: str) -> Vector:
        """The old mean."""
        del receiver
        return mean(view.first or view.vectors)
