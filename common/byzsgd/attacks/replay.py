"""Replay: what was true some steps ago, under a new label."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import BOTH, Attack, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay(Attack):
    """The mean of what correct nodes sent ``age`` steps ago, labelled with the current step.

    The liars keep a vector for each of those steps.

    Source: ours; it is what a node sends that lags behind and labels its work wrong.
    """

    roles: ClassVar[frozenset[Role]] = BOTH

    age: float = 20
    """Steps; while there have not been so many, the oldest that are known."""

    @property
    def history(self) -> int:
        """As many steps as the lie is old."""
        return max(int(self.age), 0)

    def forge(self, view: View, receiver: str) -> Vector:
        """The old mean."""
        del receiver
        return view.past(self.history).copy()
