"""A quadratic whose workers hang, or take memory without end, while a file asks them to."""

import time
from ctypes import PyDLL
from pathlib import Path

from byzsgd.tasks import GradientSource, Share
from byzsgd.tasks.quadratic import Quadratic
from byzsgd.vectors import Vector

FOLDER = Path("/etc/byzsgd")

PACE_SECONDS = 0.05
"""A gradient's least time: a training at full speed would take the cores from other tests."""

EATEN_BYTES_MAX = 1 << 30
"""Far above the limit that is to end it, and no danger for the machine if nothing does."""


def breakable() -> "Breakable":
    """The task."""
    return Breakable(1000, 1.0)


class Breakable(Quadratic):
    """Workers look for the files ``hang-<id>`` and ``eat-<id>`` before each gradient."""

    def source(self, share: Share) -> GradientSource:
        """The gradients of one worker."""
        return _Source(super().source(share), share.identity)


class _Source:
    def __init__(self, source: GradientSource, identity: str) -> None:
        self._source = source
        self._hang, self._eat = FOLDER / f"hang-{identity}", FOLDER / f"eat-{identity}"

    def gradient(self, vector: Vector, step: int) -> tuple[Vector, float]:
        time.sleep(PACE_SECONDS)
        if self._hang.exists():
            PyDLL(None).sleep(10**6)  # With the interpreter's lock: no other thread runs meanwhile.
        if self._eat.exists():
            b"x" * EATEN_BYTES_MAX
        return self._source.gradient(vector, step)
