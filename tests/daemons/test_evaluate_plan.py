"""What the evaluation runs: every pair of attacks, equal runs once, descriptions that read back."""

import json
from dataclasses import replace

import pytest

from byzsgd import attacks
from byzsgd.aggregation import RULES
from byzsgd.cluster import Role
from byzsgd.errors import ConfigError
from byzsgd_daemons.evaluate import memory
from byzsgd_daemons.evaluate.plan import (
    BASELINE_ATTACKS,
    BASELINE_RULES,
    GROUPS,
    KRUM_WORKERS,
    MODELS_AVERAGED,
    STEALTHY,
    SYSTEMS,
    VANILLA,
    VARIANTS,
    Experiment,
    Run,
    Scale,
    experiments,
    runs,
)
from byzsgd_daemons.init import Plan
from byzsgd_daemons.local import Drill

EVERYTHING = experiments(Scale())


def of(group: str) -> list[Experiment]:
    return [each for each in EVERYTHING if each.group == group]


def test_the_matrix_holds_every_pair_of_attacks_in_both_variants() -> None:
    """Each worker attack with each server attack, each alone, and nobody, beside vanilla."""
    found = [
        (each.system, each.run.drill.attack, each.run.drill.server_attack) for each in of("matrix")
    ]

    assert found[0] == (VANILLA, None, None)
    assert len(set(found)) == len(found)
    assert set(found[1:]) == {
        (variant, attack, server_attack)
        for variant in VARIANTS
        for attack in (None, *attacks.names(Role.WORKER))
        for server_attack in (None, *attacks.names(Role.SERVER))
    }


def test_the_matrix_runs_in_the_cluster_of_five_and_seven() -> None:
    """Five servers, one of which lies, and seven workers, two of which lie; the digits."""
    for each in of("matrix")[1:]:
        cluster = memory.cluster_of(each.run)
        lying = each.run.drill.liars(cluster)
        worker, server = each.under()

        assert (cluster.n_servers, cluster.f_servers) == (5, 1)
        assert (cluster.n_workers, cluster.f_workers) == (7, 2)
        assert (cluster.task, cluster.variant.value) == ("digits", each.system)
        assert len(lying) == 2 * bool(worker) + bool(server)


def test_every_description_of_a_run_reads_back() -> None:
    """From JSON as from a record: the same run, with the same key."""
    for each in EVERYTHING:
        read = Run.described(json.loads(json.dumps(each.run.description())))

        assert read == each.run
        assert read.key == each.run.key


def test_equal_runs_of_several_groups_are_one() -> None:
    """Attacks alone are a part of the matrix, and vanilla is in many groups."""
    keys = runs(of("matrix"))

    assert runs(of("servers")).keys() <= keys.keys()
    assert len(runs(EVERYTHING)) < len(EVERYTHING)


@pytest.mark.parametrize(
    "other",
    [
        Run(plan=Plan(seed=2)),
        Run(plan=Plan(task="digits")),
        Run(plan=Plan(), drill=Drill(attack="alie", options={"z": 1.0})),
        Run(plan=Plan(), in_memory=True),
        Run(plan=Plan(), worker_quorum=5),
        Run(plan=Plan(), models_averaged=True),
    ],
)
def test_runs_that_differ_have_different_keys(other: Run) -> None:
    """Nothing of a description is left out of the key."""
    assert other.key != Run(plan=Plan()).key
    assert other.key == replace(other).key


def test_what_is_no_description_is_refused() -> None:
    """As a word of a person or a line of a file that is wrong."""
    for wrong in ({}, {"plan": {}}, {"plan": {"servants": 3}, "drill": {}}, {"plan": 1}):
        with pytest.raises(ConfigError, match="describes no run"):
            Run.described(wrong)


def test_every_run_is_of_a_cluster_within_its_bounds() -> None:
    """No bound is violated, no quorum out of range, no more liars than nodes: found now."""
    for each in EVERYTHING:
        cluster = memory.cluster_of(each.run)
        rule = RULES[cluster.rule]

        assert rule.check(cluster.worker_quorum, cluster.f_workers) is None
        assert len(each.run.drill.liars(cluster)) <= (cluster.n_servers + cluster.n_workers) // 3
        assert each.run.steps() == cluster.steps
        assert each.run.gather_period() == cluster.gather_period


