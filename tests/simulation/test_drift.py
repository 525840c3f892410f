"""How far correct servers drift apart, and what a gather does about it."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.simulation import Faults, Simulation

EQUAL = Faults(delay=(0.005, 0.005), work=(0.001, 0.001))
"""Every message takes as long as every other."""


def drift(simulation: Simulation) -> float:
    """Largest distance between two correct servers' models, over the norm of one."""
    models = [server.vector for server in simulation.servers.values()]
    apart = max(np.linalg.norm(one - other) for one in models for other in models)
    return float(apart / np.linalg.norm(models[0]))


def drifts(simulation: Simulation) -> list[float]:
    """The drift at each step, taken when the last correct server scatters that step's model."""
    steps: list[float] = []

    def watch() -> bool:
        at = {server.model_step for server in simulation.servers.values()}
        if at == {len(steps)}:
            steps.append(drift(simulation))
        return all(server.done for server in simulation.servers.values())

    assert simulation.run_until(watch, seconds=600)
    return steps


@pytest.mark.parametrize("shape", [(7, 2, 5, 1), (10, 3, 8, 2)], ids=str)
def test_who_hears_the_same_has_the_same_model(
    shape: tuple[int, int, int, int], simulate: Callable[..., Simulation]
) -> None:
    """Servers that hear the same senders are equal to the last bit in every step, gather or not."""
    simulation = simulate(
        shape, seed=1, steps=40, gather_period=5, workers_say="mute", servers_say="mute"
    )
    apart = drifts(simulation)

    assert len(apart) > 20
    assert set(apart) == {0.0}


def test_equal_delays(simulate: Callable[..., Simulation]) -> None:
    """Where every message takes equally long, correct servers never drift apart."""
    simulation = simulate((7, 2, 5, 1), seed=1, steps=40, faults=EQUAL)
    simulation.run()

    assert drift(simulation) == 0


def test_random_delivery(simulate: Callable[..., Simulation]) -> None:
    """Under random delivery, T = 10, servers stay within 6 %, and a gather more than halves it."""
    simulation = simulate((4, 1, 5, 1), seed=1, learns="digits", steps=100, gather_period=10)
    apart = drifts(simulation)
    before, after = apart[9::10], apart[10::10]

    assert len(apart) > 95
    assert 0 < max(apart) <= 0.06
    assert np.median([b / a for a, b in zip(before, after, strict=False)]) <= 0.5


@pytest.mark.parametrize(("shape", "most"), [((7, 2, 5, 1), 0.05), ((10, 3, 8, 2), 0.2)], ids=str)
def test_liars_who_pull_apart(
    shape: tuple[int, int, int, int], most: float, simulate: Callable[..., Simulation]
) -> None:
    """Servers that lie to one half this way and to the other half that way gain little."""
    simulation = simulate(
        shape,
        seed=1,
        learns="digits",
        steps=50,
        workers_say="alie",
        servers_say="equivocate",
    )
    apart = drifts(simulation)

    assert len(apart) > 20
    assert max(apart[10:]) <= most


def test_an_overlapped_gather_costs_bytes_but_no_waiting(
    simulate: Callable[..., Simulation],
) -> None:
    """As many messages as any gather, and as little time as without: but for the last one."""

    def trained(**changes: object) -> Simulation:
        faults = Faults(delay=(0.01, 0.01), work=(0.0, 0.0))
        simulation = simulate((7, 2, 5, 1), seed=1, steps=20, faults=faults, **changes)
        simulation.run()
        return simulation

    free, plain, overlapped = (
        trained(gather_period=100),
        trained(),
        trained(overlapped_gather=True),
    )
    seconds = [simulation.timeline.now for simulation in (free, plain, overlapped)]

    for kind, count in {"gather": 20 * 5 * 4, "gradient": 20 * 7 * 5}.items():
        assert plain.messages[kind] == overlapped.messages[kind] == count
    assert seconds[1] == pytest.approx(seconds[0] + 20 * 0.01)
    assert seconds[2] == pytest.approx(seconds[0] + 0.01)
