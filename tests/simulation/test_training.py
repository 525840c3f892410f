"""Real training in the simulation: the digits, with and without liars, against one trusted server.

The margins leave room for a few of the 360 test images; a run that a lie broke misses them by far.
"""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import names
from byzsgd.cluster import Role
from byzsgd.simulation import Simulation

POINT = 0.01

MARGINS = {"alie-adaptive": 2.5 * POINT, "empire": 2.5 * POINT}
"""Below vanilla's accuracy; 2 points where nothing is said."""


@pytest.fixture(scope="module")
def vanilla(simulate: Callable[..., Simulation]) -> float:
    """What one trusted server and seven correct workers reach by averaging."""
    simulation = simulate((7, 0, 1, 0), seed=1, learns="digits", rule="average")
    simulation.run()
    return simulation.accuracies()["s1"]


def test_vanilla(vanilla: float) -> None:
    """A parameter server that trusts everybody reaches 97 % in 300 steps."""
    assert vanilla >= 0.97


def test_no_attack(vanilla: float, simulate: Callable[..., Simulation]) -> None:
    """Without an attack, every server ends within a point of vanilla, and all close together."""
    simulation = simulate((7, 2, 5, 1), seed=1, learns="digits")
    simulation.run()

    assert min(simulation.accuracies().values()) >= vanilla - POINT
    assert relative_drift(simulation) < 0.03


STEALTHY = ("alie", "alie-adaptive", "empire", "mimic", "optimal", "zero")
"""Attacks of workers that cost most; test_matrix.py has every other one, in shorter trainings."""


@pytest.mark.parametrize("number", range(len(STEALTHY)))
def test_attacked(number: int, vanilla: float, simulate: Callable[..., Simulation]) -> None:
    """Two of seven workers and one of five servers lie; every correct server still learns."""
    workers_say = STEALTHY[number]
    servers_say = names(Role.SERVER)[2 * number]
    simulation = simulate(
        (7, 2, 5, 1), seed=1, learns="digits", workers_say=workers_say, servers_say=servers_say
    )
    simulation.run()
    accuracies = list(simulation.accuracies().values())

    assert np.mean(accuracies) >= vanilla - MARGINS.get(workers_say, 2 * POINT)
    assert max(accuracies) - min(accuracies) <= POINT
    assert relative_drift(simulation) < 0.05


def relative_drift(simulation: Simulation) -> float:
    """Largest distance between two correct servers' models, over the norm of one."""
    models = [server.vector for server in simulation.servers.values()]
    drift = max(np.linalg.norm(one - other) for one in models for other in models)
    return float(drift / np.linalg.norm(models[0]))
