"""Stale: what was true at the start, said for ever."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import BOTH, View, mean
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Stale:
    """The mean of the first vectors that correct nodes sent, labelled with the current step."""

    roles: ClassVar[frozenset[Role]] = BOTH
    per_receiver: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> Vector:
        """The old mean."""
        del receiver
        return mean(view.first or view.vectors)
