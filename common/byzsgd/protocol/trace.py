"""The last events and effects of a node, capped: the story told when an assertion breaks."""

from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias, get_args

from byzsgd.protocol.effects import Effect, Publish, Send
from byzsgd.protocol.events import Event, Received

LINES_MAX = 100

_NAMES = ("step", "peer", "peers", "rule", "identities", "reason", "sentence")
_TOLD = {
    kind: tuple(name for name in _NAMES if name in kind.__dataclass_fields__)
    for kind in get_args(Event) + get_args(Effect)
}
"""The fields that a story tells of each kind of event and effect."""


Memory: TypeAlias = tuple[type, tuple[type, int] | None, list[Any]]
"""What is kept of an event or effect: its kind, its message's kind and step, the fields told."""


class Trace:
    """The last things that happened to a node, without their vectors.

    They are put into words when a story is told: most never are.
    """

    def __init__(self) -> None:
        self._records: deque[tuple[float, list[Memory]]] = deque(maxlen=LINES_MAX)

    def record(self, now: float, event: Event, effects: Sequence[Effect]) -> None:
        """Remember an event and what the node wanted done."""
        self._records.append((now, [_memory(each) for each in (event, *effects)]))

    def story(self) -> list[str]:
        """One line an event, oldest first: the time, the event and its effects."""
        return [f"{now:.3f} {'; '.join(map(_words, memories))}" for now, memories in self._records]


def describe(happening: Event | Effect) -> str:
    """An event or effect in a few words, its vectors left out."""
    return _words(_memory(happening))


def _memory(happening: Event | Effect) -> Memory:
    kind = type(happening)
    said = None
    if isinstance(happening, Received | Send | Publish):
        said = type(happening.message), happening.message.step
    return kind, said, [getattr(happening, name) for name in _TOLD[kind]]


def _words(memory: Memory) -> str:
    kind, said, values = memory
    words = [kind.__name__]
    if said is not None:
        message, step = said
        words += [message.__name__, f"step={step}"]
    for name, value in zip(_TOLD[kind], values, strict=True):
        words.append(f"{name}={' '.join(value) if isinstance(value, tuple) else value}")
    return " ".join(words)
