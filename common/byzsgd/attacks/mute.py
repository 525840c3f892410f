"""Mute: says nothing that counts, and so takes a place in no quorum."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import BOTH, Attack, View
from byzsgd.cluster import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Mute(Attack):
    """Silence: what a crashed node does, and what stops whoever waits for everybody.

    Source: Lamport, Shostak, Pease, "The Byzantine Generals Problem" (a message that is not sent).
    """

    roles: ClassVar[frozenset[Role]] = BOTH
    needs_sight: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> None:
        """Nothing."""
