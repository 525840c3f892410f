"""Every attack on whole clusters of either variant, at every timing; promises are checked."""

from collections.abc import Callable
from functools import cache

import pytest

from byzsgd.attacks import names
from byzsgd.cluster import Role, Variant
from byzsgd.messages import Reason
from byzsgd.protocol import SynchronousWorker
from byzsgd.simulation import Simulation, Timing

SHAPE = (7, 2, 5, 1)
STEPS = 25

every_variant = pytest.mark.parametrize("variant", list(Variant), ids=str)


@pytest.fixture(scope="module")
def worst(simulate: Callable[..., Simulation]) -> Callable[..., float]:
    """The accuracy of the worst correct server at the end, and how it would be without liars."""

    @cache
    def train(
        variant: Variant,
        workers: str | None,
        servers: str | None,
        timing: Timing,
        overlapped: bool = False,
    ) -> float:
        simulation = simulate(
            SHAPE,
            seed=1,
            steps=STEPS,
            variant=variant.value,
            workers_say=workers,
            servers_say=servers,
            timing=timing,
            overlapped_gather=overlapped,
        )
        simulation.run()
        return min(simulation.accuracies().values())

    return train


@every_variant
@pytest.mark.parametrize("attack", names(Role.SERVER))
def test_lying_servers(attack: str, variant: Variant, worst: Callable[..., float]) -> None:
    """Whatever one server of five says of models, every correct one learns as without it."""
    calm = worst(variant, None, None, Timing.EARLY)

    assert calm > 0.5
    assert worst(variant, None, attack, Timing.EARLY) > calm - 0.05


@pytest.mark.parametrize("timing", list(Timing), ids=str)
@pytest.mark.parametrize("pair", [("optimal", "keep"), ("equivocate", "push")], ids="+".join)
def test_liars_where_gathers_overlap(
    pair: tuple[str, str], timing: Timing, worst: Callable[..., float]
) -> None:
    """Nor do they gain by it that workers have models that no gather has contracted."""
    calm = worst(Variant.ASYNCHRONOUS, None, None, Timing.EARLY)

    assert worst(Variant.ASYNCHRONOUS, *pair, timing, overlapped=True) > calm - 0.05


@pytest.mark.parametrize("attack", names(Role.WORKER))
def test_lying_workers_of_a_synchronous_cluster(attack: str, worst: Callable[..., float]) -> None:
    """Whatever two workers of seven say of gradients, every correct server still learns."""
    calm = worst(Variant.SYNCHRONOUS, None, None, Timing.EARLY)

    assert worst(Variant.SYNCHRONOUS, attack, None, Timing.EARLY) > calm - 0.05


@every_variant
@pytest.mark.parametrize("timing", [Timing.LATE, Timing.FLOOD], ids=str)
@pytest.mark.parametrize("pair", [("optimal", "keep"), ("equivocate", "push")], ids="+".join)
def test_timings(
    pair: tuple[str, str], timing: Timing, variant: Variant, worst: Callable[..., float]
) -> None:
    """Nor does it help them to know all votes of a step, or to tell every lie many times."""
    assert worst(variant, *pair, timing) > worst(variant, None, None, Timing.EARLY) - 0.05


@every_variant
def test_a_flood_is_refused(variant: Variant, simulate: Callable[..., Simulation]) -> None:
    """Of a flood one vote an identity and step counts; the rest is refused, and said why."""
    simulation = simulate(
        SHAPE,
        seed=1,
        steps=20,
        variant=variant.value,
        workers_say="sign-flip",
        servers_say="sign-flip",
        timing=Timing.FLOOD,
    )
    simulation.run()

    for liar in ("w1", "s1"):
        for reason in (Reason.DUPLICATE, Reason.EQUIVOCATION):
            assert simulation.refused[liar, reason.value] >= 20, (liar, reason)


def test_too_late(simulate: Callable[..., Simulation]) -> None:
    """Where lies travel as slowly as votes, late ones are refused as late, or stale."""
    simulation = simulate(
        SHAPE, seed=1, steps=20, workers_say="sign-flip", timing=Timing.LATE, liars_first=False
    )
    simulation.run()
    refused = {r: simulation.refused["w1", r.value] for r in (Reason.LATE, Reason.STALE)}

    assert sum(refused.values()) > 40


def test_a_lying_server_is_pulled_from(simulate: Callable[..., Simulation]) -> None:
    """Lies reach workers that pull: they try the liar's models, and filters refuse most of them."""
    simulation = simulate(SHAPE, seed=1, steps=STEPS, variant="synchronous", servers_say="random")
    simulation.run()
    refused = accepted = 0
    for node in simulation.nodes.values():
        if isinstance(node, SynchronousWorker):
            accepted += node.progress.accepted["s1"]
            refused += sum(n for (who, _), n in node.progress.filtered.items() if who == "s1")

    assert refused > 20
    assert accepted < refused / 4
