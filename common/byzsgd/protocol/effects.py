"""What a node wants done."""

from dataclasses import dataclass
from typing import TypeAlias

from byzsgd.messages import Message, Reason
from byzsgd.vectors import Vector

MODEL_RULE = "coordinate_median"
"""M: how models are aggregated, by workers and in a gather."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message to each of these peers; what cannot be sent now is dropped."""

    peers: tuple[str, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class Publish:
    """Send one message to every worker that listens."""

    message: Message


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """Aggregate the votes of a quorum; answered by ``Aggregated`` of the same step."""

    step: int
    rule: str
    """A name of ``byzsgd.aggregation.RULES``."""
    identities: tuple[str, ...]
    """Who cast the votes, sorted: the result depends on the set, never on the order of arrival."""
    vectors: tuple[Vector, ...]
    """The votes, ``(d,)`` float32 each, in the order of ``identities``."""
    f: int
    """At most this many of the votes are Byzantine."""
    model: Vector | None = None
    """With a model, the result is ``model - learning_rate * aggregate``: the update of a step."""
    learning_rate: float = 0.0
    """eta_t."""
    own: str | None = None
    """The identity to measure the distances of the report from: the node itself, in a gather."""
    pre_steps: tuple[str, ...] = ()
    """What is done to the vectors before the rule, names of ``byzsgd.aggregation.PRE_STEPS``."""
    buffers: int = 0
    """In an update so many coordinates at the end of each vote are new values of buffers: the
    result has their median, and neither rule nor learning rate concern them."""


@dataclass(frozen=True, slots=True, eq=False)
class ComputeGradient:
    """Compute a gradient on the mini-batch of a step; answered by ``GradientComputed``.

    The answer's vector is ``beta * momentum + (1 - beta) * gradient``, but for its buffers.
    """

    step: int
    vector: Vector
    """``(d,)`` float32: where the gradient is taken."""
    momentum: Vector | None
    """The moving average of the worker's earlier gradients; None stands for zero."""
    beta: float
    """Weight of the moving average, in [0, 1); 0 sends the gradient itself."""
    buffers: int = 0
    """So many coordinates at the end are new values of buffers, and are sent as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class TryModel:
    """Compute what the filters of the synchronous variant ask of a model, and the gradient there.

    Answered by ``ModelTried`` of the same step. Where the worker itself went is
    ``base - learning_rate * momentum``; k is the change of the gradient from ``base`` to the model,
    on one mini-batch, over the length of that way.
    """

    step: int
    vector: Vector
    """``(d,)`` float32: the model."""
    base: Vector
    """The model that the worker accepted last."""
    momentum: Vector
    """What the worker sent there."""
    learning_rate: float
    """eta there."""
    reference: Vector | None
    """The gradient at ``base`` on the mini-batch of the step; None computes it now."""
    bound: float
    """The Outliers filter's: from this distance on no gradient is computed."""
    beta: float
    """Weight of the moving average."""


@dataclass(frozen=True, slots=True, eq=False)
class SaveCheckpoint:
    """Put step and model on disk; a failure must not stop the training."""

    step: int
    vector: Vector


@dataclass(frozen=True, slots=True)
class NewLife:
    """From here on the node speaks as if it had just restarted: under a new boot id.

    A server wants it before it goes back to an earlier step. So within one life the step of a
    correct server's models never falls, and whoever reads them can tell going back from lying.
    """


@dataclass(frozen=True, slots=True)
class Refuse:
    """A message did not count: to be counted by peer and reason."""

    peer: str
    step: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Stop:
    """The node must not go on; the sentence says why, for the operator."""

    sentence: str


Work: TypeAlias = Aggregate | ComputeGradient | TryModel
"""Heavy work, whose result comes back as an event."""

Effect: TypeAlias = Send | Publish | Work | SaveCheckpoint | NewLife | Refuse | Stop
"""Everything that a node can want."""
