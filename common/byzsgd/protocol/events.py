"""What can happen to a node."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from byzsgd.messages import Message
from byzsgd.protocol.variance import Spread
from byzsgd.vectors import Vector


@dataclass(frozen=True, slots=True)
class Received:
    """A message came from an authenticated peer."""

    peer: str
    """Identity of the sender, as its key proves it."""
    message: Message


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A connection to a peer was made, or made anew: what was sent before may be lost."""

    peer: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an aggregation showed besides its result; watched, never voted with."""

    seconds: float = 0.0
    """Time that the aggregation took; 0 where nobody measured."""
    left_out: tuple[str, ...] = ()
    """Identities of the quorum that the rule did not select."""
    spread: Spread | None = None
    """What the update showed of MDA's variance condition; None where that says nothing."""
    distances: Mapping[str, float] = field(default_factory=dict)
    """Euclidean distance from the node's own model to each peer's vote of the gather."""
    contraction: float | None = None
    """Median distance of the votes to the contracted model, over that to the own vote before."""
    norm: float | None = None
    """Euclidean norm of the result."""


@dataclass(frozen=True, slots=True, eq=False)
class Aggregated:
    """The result of an ``Aggregate`` effect."""

    step: int
    vector: Vector
    """``(d,)`` float32, newly allocated."""
    report: Report = field(default_factory=Report)


@dataclass(frozen=True, slots=True, eq=False)
class GradientComputed:
    """The result of a ``ComputeGradient`` effect."""

    step: int
    vector: Vector
    """``(d,)`` float32: what the worker sends, momentum included."""
    norm: float = 0.0
    """Euclidean norm of ``vector``."""
    loss: float = 0.0
    """Loss on the mini-batch, before the update."""
    seconds: float = 0.0
    """Time that the gradient took; 0 where nobody measured."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelTried:
    """The result of a ``TryModel`` effect."""

    step: int
    distance: float
    """Euclidean distance of the model to where the worker itself went."""
    coefficient: float | None = None
    """k of the Lipschitz filter; None where the model is out of bounds already."""
    vector: Vector | None = None
    """``(d,)`` float32: what the worker sends if it accepts the model, momentum included; None
    where the model is out of bounds."""
    norm: float = 0.0
    """Euclidean norm of ``vector``."""
    loss: float = 0.0
    """Loss at the model, on the mini-batch of the step."""
    seconds: float = 0.0
    """Time that it took; 0 where nobody measured."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The clock reached the node's ``deadline``."""


Result: TypeAlias = Aggregated | GradientComputed | ModelTried
"""What heavy work ends with."""

Event: TypeAlias = Received | PeerConnected | Result | DeadlinePassed
"""Everything that can happen to a node."""
