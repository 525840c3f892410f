"""Mimic: one correct worker's words, repeated, so that it weighs more than the others."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import WORKERS, Attack, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Mimic(Attack):
    """The vector of one correct worker: nothing tells it from a correct one, because it is one.

    Where workers have different data, the others' data lose weight.

    Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing" (mimic).
    """

    roles: ClassVar[frozenset[Role]] = WORKERS
    per_receiver: ClassVar[bool] = True

    victim: float = 0
    """Place of the worker that is repeated, among those that were seen, from 0."""
    per_server: float = 1
    """1: each server hears another worker repeated, which also drives servers apart; 0: one."""

    def forge(self, view: View, receiver: str) -> Vector:
        """The victim's vector."""
        place = int(self.victim) + (view.place(receiver) if self.per_server else 0)
        return view.vectors[place % len(view.vectors)].copy()
