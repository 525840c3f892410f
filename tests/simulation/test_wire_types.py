"""Wire types of two bytes: what they save, that all promises hold, and why gathers are spared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from byzsgd.cluster import Cluster, WireType
from byzsgd.simulation import Faults, Simulation
from byzsgd.tasks.torch_task import TorchTask

HALVES = (WireType.FLOAT16, WireType.BFLOAT16)
SHAPE = (7, 2, 5, 1)
Simulate = Callable[..., Simulation]


def run(simulation: Simulation) -> Simulation:
    simulation.run()
    return simulation


@pytest.mark.parametrize("variant", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("half", HALVES)
def test_vectors_between_servers_and_workers_take_half_the_bytes(
    half: WireType, variant: str, simulate: Simulate
) -> None:
    """Votes of a gather take what they did; small messages too."""
    settings = {"seed": 1, "steps": 20, "variant": variant, "gather_period": 2}
    full = run(simulate(SHAPE, **settings))
    less = run(simulate(SHAPE, **settings, wire_type=half))

    for kind, coordinates in (("model", 2), ("gradient", 2), ("gather", 4)):
        headers = less.bytes[kind] / less.messages[kind] - 100 * coordinates
        assert headers == full.bytes[kind] / full.messages[kind] - 100 * 4, kind


@pytest.mark.parametrize(
    "settings",
    [{"variant": "asynchronous"}, {"overlapped_gather": True}, {"variant": "synchronous"}],
    ids=["asynchronous", "overlapped", "synchronous"],
)
@pytest.mark.parametrize("half", HALVES)
def test_all_promises_hold_under_attack_and_faults(
    half: WireType, settings: dict[str, Any], simulate: Simulate
) -> None:
    """What is sent again is no equivocation, and equal votes give equal models."""
    simulation = simulate(
        SHAPE,
        seed=3,
        steps=40,
        gather_period=2,
        wire_type=half,
        workers_say="alie",
        servers_say="equivocate",
        faults=Faults(loss=0.02, duplication=0.1, straggle=0.02),
        **settings,
    )
    simulation.run()

    assert min(simulation.accuracies().values()) > 0.7
    told = {reason for (peer, reason) in simulation.refused if peer not in ("s1", "w1", "w2")}
    assert "equivocation" not in told


@pytest.mark.parametrize("half", HALVES)
def test_equal_quorums_equal_models(half: WireType, simulate: Simulate) -> None:
    """Servers that all hear the same end with the same bits, and these are not rounded."""
    simulation = run(
        simulate(SHAPE, seed=4, steps=40, workers_say="mute", servers_say="mute", wire_type=half)
    )
    models = [server.vector for server in simulation.servers.values()]

    assert len({model.tobytes() for model in models}) == 1
    assert (models[0].view(np.uint32) & 0x1FFF).any(), "float32 to the last bit"


def test_running_averages_are_not_rounded(cluster: Callable[..., Cluster]) -> None:
    """They get to mean and variance of the data, by changes smaller than a half can tell.

    And take four bytes each, both ways.
    """
    torch.set_num_threads(1)  # More are slower for so small a model.
    examples = 3 + 2 * torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    data = examples, (examples[:, 0] > 3).long()
    task = TorchTask(
        model=lambda: nn.Sequential(nn.BatchNorm1d(2, momentum=0.01), nn.Linear(2, 2)),
        data=lambda _share: data,
        loss=nn.functional.cross_entropy,
        test_data=lambda: data,
    )
    numbers = {"steps": 400, "learning_rate": 0.01, "batch_size": 64, "wire_type": "bfloat16"}
    simulation = run(Simulation(cluster(1, 2, 0, 0, **numbers), task, seed=1))

    averages = simulation.servers["s1"].vector[-task.n_buffers() :]
    variance, mean = torch.var_mean(examples, dim=0)
    np.testing.assert_allclose(averages, torch.cat([mean, variance]), rtol=0.05)
    d, buffers = len(simulation.servers["s1"].vector), task.n_buffers()
    payload = 2 * (d - buffers) + 4 * buffers
    for kind in ("model", "gradient"):
        assert payload < simulation.bytes[kind] / simulation.messages[kind] < payload + 100


def test_rounded_votes_in_a_gather_would_stop_the_training(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps smaller than what is rounded off are lost, in every gather again."""
    settings = {"seed": 1, "steps": 300, "learning_rate": 0.01, "batch_size": 1024}
    accuracies = {
        wire_type: run(simulate(SHAPE, **settings, wire_type=wire_type)).accuracies()["s1"]
        for wire_type in (WireType.FLOAT32, WireType.BFLOAT16)
    }

    monkeypatch.setattr(Cluster, "wire_type_between", lambda self, *_: self.wire_type)
    stopped = run(simulate(SHAPE, **settings, wire_type=WireType.BFLOAT16)).accuracies()["s1"]

    assert accuracies[WireType.BFLOAT16] > accuracies[WireType.FLOAT32] - 0.005
    assert stopped < accuracies[WireType.FLOAT32] - 0.05
