"""When liars speak, and how often: a choice of the coalition, whatever they say."""

from collections.abc import Iterable
from enum import StrEnum

import numpy as np

from byzsgd.attacks.attack import moved
from byzsgd.cluster import nearest
from byzsgd.errors import ConfigError
from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Message, Model
from byzsgd.protocol import Effect, Send

Order = tuple[str, Effect]
"""Which liar is to do what."""

FAR = 1000
"""Steps by which a flood's labels are wrong, or less: ahead it is the next multiple."""


class Timing(StrEnum):
    """When the lies for a step are told."""

    EARLY = "early"
    """As soon as possible, before correct nodes speak: quorums take the first votes."""
    LATE = "late"
    """Once as many correct votes of that step were seen as make a quorum: just too late. Where
    lies travel faster than votes, as in the simulation, that is no longer too late, and the liars
    know all votes of the very step that they lie about."""
    FLOOD = "flood"
    """Early, and each lie many times: again, with other vectors, and for wrong steps."""


def timing_named(name: str) -> Timing:
    """The timing of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in list(Timing):
        raise ConfigError(f"timing {name!r}: {nearest(name, Timing)}")
    return Timing(name)


def flooded(orders: Iterable[Order]) -> list[Order]:
    """Orders with every lie among them told many times.

    The one that is meant to count comes first: a liar's own queue is short, and of an identity and
    a step the first vote counts. Labels far ahead are few, or they would push it out again.
    """
    told: list[Order] = []
    for liar, effect in orders:
        match effect:
            case Send(peers, Gradient() | Model() | GatherModel() as lie):
                told += [(liar, Send(peers, message)) for message in _varied(lie)]
            case _:
                told.append((liar, effect))
    return told


def _varied(lie: Gradient | Model | GatherModel) -> list[Message]:
    kind, step, vector = type(lie), lie.step, lie.vector
    with np.errstate(invalid="ignore"):
        other = moved(0, vector, -1)
    ahead, behind = min((step // FAR + 1) * FAR, STEP_MAX), max(step - FAR, 0)
    return [
        lie,
        kind(step, other),
        kind(ahead, vector),
        kind(behind, other),
        lie,
        kind(step, moved(0, vector, 2)),
    ]
