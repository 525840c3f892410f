"""Negative controls: without one of the defences, training really breaks.

Each shows that the other tests of this folder would see a defence that is missing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from byzsgd.aggregation import AggregationError
from byzsgd.simulation import Simulation
from byzsgd.simulation.promises import Promises

SHAPE = (7, 2, 5, 1)


def mean_accuracy(simulation: Simulation) -> float:
    simulation.run()
    return float(np.mean(list(simulation.accuracies().values())))


def test_averaging_breaks(simulate: Callable[..., Simulation]) -> None:
    """Two liars of seven who flip signs destroy an average, and do no harm to the robust rule."""
    accuracies = {
        rule: mean_accuracy(
            simulate(SHAPE, seed=1, learns="digits", steps=40, workers_say="sign-flip", rule=rule)
        )
        for rule in ("average", "mda")
    }

    assert accuracies["average"] < 0.4
    assert accuracies["mda"] > 0.8


def test_one_liar_too_many(simulate: Callable[..., Simulation]) -> None:
    """f_w + 1 liars destroy what f_w liars cannot."""
    accuracy = mean_accuracy(
        simulate(SHAPE, seed=1, learns="digits", steps=30, workers_say="sign-flip", more_liars=1)
    )

    assert accuracy < 0.4


def test_a_quorum_of_twice_f(simulate: Callable[..., Simulation]) -> None:
    """With q_w = 2 f_w liars are half of a quorum and win, whatever the rule is told."""
    simulation = simulate(
        SHAPE,
        seed=1,
        learns="digits",
        steps=30,
        workers_say="sign-flip",
        unchecked={"worker_quorum": 4, "f_workers": 1},
    )

    assert mean_accuracy(simulation) < 0.4


def test_the_rule_refuses_such_a_quorum(simulate: Callable[..., Simulation]) -> None:
    """Minimum-diameter averaging of 2 f_w votes is refused, even if nobody checked the file."""
    simulation = simulate(SHAPE, seed=1, workers_say="sign-flip", unchecked={"worker_quorum": 4})

    with pytest.raises(AggregationError, match=r"mda needs n >= 2 f \+ 1, but 4 < 5"):
        simulation.run()


NOISY: dict[str, Any] = {"batch_size": 32, "learning_rate": 0.5}
"""Smaller batches and a larger step than the digits' own, which soften what is to be shown."""


def test_no_momentum(simulate: Callable[..., Simulation]) -> None:
    """Without worker momentum, lies that hide in the correct gradients' noise win."""
    accuracies = {
        momentum: mean_accuracy(
            simulate(
                (10, 3, 8, 2),
                seed=1,
                learns="digits",
                steps=200,
                workers_say="empire",
                worker_momentum=momentum,
                **NOISY,
            )
        )
        for momentum in (0.0, 0.9)
    }

    assert accuracies[0.9] > 0.93
    assert accuracies[0.0] < accuracies[0.9] - 0.1


@pytest.mark.parametrize("rule", ["average", "coordinate_median"])
def test_averaged_models(
    rule: str, simulate: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server of five that flips signs destroys averaged models, and does no harm to medians."""
    monkeypatch.setattr("byzsgd.protocol.server.MODEL_RULE", rule)
    monkeypatch.setattr("byzsgd.protocol.worker.MODEL_RULE", rule)
    monkeypatch.setattr(Promises, "_check_range", lambda *_: None)
    accuracy = mean_accuracy(
        simulate(SHAPE, seed=1, learns="digits", steps=20, servers_say="sign-flip")
    )

    assert accuracy < 0.4 if rule == "average" else accuracy > 0.7


def test_averaged_models_are_seen(
    simulate: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Averaged models leave the range of the correct ones at once, and the simulation sees it."""
    monkeypatch.setattr("byzsgd.protocol.server.MODEL_RULE", "average")

    with pytest.raises(AssertionError, match="every correct model"):
        simulate(SHAPE, seed=1, servers_say="sign-flip").run()


def test_waiting_for_too_many(simulate: Callable[..., Simulation]) -> None:
    """With q_ps > n_ps - f_ps one silent server stops everybody."""
    simulation = simulate(SHAPE, seed=1, servers_say="mute", unchecked={"server_quorum": 5})

    with pytest.raises(AssertionError, match="no end after 100 s"):
        simulation.run(seconds=100)
    assert all(server.step == 0 for server in simulation.servers.values())


def test_no_momentum_under_adaptive_alie(simulate: Callable[..., Simulation]) -> None:
    """Liars who tune ALIE to the rule make a training without momentum stumble again and again."""
    accuracies = {
        momentum: late_accuracy(
            simulate(
                (10, 3, 8, 2),
                seed=1,
                learns="digits",
                steps=200,
                workers_say="alie-adaptive",
                worker_momentum=momentum,
                **NOISY,
            )
        )
        for momentum in (0.0, 0.9)
    }

    assert accuracies[0.9] > 0.95
    assert accuracies[0.0] < accuracies[0.9] - 0.02


def late_accuracy(simulation: Simulation) -> float:
    """Mean accuracy of a server's models at every tenth step of the second half."""
    server = simulation.servers["s3"]
    steps = simulation.cluster.steps
    found = []
    for step in range(steps // 2, steps + 1, 10):
        reached = partial(lambda step: server.step >= step, step)
        assert simulation.run_until(reached, seconds=600)
        found.append(simulation.task.accuracy(server.vector))
    return float(np.mean(found))
