"""Bursts of large messages between processes: one centre and some leaves, paced by credit.

Every contestant of ``benchmarks.transport`` paces itself by these classes, so that all of them do
the same: a sender has at most ``window`` messages under way that the slowest receiver has not
acknowledged, and whoever receives insists on every message, once and in order. Standard library
alone: contestants of other environments use it too.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

CENTRE = "s1"

FIRST = 1000
"""Number of the first message of bursts; those below it are to warm up."""

SLOW_BYTES_PER_SECOND = 10_000_000
"""Any contestant is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process of a contestant has to do."""

    name: str
    """Of this process: ``s1`` is the centre, ``w1``, ``w2`` ... are leaves."""
    leaves: tuple[str, ...]
    """All of them."""
    centre_sends: bool
    """Whether the centre sends every message to all leaves, or every leaf its own to the centre."""
    payload_bytes: int
    window: int
    host: str
    """Where the centre listens."""
    port: int
    """And the next one."""
    encrypted: bool
    keys: dict[str, tuple[str, str]]
    """Public and secret key of every process."""

    @property
    def is_centre(self) -> bool:
        """Whether the others connect to this process."""
        return self.name == CENTRE

    @property
    def sends(self) -> bool:
        """Whether this process sends; else it receives."""
        return self.is_centre == self.centre_sends

    @property
    def peers(self) -> tuple[str, ...]:
        """Who is at the other end."""
        return self.leaves if self.is_centre else (CENTRE,)

    @property
    def repeat_seconds(self) -> float:
        """How long to wait before a message to warm up is repeated: else they would pile up."""
        return 1 + self.payload_bytes / SLOW_BYTES_PER_SECOND

    def to_json(self) -> str:
        """As one word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Part":
        """The part that ``to_json`` wrote."""
        fields = json.loads(text)
        return cls(**fields | {"leaves": tuple(fields["leaves"])})


class Sender:
    """Counts what may be sent: messages 1, 2 ... to warm up, and bursts from FIRST on."""

    def __init__(self, part: Part, send: Callable[[int], None]) -> None:
        self._acknowledged = dict.fromkeys(part.peers, 0)
        self._window = part.window
        self._send = send
        self._warmed = 0
        self._sent = self._last = FIRST - 1
        self.began = self.ended = 0.0

    def warm_up(self) -> None:
        """Send a message that may be lost, as to those who are not connected yet."""
        self._warmed += 1
        self._send(self._warmed)

    @property
    def is_warm(self) -> bool:
        """Whether all peers have the last message so far, so that nothing is under way."""
        return min(self._acknowledged.values()) >= max(self._warmed, 1)

    @property
    def done(self) -> bool:
        """Whether all peers have acknowledged all bursts."""
        return min(self._acknowledged.values()) >= self._last

    def start(self, count: int) -> None:
        """Begin a burst."""
        self._last += count
        self.began = time.monotonic()
        self._go_on()

    def acknowledged(self, peer: str, number: int) -> None:
        """A peer has a message; send what may be sent now."""
        self._acknowledged[peer] = max(number, self._acknowledged[peer])
        self.ended = time.monotonic()
        self._go_on()

    def _go_on(self) -> None:
        slowest = max(min(self._acknowledged.values()), FIRST - 1)
        while self._sent < self._last and self._sent - slowest < self._window:
            self._sent += 1
            self._send(self._sent)


class Receiver:
    """Counts what came, from every peer."""

    def __init__(self, part: Part) -> None:
        self._got = dict.fromkeys(part.peers, FIRST - 1)
        self._last = FIRST - 1
        self.began = self.ended = 0.0

    @property
    def done(self) -> bool:
        """Whether everything has come."""
        return min(self._got.values()) >= self._last

    def start(self, count: int) -> None:
        """Expect a burst."""
        self._last += count
        self.began = time.monotonic()

    def got(self, peer: str, number: int) -> None:
        """A message came whole."""
        if number < FIRST:
            return
        if number != self._got[peer] + 1:
            sys.exit(f"message {number} of {peer} after message {self._got[peer]}")
        self._got[peer] = number
        self.ended = time.monotonic()


def report(began: float, ended: float, cpu: float) -> None:
    """Tell the parent of a burst that is over: when it was, and the CPU seconds that it took."""
    say(json.dumps({"began": began, "ended": ended, "cpu": cpu}))


def say(line: str = "ready") -> None:
    """Write a line to the parent: first that this process is ready, then a line for each burst."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def cpu_seconds() -> float:
    """What this process has used so far, the kernel's part included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
