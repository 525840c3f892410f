"""Whole clusters on the quadratic task, under faults and liars; every event is checked.

Each run checks by itself that no invalid, double or foreign vote counts, that every median of
models lies within the correct ones, and that equal votes give equal bits; and that every correct
server reaches the last step.
"""

from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from byzsgd.aggregation import coordinate_median
from byzsgd.attacks import names
from byzsgd.cluster import Role
from byzsgd.protocol import (
    ParameterServer,
    Worker,
    synchronous,
)
from byzsgd.simulation import Faults, Simulation
from byzsgd.simulation.hostile import Braggart, Flatterer, Flood, Impostor, TwoFaced

SHAPES = [(4, 1, 5, 1), (7, 2, 5, 1), (10, 3, 8, 2), (7, 0, 1, 0)]


@pytest.fixture(scope="module", autouse=True)
def short_priming() -> Iterator[None]:
    """Workers of the synchronous variant soon pull single models."""
    with mock.patch.object(synchronous, "PRIMING_STEPS", 2):
        yield


ROUGH = Faults(loss=0.02, duplication=0.1, straggle=0.02)


@pytest.mark.parametrize("servers_say", names(Role.SERVER))
@pytest.mark.parametrize("workers_say", names(Role.WORKER))
def test_every_pair_of_attacks(
    workers_say: str, servers_say: str, simulate: Callable[..., Simulation]
) -> None:
    """Every attack of workers with every attack of servers: all promises hold to the end."""
    simulation = simulate(
        seed=1,
        steps=15,
        workers_say=workers_say,
        servers_say=servers_say,
        faults=ROUGH,
        gather_period=5 if servers_say in ("equivocate", "stale") else 1,
    )
    simulation.run()

    assert min(simulation.accuracies().values()) > 0.2


