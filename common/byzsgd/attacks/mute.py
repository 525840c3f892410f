"""Mute: says nothing that counts, and so takes a place in no quorum."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import BOTH, View
from byzsgd.cluster import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Mute:
    """Silence: what a crashed node does, and what stops whoever waits for everybody."""

    roles: ClassVar[frozenset[Role]] = BOTH
    per_receiver: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> None:
        """Nothing."""
