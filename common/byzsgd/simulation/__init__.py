"""Whole clusters in memory: virtual time, a seeded network with faults, liars that share all."""

from byzsgd.simulation.adversary import Coalition
from byzsgd.simulation.cluster import Simulation
from byzsgd.simulation.network import CALM, Faults

__all__ = ["CALM", "Coalition", "Faults", "Simulation"]
