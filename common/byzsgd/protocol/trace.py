"""The last events and effects of a node, capped: the story told when an assertion breaks."""

from collections import deque
from collections.abc import Sequence
from typing import get_args

from byzsgd.protocol.effects import Effect, Publish, Send
from byzsgd.protocol.events import Event, Received

LINES_MAX = 100

_NAMES = ("step", "peer", "peers", "rule", "identities", "reason", "sentence")
_TOLD = {
    kind: tuple(name for name in _NAMES if name in kind.__dataclass_fields__)
    for kind in get_args(Event) + get_args(Effect)
}
"""The fields that a story tells of each kind of event and effect."""


class Trace:
    """The last things that happened to a node, without their vectors."""

    def __init__(self) -> None:
        self._records: deque[tuple[float, str, tuple[str, ...]]] = deque(maxlen=LINES_MAX)

    def record(self, now: float, event: Event, effects: Sequence[Effect]) -> None:
        """Remember an event and what the node wanted done."""
        self._records.append((now, describe(event), tuple(map(describe, effects))))

    def story(self) -> list[str]:
        """One line an event, oldest first: the time, the event and its effects."""
        return [
            f"{now:.3f} {event}" + "".join(f"; {effect}" for effect in effects)
            for now, event, effects in self._records
        ]


def describe(happening: Event | Effect) -> str:
    """An event or effect in a few words, its vectors left out."""
    words = [type(happening).__name__]
    if isinstance(happening, Received | Send | Publish):
        message = happening.message
        words += [type(message).__name__, f"step={message.step}"]
    for name in _TOLD[type(happening)]:
        value = getattr(happening, name)
        words.append(f"{name}={' '.join(value) if isinstance(value, tuple) else value}")
    return " ".join(words)
