"""The simulation itself: what a seed decides, and what a crash is."""

import hashlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.protocol.server import Phase
from byzsgd.simulation import Faults, Simulation

ROUGH = Faults(loss=0.03, duplication=0.1, straggle=0.02, crash_every=3.0, crash_until=9.0)


def fingerprint(simulation: Simulation) -> str:
    """A digest of all that happened last to every node, and of what it ended with."""
    digest = hashlib.sha256()
    for identity, node in sorted(simulation.nodes.items()):
        digest.update(f"{identity} {node.trace.story()} {sorted(node.progress.refused)}".encode())
    for server in simulation.servers.values():
        digest.update(server.vector.tobytes())
    digest.update(f"{sorted(simulation.refused.items())} {simulation.timeline.now}".encode())
    return digest.hexdigest()


def attacked(simulate: Callable[..., Simulation], seed: int) -> Simulation:
    return simulate(
        (7, 2, 5, 1),
        seed=seed,
        steps=15,
        workers_say="random",
        servers_say="equivocate",
        faults=ROUGH,
        checkpoint_period=4,
    )


def test_one_seed_is_one_run(simulate: Callable[..., Simulation]) -> None:
    """One seed gives one run bit for bit, faults, liars and crashes included; another, another."""
    prints = []
    for seed in (1, 1, 2):
        simulation = attacked(simulate, seed)
        simulation.run()
        prints.append(fingerprint(simulation))

    assert prints[0] == prints[1] != prints[2]


SCRIPT = """
from pathlib import Path
from byzsgd.attacks import make
from byzsgd.cluster import Role
from byzsgd.simulation import Coalition, Simulation
from byzsgd.simulation.cluster import without_keys
from byzsgd.tasks import load_task
nodes = [{"id": f"s{n}", "role": "server", "address": f"10.0.0.{n}:5555"} for n in range(8)]
nodes += [{"id": f"w{n}", "role": "worker"} for n in range(4)]
mapping = {"nodes": nodes, "f_servers": 2, "f_workers": 1, "task": "quadratic", "steps": 3}
cluster = without_keys(mapping)
liars = Coalition(
    cluster, ["s1", "w1", "s7"],
    worker_attack=make("alie", Role.WORKER), server_attack=make("equivocate", Role.SERVER),
)
task = load_task("quadratic", {"d": 5}, directory=Path())
simulation = Simulation(cluster, task, seed=1, liars=liars)
simulation.run()
print(simulation.timeline.now, [node.trace.story() for _, node in sorted(simulation.nodes.items())])
"""


def test_no_run_depends_on_the_process() -> None:
    """Another process, which orders its sets of strings in another way, gives the same run."""
    stories = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert len(stories[0]) > 1000
    assert stories[0] == stories[1]


def test_the_dead_are_silent(simulate: Callable[..., Simulation]) -> None:
    """A node that is down hears and says nothing until it starts again, with nothing in mind."""
    simulation = simulate(seed=1, steps=60)
    simulation.run_until(lambda: simulation.servers["s2"].step == 10, seconds=60)
    dead = simulation.servers["s2"]
    heard, said = len(dead.trace.story()), dead.step
    last = dead.trace.story()[-1]
    simulation.crash("s2", down=0.3)
    back = simulation.timeline.now + 0.3
    simulation.run_until(lambda: simulation.timeline.now >= back - 0.05, seconds=60)

    assert (len(dead.trace.story()), dead.step, dead.trace.story()[-1]) == (heard, said, last)
    assert simulation.servers["s2"] is dead
    assert simulation.servers["s3"].step > 15
    simulation.run()
    assert simulation.servers["s2"] is not dead
    assert simulation.servers["s2"].progress.catch_ups >= 1


def test_killed_while_it_is_down(simulate: Callable[..., Simulation]) -> None:
    """A node that is killed again while it is down starts once, when the second time is over."""
    simulation = simulate(seed=1, steps=20)
    dead = simulation.servers["s2"]
    simulation.crash("s2", down=0.1)
    simulation.crash("s2", down=5.0)
    simulation.run_until(lambda: simulation.timeline.now > 1.0, seconds=10)
    assert simulation.servers["s2"] is dead
    simulation.run()

    assert simulation.timeline.now > 5.0
    assert simulation.crashes == 2


def test_a_checkpoint_is_where_a_server_starts(simulate: Callable[..., Simulation]) -> None:
    """A server that starts again begins with the step and model of its last checkpoint."""
    simulation = simulate(seed=1, steps=30, checkpoint_period=10)
    simulation.run_until(lambda: simulation.servers["s2"].step == 17, seconds=60)
    simulation.crash("s2", down=0.0)
    dead = simulation.servers["s2"]
    simulation.run_until(lambda: simulation.servers["s2"] is not dead, seconds=60)

    assert simulation.servers["s2"].step == 10
    assert simulation.servers["s2"].phase() == Phase.SCATTER
    simulation.run()


def test_a_standstill_is_told(simulate: Callable[..., Simulation]) -> None:
    """A cluster that cannot go on says who waits for whom."""
    simulation = simulate(seed=1, workers_say="mute", more_liars=1)

    with pytest.raises(AssertionError, match=r"no end after 60 s: s1 waits for 1 of 3 gradients"):
        simulation.run(seconds=60)


def test_a_broken_promise_is_told(
    simulate: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken promise names the node, the moment and what it did last."""
    monkeypatch.setattr(
        "byzsgd.protocol.quorum.sorted", lambda rows, key=None: list(rows), raising=False
    )

    with pytest.raises(AssertionError, match=r"at 0\.\d+: votes out of order") as told:
        simulate(seed=1).run()
    assert "Received Model step=0 peer=s1" in str(told.value)


def test_nothing_invalid_is_carried(simulate: Callable[..., Simulation]) -> None:
    """NaN never reaches a node: the wire format refuses it, and it is counted."""
    simulation = simulate(seed=1, steps=5, workers_say="nan", servers_say="nan")
    simulation.run()

    assert simulation.drops["non-finite"] > 50
    assert not any(peer in ("s1", "w1") for peer, _ in simulation.refused)


def test_equal_quorums_equal_models(simulate: Callable[..., Simulation]) -> None:
    """Servers that all hear the same, of whatever orders, end with the same bits."""
    simulation = simulate(
        (7, 2, 5, 1), seed=4, steps=40, workers_say="mute", servers_say="mute", gather_period=5
    )
    simulation.run()
    models = {server.vector.tobytes() for server in simulation.servers.values()}

    assert len(models) == 1
    assert np.isfinite(simulation.servers["s2"].vector).all()
