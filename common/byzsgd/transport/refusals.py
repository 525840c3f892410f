"""Refusals of all threads, counted by peer and reason; and how long who was cut off stays out."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from byzsgd.messages import Reason

REPORT_SECONDS = 1.0
"""Refusals of one peer for one reason are counted always, and reported this often at most."""

BAN_SECONDS = 1.0
"""How long who was cut off for the first time stays out; twice as long after every further time.
It adds to the five seconds that libzmq waits after a login that was refused."""

BAN_SECONDS_MAX = 300.0
"""The longest ban. It ends by itself: the peer may have been repaired."""

FORGIVE_SECONDS = 3600.0
"""Who was not cut off for this long begins anew."""

Report: TypeAlias = Callable[[str, Reason, str], None]


class Refusals:
    """Counts refusals, and reports some of them; every method may be called in any thread."""

    def __init__(self, report: Report) -> None:
        """Count from nothing.

        Args:
            report: Called with peer, reason and detail, in the thread that counts.
        """
        self._report = report
        self._counts: Counter[tuple[str, Reason]] = Counter()
        self._reported: dict[tuple[str, Reason], float] = {}
        self._lock = threading.Lock()

    def count(self, peer: str, reason: Reason, detail: str) -> None:
        """Count a refusal, and report it unless one like it was reported only just now."""
        now = time.monotonic()
        with self._lock:
            self._counts[peer, reason] += 1
            silent = now - self._reported.get((peer, reason), -REPORT_SECONDS) < REPORT_SECONDS
            if not silent:
                self._reported[peer, reason] = now
        if not silent:
            self._report(peer, reason, detail)

    def counts(self) -> Counter[tuple[str, Reason]]:
        """Refusals so far, by peer and reason."""
        with self._lock:
            return self._counts.copy()


class Bans:
    """Who stays out, and until when; to be used under its owner's lock."""

    def __init__(self) -> None:
        self._times: dict[str, tuple[int, float]] = {}
        """By peer, how many times it was cut off, and the end of its last ban."""

    def add(self, peer: str, now: float) -> float:
        """The seconds that a peer stays out that was just cut off."""
        times, until = self._times.get(peer, (0, now))
        if now - until > FORGIVE_SECONDS:
            times = 0
        # What else it had open when it was cut off is no further offence.
        if now < until:
            return until - now
        seconds: float = min(BAN_SECONDS * 2**times, BAN_SECONDS_MAX)
        self._times[peer] = (times + 1, now + seconds)
        return seconds

    def holds(self, peer: str, now: float) -> bool:
        """Whether a peer is to stay out."""
        return peer in self._times and now < self._times[peer][1]