def test_sweeps_set_the_quorums_that_they_name() -> None:
    """q_w from 2 f + 1 to n - f, and q_ps from 2 f + 2."""
    quorums = {
        (cluster.server_quorum, cluster.worker_quorum)
        for each in of("sweeps")
        if each.setting.startswith("q_")
        for cluster in [memory.cluster_of(each.run)]
    }

    assert quorums == {(4, 3), (4, 4), (4, 5), (4, 6), (5, 5), (6, 5), (7, 5)}


def test_a_quorum_that_is_the_usual_one_makes_no_other_run() -> None:
    """Six of seven workers at f_w = 1 is what f_w = 1 means, and seven of eight servers."""
    keys = {(each.setting, each.under()): each.run.key for each in of("sweeps")}

    for under in (("", ""), STEALTHY):
        assert keys["q_w = 6, f_w = 1", under] == keys["f_w = 1", under]
        assert keys["q_w = 5, f_w = 1", under] != keys["f_w = 1", under]
        assert keys["q_ps = 7 of 8, f_ps = 1", under] == keys["f_ps = 1 of 8", under]


def test_every_system_faces_as_many_lying_workers() -> None:
    """Two of seven, in the headline as in the attacks of workers alone."""
    attacked = [each for each in of("headline") + of("workers") if each.run.drill.attack]
    lying = {
        (each.system, sum(liar.startswith("w") for liar in each.run.drill.liars(cluster)))
        for each in attacked
        for cluster in [memory.cluster_of(each.run)]
    }

    assert lying == {(system, 2) for system in SYSTEMS}


def test_what_daemons_cannot_do_runs_in_memory() -> None:
    """Averaged models, and the drift of every step."""
    strange = [each for each in EVERYTHING if each.run.models_averaged or each.run.drift]

    assert {each.group for each in strange} == {"drift", "baselines"}
    assert {each.system for each in strange} >= {MODELS_AVERAGED}
    assert all(each.run.in_memory for each in strange)
    assert not any(each.run.in_memory for each in of("matrix"))


def test_baselines_are_rules_of_the_table_under_its_attacks() -> None:
    """Every named rule under every named attack and under none, with and without momentum."""
    found = [
        (each.system, each.run.drill.attack, each.run.plan.worker_momentum)
        for each in of("baselines")
        if each.run.plan.workers == KRUM_WORKERS and each.system != VANILLA
    ]

    assert RULES.keys() >= BASELINE_RULES
    assert set(attacks.names(Role.WORKER)) >= BASELINE_ATTACKS
    assert len(set(found)) == len(found)
    assert set(found) == {
        (rule, attack, momentum)
        for rule in BASELINE_RULES
        for attack in (None, *BASELINE_ATTACKS)
        for momentum in (None, 0.0)
    }


def test_in_memory_the_same_plan_has_another_runner() -> None:
    """All runs but those of which virtual time says nothing."""
    everything = experiments(Scale(in_memory=True))
    here = {each.name() for each in EVERYTHING if each.group == "matrix"}

    assert all(each.run.in_memory for each in everything)
    assert {each.name() for each in everything if each.group == "matrix"} == here
    assert {each.group for each in everything} == set(GROUPS)


def test_task_steps_and_seeds_are_everybodys() -> None:
    """What the user says holds for every group."""
    chosen = experiments(Scale(task="quadratic", steps=7, seeds=2))

    assert {each.run.plan.task for each in chosen} == {"quadratic"}
    assert {each.run.steps() for each in chosen} == {7}
    assert {each.run.plan.seed for each in chosen} == {1, 2}
    assert len(chosen) == 2 * len(experiments(Scale(task="quadratic", steps=7)))


def test_evaluations_are_where_daemons_make_them() -> None:
    """At about 25 steps, the first and the last among them."""
    run = Run(plan=Plan(task="digits"))

    assert run.evaluated() == [*range(0, 300, 12), 300]
    assert Run(plan=Plan(task="digits"), every=300).evaluated() == [0, 300]
    assert Run(plan=Plan(task="digits", steps=7)).evaluated() == list(range(8))
