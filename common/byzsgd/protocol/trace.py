"""The last events and effects of a node, capped: the story told when an assertion breaks."""

from collections import deque
from collections.abc import Sequence

from byzsgd.protocol.effects import Effect
from byzsgd.protocol.events import Event

LINES_MAX = 100


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
    message = getattr(happening, "message", None)
    if message is not None:
        words.append(type(message).__name__)
    step = getattr(message or happening, "step", None)
    if step is not None:
        words.append(f"step={step}")
    for name in ("peer", "peers", "rule", "identities", "reason", "sentence"):
        value = getattr(happening, name, None)
        if value is not None:
            words.append(f"{name}={' '.join(value) if isinstance(value, tuple) else value}")
    return " ".join(words)