@pytest.mark.parametrize("gather_period", [1, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(
    shape: tuple[int, int, int, int], gather_period: int, simulate: Callable[..., Simulation]
) -> None:
    """Every configuration learns under attack, whether it gathers in every step or every fifth."""
    simulation = simulate(
        shape,
        seed=2,
        steps=60,
        workers_say="alie-adaptive" if shape[1] else None,
        servers_say="equivocate" if shape[3] else None,
        faults=Faults(straggle=0.01),
        gather_period=gather_period,
    )
    simulation.run()

    assert min(simulation.accuracies().values()) > 0.85


SMALL = [(4, 1, 4, 1), (3, 1, 4, 1), (5, 2, 7, 2)]
"""Shapes that the synchronous variant alone allows."""

SOME_RUN = {
    "shape": st.sampled_from([*SHAPES, *SMALL, (4, 1, 2, 0), (8, 1, 7, 1)]),
    "chance": st.integers(0, 2**32 - 1),
    "workers_say": st.sampled_from([*names(Role.WORKER), None]),
    "servers_say": st.sampled_from([*names(Role.SERVER), None]),
    "gather_period": st.sampled_from([1, 2, 5]),
    "variant": st.sampled_from(["asynchronous", "synchronous"]),
    "wire_type": st.sampled_from(["float32", "float16", "bfloat16"]),
    "quorums": st.tuples(st.floats(0, 1), st.floats(0, 1)),
    "loss": st.sampled_from([0.0, 0.02, 0.2]),
    "duplication": st.sampled_from([0.0, 0.2]),
    "straggle": st.sampled_from([0.0, 0.02]),
    "crash_every": st.sampled_from([0.0, 1.0, 5.0]),
    "checkpoint_period": st.sampled_from([0, 1, 7]),
    "liars_first": st.booleans(),
}


@seed(1)
@settings(max_examples=80, deadline=None, derandomize=False, database=None)
@given(**SOME_RUN)
def test_any_run(
    simulate: Callable[..., Simulation],
    shape: tuple[int, int, int, int],
    chance: int,
    workers_say: str | None,
    servers_say: str | None,
    gather_period: int,
    variant: str,
    wire_type: str,
    quorums: tuple[float, float],
    loss: float,
    duplication: float,
    straggle: float,
    crash_every: float,
    checkpoint_period: int,
    liars_first: bool,
) -> None:
    """Whatever quorums, faults and liars: all promises hold, and all correct servers get there."""
    workers, f_workers, servers, f_servers = shape
    least = (2 * f_workers + 1, 1 if servers == 1 else 2 * f_servers + 2)
    if variant == "synchronous" or shape in SMALL:
        variant = "synchronous"
        least = (
            min(2 * f_workers + 1, workers - f_workers),
            1 if servers == 1 else max(2 * f_servers + 1, 2),
        )
    room = (workers - f_workers - least[0], servers - f_servers - least[1])
    simulation = simulate(
        shape,
        seed=chance,
        steps=12,
        workers_say=workers_say if f_workers else None,
        servers_say=servers_say if f_servers else None,
        gather_period=gather_period,
        variant=variant,
        wire_type=wire_type,
        worker_quorum=least[0] + round(quorums[0] * room[0]),
        server_quorum=least[1] + round(quorums[1] * room[1]),
        faults=Faults(
            loss=loss,
            duplication=duplication,
            straggle=straggle,
            crash_every=crash_every,
            crash_until=20.0,
        ),
        checkpoint_period=checkpoint_period,
        liars_first=liars_first,
    )
    simulation.run()

    assert all(server.step == 12 for server in simulation.servers.values())


@pytest.mark.parametrize("variant", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("chance", range(8))
def test_every_fifth_message_is_lost(
    chance: int, variant: str, simulate: Callable[..., Simulation]
) -> None:
    """No loss stops a cluster for good: who waits also asks those who have gone on since."""
    simulation = simulate(
        seed=chance,
        steps=30,
        workers_say="sign-flip",
        servers_say="mute",
        gather_period=5,
        faults=Faults(loss=0.2, straggle=0.02),
        variant=variant,
    )
    simulation.run(seconds=1500)

    assert min(simulation.accuracies().values()) > 0.7


@pytest.mark.parametrize("checkpoint_period", [0, 6])
@pytest.mark.parametrize("variant", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("chance", range(4))
def test_servers_die_one_after_the_other(
    chance: int, variant: str, checkpoint_period: int, simulate: Callable[..., Simulation]
) -> None:
    """While a server and a worker lie, each correct server dies and comes back, and catches up."""
    simulation = simulate(
        (7, 1, 6, 1),
        seed=chance,
        steps=60,
        workers_say="sign-flip",
        servers_say="random",
        checkpoint_period=checkpoint_period,
        server_quorum=4,
        gather_period=[1, 5][chance % 2],
        variant=variant,
    )
    for number, identity in enumerate(simulation.servers):
        simulation.run_until(
            lambda least=8 * (number + 1): all(  # type: ignore[misc]
                server.step >= least for server in simulation.servers.values()
            ),
            seconds=600,
        )
        simulation.crash(identity, down=0.2)
    simulation.run()

    models = [server.vector for server in simulation.servers.values()]
    assert sum(server.progress.catch_ups for server in simulation.servers.values()) >= 1
    assert simulation.task.accuracy(coordinate_median(models, 1)) > 0.7


@pytest.mark.parametrize("variant", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("chance", range(4))
def test_the_whole_cluster_dies(
    chance: int, variant: str, simulate: Callable[..., Simulation]
) -> None:
    """After a power cut all nodes start from checkpoints of different steps, and go on."""
    simulation = simulate(
        (7, 2, 5, 1),
        seed=chance,
        steps=40,
        checkpoint_period=3,
        faults=Faults(straggle=0.1),
        variant=variant,
    )
    simulation.run_until(lambda: simulation.servers["s2"].step >= 20, seconds=600)
    for identity in simulation.nodes:
        simulation.crash(identity, down=1.0)
    simulation.run()

    assert min(simulation.accuracies().values()) > 0.85


@pytest.mark.parametrize("gather_period", [1, 5])
@pytest.mark.parametrize("checkpoint_period", [3, 10])
def test_one_checkpoint_ahead_of_all_others(
    checkpoint_period: int, gather_period: int, simulate: Callable[..., Simulation]
) -> None:
    """A server that alone saved a newer step before a power cut goes back to where others wait.

    Its peers may not follow one server alone, and with a silent server they cannot do without it.
    """
    simulation = simulate(
        (7, 2, 5, 1),
        seed=1,
        steps=40,
        workers_say="mute",
        servers_say="mute",
        faults=Faults(straggle=0.02),
        checkpoint_period=checkpoint_period,
        gather_period=gather_period,
    )
    newest = 2 * checkpoint_period
    simulation.run_until(lambda: _reached(simulation, newest) == 1, seconds=60)
    for identity in simulation.nodes:
        simulation.crash(identity, down=1.0)
    simulation.run(seconds=100)

    assert min(simulation.accuracies().values()) > 0.7


def test_the_last_step_ahead_of_all_others(simulate: Callable[..., Simulation]) -> None:
    """The one newer checkpoint is of the last step: its server takes up work again."""
    simulation = simulate(
        (7, 2, 5, 1),
        seed=1,
        steps=20,
        workers_say="mute",
        servers_say="mute",
        faults=Faults(straggle=0.02),
        checkpoint_period=10,
    )
    simulation.run_until(lambda: _reached(simulation, 20) == 1, seconds=60)
    for identity in simulation.nodes:
        simulation.crash(identity, down=1.0)
    simulation.run_until(lambda: simulation.timeline.now > 5, seconds=100)
    assert _reached(simulation, 20) == 1, "the others cannot go on without it"

    simulation.run(seconds=200)

    assert _reached(simulation, 20) == 4


@pytest.mark.parametrize(
    ("variant", "shape"),
    [
        ("asynchronous", (4, 0, 8, 2)),
        ("synchronous", (4, 0, 8, 2)),
        ("synchronous", (4, 0, 7, 2)),
    ],
    ids=str,
)
def test_liars_keep_nobody_ahead(
    variant: str, shape: tuple[int, int, int, int], simulate: Callable[..., Simulation]
) -> None:
    """Two of 8 or 7 servers have saved a newer model; two lie, to them alone, that they have too.

    The smallest synchronous quorum, 5 of 7, is among them: 2 f_ps others may be all that answer.
    """
    simulation = simulate(
        shape,
        seed=1,
        steps=20,
        coalition=Flatterer,
        servers_say="random",
        checkpoint_period=5,
        gather_period=2,
        variant=variant,
    )
    simulation.run_until(lambda: _reached(simulation, 8) == shape[2] - 2, seconds=60)
    simulation.power_cut(1.0, saved=("s6", "s7"))
    simulation.run(seconds=30)

    assert all(server.step == 20 for server in simulation.servers.values())


@pytest.mark.parametrize("gather_period", [1, 5, 25])
@pytest.mark.parametrize("chance", range(3))
def test_an_outage_costs_time_and_no_step(
    chance: int, gather_period: int, simulate: Callable[..., Simulation]
) -> None:
    """Every message of many seconds is lost: afterwards no server is at an earlier step."""
    simulation = simulate(
        (7, 2, 5, 1), seed=chance, steps=60, servers_say="random", gather_period=gather_period
    )
    simulation.run_until(lambda: _reached(simulation, 23) >= 1, seconds=60)
    before = {identity: server.step for identity, server in simulation.servers.items()}
    simulation.cut(12.0)
    lowest = dict(before)

    def done() -> bool:
        for identity, server in simulation.servers.items():
            lowest[identity] = min(lowest[identity], server.step)
        return all(server.done for server in simulation.servers.values())

    assert simulation.run_until(done, seconds=100)
    assert lowest == before


def _reached(simulation: Simulation, step: int) -> int:
    """How many correct servers have scattered, and so saved, the model of a step."""
    return sum(server.model_step >= step for server in simulation.servers.values())


@pytest.mark.parametrize("crash_every", [0.0, 2.0])
def test_braggarts_are_not_believed(
    crash_every: float, simulate: Callable[..., Simulation]
) -> None:
    """Servers that claim to be a thousand steps ahead lead nobody there."""
    simulation = simulate(
        (7, 2, 5, 1),
        seed=3,
        steps=40,
        coalition=Braggart,
        workers_say="empire",
        servers_say="random",
        faults=Faults(crash_every=crash_every, crash_until=10.0, loss=0.05),
        checkpoint_period=5,
    )
    simulation.run()

    assert all(server.step == 40 for server in simulation.servers.values())


def test_a_flood_wastes_its_own_room(simulate: Callable[..., Simulation]) -> None:
    """However many votes liars cast, no peer has more than three vectors in a node's memory."""
    simulation = simulate(
        seed=1, steps=4, coalition=Flood, workers_say="sign-flip", servers_say="random"
    )
    most = 0

    def watch() -> bool:
        nonlocal most
        for node in simulation.nodes.values():
            if isinstance(node, ParameterServer):
                held = node._gradients._held, node._models._held
            else:
                assert isinstance(node, Worker)
                held = node._models._held, {}
            most = max(most, *(len(steps) for window in held for steps in window.values()))
        return all(server.done for server in simulation.servers.values())

    simulation.run_until(watch, seconds=60)

    assert most == 3
    assert all(server.done for server in simulation.servers.values())


def test_the_first_lie_counts(simulate: Callable[..., Simulation]) -> None:
    """Of an identity that says two things, the first counts and the rest are refused by name."""
    simulation = simulate(
        (7, 2, 5, 1),
        seed=1,
        steps=20,
        coalition=TwoFaced,
        workers_say="alie",
        servers_say="equivocate",
    )
    simulation.run()

    for liar in ("w1", "w2", "s1"):
        assert simulation.refused[liar, "equivocation"] > 50
        assert simulation.refused[liar, "duplicate"] > 50
    assert not any(
        reason == "equivocation"
        for peer, reason in simulation.refused
        if peer > "s1" and peer not in ("w1", "w2")
    )


def test_no_vote_in_a_foreign_role(simulate: Callable[..., Simulation]) -> None:
    """Gradients of servers and models of workers are refused by name, and none counts."""
    simulation = simulate(
        seed=1, steps=20, coalition=Impostor, workers_say="mute", servers_say="mute"
    )
    simulation.run()

    assert simulation.refused["s1", "wrong-role"] > 100
    assert simulation.refused["w1", "wrong-role"] > 100
