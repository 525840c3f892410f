"""What nodes say to one another: frozen values, no bytes.

Who sent a message is never part of it: the transport knows the authenticated identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from byzsgd.vectors import Vector


class Reason(StrEnum):
    """Why a message did not count: a closed set, the label of every refusal counted."""

    MALFORMED = "malformed"
    """No message of this protocol: frames, header, types or sizes are wrong."""
    VERSION = "version"
    """Another wire version."""
    WRONG_LENGTH = "wrong-length"
    """Not exactly d coordinates."""
    NON_FINITE = "non-finite"
    """A coordinate is NaN or infinite."""
    STRANGER = "stranger"
    """A key that is not in the cluster file."""
    NOT_ADMITTED = "not-admitted"
    """A key that the cluster file gave somebody once, or a node that it does not admit now."""
    THROTTLED = "throttled"
    """A login of somebody who logs in too often, or was cut off only just now."""
    FLOOD = "flood"
    """More bytes, messages or connections than there is room for: the connection was cut."""
    BEHIND = "behind"
    """More bytes than there is room for, while this node was behind with reading: the connection
    was cut, and nobody is to blame."""
    WRONG_ROLE = "wrong-role"
    """A kind of message that its sender's role may not send to this node."""
    OTHER_CLUSTER = "other-cluster"
    """Its sender runs another cluster file."""
    STALE = "stale"
    """A step that is over for this node."""
    LATE = "late"
    """The quorum of its step was full: harmless, and normal for n - q votes of each step."""
    DUPLICATE = "duplicate"
    """The same vote again."""
    EQUIVOCATION = "equivocation"
    """A second, different vote of one identity in one step: the first one counts."""


STEP_MAX = 2**53 - 1
"""The largest step on the wire: every language's numbers hold it exactly."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Model:
    """A server's model at the start of a step: scattered to workers, and the answer to a pull."""

    step: int
    """Learning step t whose gradients this model is for."""
    vector: Vector
    """``(d,)`` float32."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class GatherModel:
    """A server's vote in the gather of a step: its updated model before the contraction."""

    step: int
    """The step that begins with the contracted model."""
    vector: Vector
    """``(d,)`` float32."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Gradient:
    """A worker's vote for the update of a step."""

    step: int
    """The step of the models that it was computed at."""
    vector: Vector
    """``(d,)`` float32: the gradient, or its moving average under worker momentum."""


@dataclass(frozen=True, slots=True)
class Pull:
    """Asks again for what its sender lacks of a step.

    A server asks a worker for its gradient of ``step``; a worker asks a server for its model of
    ``step`` or a later one; a server asks a server for its vote or model of ``step`` or a later
    one; an operator asks a server for its model of exactly ``step`` or, if that is gone, a later
    one, and is answered when the server gets there.
    """

    step: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The first words of a connection: which cluster file its sender runs, and where it stands."""

    step: int
    """The step that the sender is at."""
    digests: Mapping[str, bytes] = field(default_factory=dict)
    """For each agreed key of the cluster file a short digest of its value."""
    reply: bool = False
    """Whether this answers a Hello (an answer is not answered)."""


VECTOR_MESSAGES = (Model, GatherModel, Gradient)
"""The messages that carry a vector."""

Message: TypeAlias = Model | GatherModel | Gradient | Pull | Hello
"""Everything that can travel between two nodes."""
