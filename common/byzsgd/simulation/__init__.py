"""Whole clusters in memory: virtual time, a seeded network with faults, liars that share all."""

from byzsgd.simulation.adversary import Coalition
from byzsgd.simulation.cluster import Simulation
from byzsgd.simulation.drill import coalition_of
from byzsgd.simulation.network import CALM, Faults
from byzsgd.simulation.timing import Timing, timing_named

__all__ = [
    "CALM",
    "Coalition",
    "Faults",
    "Simulation",
    "Timing",
    "coalition_of",
    "timing_named",
]
