"""The evaluation's matrix in memory, promises checked, and the baselines that must break.

A third of the usual steps long, and every attack once: those of workers and of servers are paired
off. `byzsgd evaluate --in-memory --only matrix` runs every pair.
"""

import inspect
from dataclasses import replace
from functools import cache
from itertools import combinations
from math import inf
from pathlib import Path

import pytest

from byzsgd import attacks
from byzsgd.cluster import Role
from byzsgd.simulation import Simulation
from byzsgd.simulation.promises import NoPromises, Promises
from byzsgd.tasks import load_task
from byzsgd.vectors import distance
from byzsgd_daemons.evaluate import memory
from byzsgd_daemons.evaluate.margins import margin
from byzsgd_daemons.evaluate.plan import (
    MODELS_AVERAGED,
    VANILLA,
    VARIANTS,
    Experiment,
    Run,
    Scale,
    experiments,
)
from byzsgd_daemons.evaluate.results import Outcome, State
from byzsgd_daemons.init import Plan

STEPS = 100
"""Enough for vanilla to reach 96 % and more."""

SHORTER = 2.0
"""Points more than the margin of a whole training: a third of one is not settled yet."""

PLANNED = experiments(Scale(steps=STEPS, in_memory=True))

WORKERS, SERVERS = attacks.names(Role.WORKER), attacks.names(Role.SERVER)
PAIRS = [
    (WORKERS[number % len(WORKERS)], SERVERS[number % len(SERVERS)])
    for number in range(max(len(WORKERS), len(SERVERS)))
]
"""Each attack of either role at least once."""


def planned(group: str, system: str, under: tuple[str, str], setting: str = "") -> Experiment:
    return next(
        each
        for each in PLANNED
        if (each.group, each.system, each.under(), each.setting) == (group, system, under, setting)
    )


@cache
def vanilla() -> Outcome:
    return memory.train(planned("matrix", VANILLA, ("", "")).run)


def gap(outcome: Outcome) -> float:
    """Points of accuracy below vanilla."""
    return 100 * (vanilla().accuracy() - outcome.accuracy())


def test_vanilla_learns() -> None:
    """What all others are measured by."""
    assert vanilla().accuracy() >= 0.955


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=[" + ".join(pair) for pair in PAIRS])
def test_a_pair_of_attacks_stays_within_its_margin(number: int) -> None:
    """One variant after the other; the servers' promises hold at every event."""
    pair, variant = PAIRS[number], VARIANTS[number % len(VARIANTS)]

    outcome = memory.train(planned("matrix", variant, pair).run, checked=True)

    allowed = margin("digits", *pair)
    assert outcome.state is State.DONE, outcome.sentence
    assert allowed is not None
    assert gap(outcome) <= allowed + SHORTER


def test_averaged_models_follow_one_lying_server() -> None:
    """What the median of models is for: of five servers one lies, and the training is lost."""
    under = ("", "sign-flip")
    medians = memory.train(planned("baselines", "asynchronous", under).run)
    averaged = memory.train(planned("baselines", MODELS_AVERAGED, under).run)

    assert gap(medians) <= 2
    assert averaged.state is State.STALLED or averaged.accuracy() < 0.5


def test_averaged_gradients_follow_two_lying_workers() -> None:
    """What the rule is for: five servers are of no help."""
    averaged = memory.train(planned("baselines", "average", ("sign-flip", "")).run)

    assert averaged.accuracy() < 0.2, "one class of ten, whatever the image"


def test_a_training_that_diverges_says_so() -> None:
    """Vanilla whose liars are loud: what its correct workers compute is not finite any more."""
    scaled = memory.train(planned("workers", VANILLA, ("scaled", "")).run)

    assert scaled.state is State.STALLED
    assert scaled.sentence.startswith("diverged, and stands still at step")


def test_without_gathers_servers_drift_apart() -> None:
    """And with them drift falls at every gather."""
    nobody = ("", "")
    kept = memory.train(planned("drift", "asynchronous", nobody, "T = 10").run)
    free = memory.train(planned("drift", "asynchronous", nobody, "without DMC").run)
    drifts = dict(kept.drift)
    fell = [drifts[step] < drifts[step - 1] for step in range(10, STEPS + 1, 10)]

    assert len(drifts) == STEPS + 1, "every step is seen"
    assert sum(fell) >= len(fell) - 2
    assert free.drift[-1][1] > 2 * max(drift for _, drift in kept.drift)


def test_where_gathers_overlap_the_contracted_model_is_evaluated() -> None:
    """As an operator gets it, and not the one that workers compute at."""
    run = Run(plan=Plan(task="quadratic", steps=6, overlapped_gather=True), in_memory=True)
    task = load_task("quadratic", {}, directory=Path())
    simulation = Simulation(memory.cluster_of(run), task, seed=1)
    observer = memory._Observer(run, simulation)
    simulation.run_until(observer, seconds=inf)
    *_, last = observer.points(task)
    ends = [server.vector for server in simulation.servers.values()]

    assert last.step == 6
    assert last.drift == max(distance(one, other) for one, other in combinations(ends, 2)) > 0


def test_a_run_depends_on_its_seed_alone() -> None:
    """To the bit, but for the time that it takes."""
    run = planned("matrix", "asynchronous", ("random", "equivocate")).run
    run = replace(run, plan=replace(run.plan, steps=20))

    once, again = memory.train(run), memory.train(run)

    assert replace(once, wall_seconds=0) == replace(again, wall_seconds=0)


def test_unchecked_simulations_check_nothing() -> None:
    """Every check of the promises has a counterpart that does nothing."""
    checks = {name for name, _ in inspect.getmembers(Promises, inspect.isfunction)}
    public = {name for name in checks if not name.startswith("_")}

    assert public <= vars(NoPromises).keys()
