"""Builds simulations: how many nodes of each kind, who of them lies and how, what they learn."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from byzsgd.attacks import make
from byzsgd.cluster import Cluster, Role
from byzsgd.simulation import CALM, Coalition, Faults, Simulation, Timing
from byzsgd.simulation.drill import NO_NUMBERS
from byzsgd.simulation.oracle import flipped_gradients
from byzsgd.tasks import TASKS, Task, load_task


@cache
def task(name: str) -> Task:
    torch.set_num_threads(1)  # More are slower for so small a model.
    return load_task(name, {}, directory=Path())


@pytest.fixture(scope="session")
def simulate(cluster: Callable[..., Cluster]) -> Callable[..., Simulation]:
    """Builds a simulation of n_w, f_w, n_ps, f_ps nodes, the first f of each kind as liars."""

    def build(
        shape: tuple[int, int, int, int] = (4, 1, 5, 1),
        *,
        seed: int,
        learns: str = "quadratic",
        workers_say: str | None = None,
        servers_say: str | None = None,
        server_options: Mapping[str, float] = NO_NUMBERS,
        timing: Timing = Timing.EARLY,
        more_liars: int = 0,
        coalition: type[Coalition] = Coalition,
        faults: Faults = CALM,
        checkpoint_period: int = 0,
        liars_first: bool = True,
        unchecked: Mapping[str, Any] | None = None,
        **changes: object,
    ) -> Simulation:
        workers, f_workers, servers, f_servers = shape
        defaults = TASKS[learns].defaults
        numbers = {
            "task": learns,
            "learning_rate": defaults.learning_rate,
            "worker_momentum": defaults.worker_momentum,
            "batch_size": defaults.batch_size,
            "steps": defaults.steps,
        }
        checked = cluster(servers, workers, f_servers, f_workers, **{**numbers, **changes})
        members = replace(checked, **(unchecked or {}))
        lying = [*members.workers[: f_workers + more_liars]] if workers_say else []
        lying += members.servers[:f_servers] if servers_say else []
        liars = coalition(
            members,
            lying,
            worker_attack=make(workers_say, Role.WORKER) if workers_say else None,
            server_attack=make(servers_say, Role.SERVER, **server_options) if servers_say else None,
            timing=timing,
            flipped=flipped_gradients(task(learns), members, lying)
            if workers_say == "label-flip"
            else None,
        )
        return Simulation(
            members,
            task(learns),
            seed=seed,
            faults=faults,
            liars=liars if lying else None,
            liars_first=liars_first,
            checkpoint_period=checkpoint_period,
        )

    return build
