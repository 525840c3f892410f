"""What happened to the correct nodes of a run: its digest, and the last life of each node."""

import hashlib

from byzsgd.protocol import Event, Node, Received
from byzsgd.protocol.trace import describe
from byzsgd.vectors import Vector

Happening = tuple[float, Event, Vector | None]
"""An instant of the node's clock, what happened, and the gradient that its task gave it last."""


class Record:
    """A witness of a simulation."""

    def __init__(self) -> None:
        self.lives: dict[str, tuple[float, int, Vector | None, list[Happening]]] = {}
        """For each node when and with what it last started, and what has happened to it since."""
        self.events = 0
        self.last = ""
        """Whom something happened to last."""
        self._drawn: dict[str, Vector] = {}
        self._digest = hashlib.sha256()

    def digest(self) -> str:
        """Equal for equal histories: who met what and when, vectors included."""
        return self._digest.hexdigest()

    def starts(self, now: float, node: Node) -> None:
        """Begin a new life."""
        vector = getattr(node, "vector", None)
        self._note(now, node.identity, "start", vector)
        self.lives[node.identity] = (now, node.step, vector, [])

    def meets(self, now: float, identity: str, event: Event) -> None:
        """Add an event to a life."""
        said = event.message if isinstance(event, Received) else event
        self._note(now, identity, describe(event), getattr(said, "vector", None))
        self.lives[identity][3].append((now, event, self._drawn.get(identity)))

    def computed(self, identity: str, gradient: Vector) -> None:
        """Remember the last gradient."""
        self._drawn[identity] = gradient

    def _note(self, now: float, identity: str, words: str, vector: Vector | None) -> None:
        self.events += 1
        self.last = identity
        self._digest.update(f"{now!r} {identity} {words}\n".encode())
        if vector is not None:
            self._digest.update(vector.data)
