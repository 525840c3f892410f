"""A correct parameter server: events in, effects out."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Hello, Model, Pull

Make = Callable[..., Any]
THREE = ("w1", "w2", "w3")


def v(value: float) -> np.ndarray:
    return np.float32([value])


def update(s1: Any, step: int, gradient: float = -1) -> list[str]:
    """Bring a server through the update of a step: one forward unless the gradient is given."""
    s1.hears(THREE, Gradient(step, v(gradient)))
    return s1.works()


def gather(s1: Any, step: int, value: float) -> list[str]:
    """Bring a server through the gather of a step."""
    s1.hears(("s2", "s3", "s4"), GatherModel(step, v(value)))
    return s1.works()


@pytest.fixture
def gathering(server: Make) -> Any:
    """A server in the gather of step 1, with the vote 1."""
    s1 = server()
    update(s1, 0)
    return s1


# Scatter and update


def test_a_server_starts_by_scattering_its_model(server: Make) -> None:
    """Step 0 begins with theta_0, then gradients are waited for."""
    s1 = server(value=5)

    assert s1.started == ["publish Model step=0 value=5"]
    assert s1.node.phase() == "scatter"
    assert s1.node.deadline == 1.0


def test_the_first_q_w_gradients_are_aggregated(server: Make) -> None:
    """Not one before, ordered by identity whoever came first, with f_w and the model."""
    s1 = server(value=5)

    assert s1.receives("w4", Gradient(0, v(4))) == []
    assert s1.receives("w3", Gradient(0, v(3))) == []
    assert s1.receives("w1", Gradient(0, v(1))) == [
        "mda step=0 f=1: w1=1 w3=3 w4=4; from 5 at rate 1"
    ]
    assert s1.node.phase() == "update"


def test_the_rule_of_the_cluster_file_aggregates(cluster: Make, server: Make) -> None:
    """Gradients go through the rule that is configured, at most f_w of them Byzantine."""
    s1 = server(cluster(workers=8, f_workers=2, rule="average", worker_quorum=5))

    assert s1.hears(("w1", "w2", "w3", "w4"), Gradient(0, v(1))) == []
    assert s1.receives("w5", Gradient(0, v(2))) == [
        "average step=0 f=2: w1=1 w2=1 w3=1 w4=1 w5=2; from 0 at rate 1"
    ]


def test_one_identity_votes_once(server: Make) -> None:
    """A worker that speaks three times is not a quorum."""
    s1 = server()

    assert s1.receives("w1", *[Gradient(0, v(value)) for value in (1, 1, 2)]) == [
        "refuse w1 step=0 duplicate",
        "refuse w1 step=0 equivocation",
    ]
    assert s1.receives("w2", Gradient(0, v(2))) == []
    assert s1.receives("w3", Gradient(0, v(3))) == [
        "mda step=0 f=1: w1=1 w2=2 w3=3; from 0 at rate 1"
    ]


def test_a_gradient_after_the_quorum_is_late(server: Make) -> None:
    """Harmless and normal, and refused; a step later it is stale."""
    s1 = server()
    s1.hears(THREE, Gradient(0, v(-1)))
    assert s1.receives("w4", Gradient(0, v(9))) == ["refuse w4 step=0 late"]

    s1.works()
    gather(s1, 1, 1)
    assert s1.receives("w4", Gradient(0, v(9))) == ["refuse w4 step=0 late"]

    s1.hears(THREE, Gradient(1, v(-1)))
    assert s1.receives("w4", Gradient(0, v(9))) == ["refuse w4 step=0 stale"]


def test_gradients_of_later_steps_wait_for_theirs(server: Make) -> None:
    """A quorum that is there already is used as soon as the step begins."""
    s1 = server()
    s1.hears(THREE, Gradient(1, v(-1)))
    assert s1.node.waiting().have == 0

    update(s1, 0)
    assert gather(s1, 1, 1) == [
        "publish Model step=1 value=1",
        "mda step=1 f=1: w1=-1 w2=-1 w3=-1; from 1 at rate 1",
    ]


def test_the_learning_rate_decays(cluster: Make, server: Make) -> None:
    """Each update carries the eta_t of its own step."""
    s1 = server(cluster(learning_rate=0.6, learning_rate_decay_steps=10), step=5)

    s1.hears(THREE, Gradient(5, v(1)))

    assert s1.effects[0].learning_rate == pytest.approx(0.4)


def test_updates_are_counted_with_what_they_showed(server: Make) -> None:
    """Steps, votes that the rule left out, the variance condition, and the time it took."""
    s1 = server()
    s1.receives("w1", Gradient(0, v(2)))
    s1.receives("w2", Gradient(0, v(4)))
    s1.receives("w3", Gradient(0, v(900)))
    s1.works()

    progress = s1.node.progress
    assert progress.steps == 1
    assert progress.left_out == {"w3": 1}
    # Selected 2 and 4: variance 2, and a square of 9 of which chance makes 2 / 2.
    assert progress.variance.ratio == pytest.approx(2 / 2 * sqrt(2 / 8))
    assert sum(progress.work["mda"].counts) == 1


# Gather


def test_an_updated_model_is_sent_to_the_other_servers(server: Make) -> None:
    """It is scattered to nobody before the gather is over."""
    s1 = server()

    assert update(s1, 0) == ["send GatherModel step=1 value=1 to s2 s3 s4 s5"]
    assert s1.node.phase() == "gather"
    assert (s1.node.step, s1.node.model_step) == (1, 0)


def test_a_gather_takes_q_ps_models_the_own_one_among_them(gathering: Any) -> None:
    """The own model counts first, so q_ps - 1 peers are needed, and never one less."""
    assert gathering.receives("s5", GatherModel(1, v(5))) == []
    assert gathering.receives("s3", GatherModel(1, v(3))) == []
    assert gathering.receives("s2", GatherModel(1, v(2))) == [
        "coordinate_median step=1 f=1: s1=1 s2=2 s3=3 s5=5; own s1"
    ]
    assert gathering.node.phase() == "contract"


def test_of_models_f_ps_are_byzantine(cluster: Make, server: Make) -> None:
    """In a gather and in a catch-up f is that of the servers, whatever f_w may be."""
    unlike = cluster(servers=5, f_servers=1, workers=7, f_workers=2)
    gathers, falls_behind = server(unlike), server(unlike)
    gathers.hears(("w1", "w2", "w3", "w4", "w5"), Gradient(0, v(-1)))
    gathers.works()

    assert gathers.hears(("s2", "s3", "s4"), GatherModel(1, v(1))) == [
        "coordinate_median step=1 f=1: s1=1 s2=1 s3=1 s4=1; own s1"
    ]
    assert falls_behind.hears(("s2", "s3", "s4"), Model(9, v(1)))[-1] == (
        "coordinate_median step=9 f=1: s2=1 s3=1 s4=1"
    )


def test_the_contracted_model_is_scattered(gathering: Any) -> None:
    """The median replaces the own model: the next step starts from there."""
    gathering.receives("s2", GatherModel(1, v(2)))
    gathering.receives("s3", GatherModel(1, v(4)))
    gathering.receives("s4", GatherModel(1, v(900)))

    assert gathering.works() == ["publish Model step=1 value=3"]
    assert gathering.node.vector == v(3)
    assert gathering.node.model_step == 1


def test_models_that_came_first_wait_for_the_own_one(server: Make) -> None:
    """The own model is among those of a gather also where q_ps peers were faster."""
    s1 = server()
    s1.hears(("s2", "s3", "s4", "s5"), GatherModel(1, v(9)))
    s1.hears(THREE, Gradient(0, v(-1)))

    assert s1.works() == [
        "send GatherModel step=1 value=1 to s2 s3 s4 s5",
        "coordinate_median step=1 f=1: s1=1 s2=9 s3=9 s4=9; own s1",
    ]


def test_one_server_votes_once_in_a_gather(gathering: Any) -> None:
    """A server that speaks three times is not q_ps - 1 peers."""
    assert gathering.receives("s2", *[GatherModel(1, v(value)) for value in (2, 2, 3)]) == [
        "refuse s2 step=1 duplicate",
        "refuse s2 step=1 equivocation",
    ]
    assert gathering.node.waiting().have == 2


def test_models_of_another_step_do_not_count_in_a_gather(gathering: Any) -> None:
    """Neither the step before, nor the one after; nor a model that is no vote."""
    assert gathering.receives("s2", GatherModel(0, v(2))) == ["refuse s2 step=0 late"]
    assert gathering.receives("s3", GatherModel(2, v(3))) == []
    assert gathering.receives("s4", Model(1, v(4))) == []
    assert gathering.node.waiting().have == 1


def test_a_vote_after_the_gather_is_late_and_then_stale(gathering: Any) -> None:
    """What comes after the q_ps-th model changes nothing."""
    gathering.hears(("s2", "s3", "s4"), GatherModel(1, v(1)))
    assert gathering.receives("s5", GatherModel(1, v(9))) == ["refuse s5 step=1 late"]

    gathering.works()
    update(gathering, 1)
    gather(gathering, 2, 2)
    assert gathering.receives("s5", GatherModel(1, v(9))) == ["refuse s5 step=1 stale"]


def test_steps_between_gathers_are_scattered_at_once(cluster: Make, server: Make) -> None:
    """With T = 3 the models of steps 1 and 2 go straight to the workers, that of 3 is gathered."""
    s1 = server(cluster(gather_period=3))

    assert update(s1, 0) == ["publish Model step=1 value=1"]
    assert update(s1, 1) == ["publish Model step=2 value=2"]
    assert update(s1, 2) == ["send GatherModel step=3 value=3 to s2 s3 s4 s5"]
    assert gather(s1, 3, 3) == ["publish Model step=3 value=3"]
    assert update(s1, 3) == ["publish Model step=4 value=4"]


def test_an_estimated_gather_period_replaces_auto(cluster: Make, server: Make) -> None:
    """Where the file says auto, the caller's number counts."""
    s1 = server(cluster(gather_period="auto"), gather_period=2)

    assert update(s1, 0) == ["publish Model step=1 value=1"]
    assert update(s1, 1) == ["send GatherModel step=2 value=2 to s2 s3 s4 s5"]


def test_the_caller_must_estimate_auto(cluster: Make, server: Make) -> None:
    """A server does not guess T: to start without it is a bug of ours."""
    with pytest.raises(AssertionError, match="auto"):
        server(cluster(gather_period="auto"))


def test_a_gather_shows_the_drift(gathering: Any) -> None:
    """Largest and median distance to the peers' votes, and what the gather did to them."""
    gathering.receives("s2", GatherModel(1, v(2)))
    gathering.receives("s3", GatherModel(1, v(3)))
    gathering.receives("s4", GatherModel(1, v(7)))
    gathering.works()

    # From the own 1 the votes are 1, 2 and 6 away; from the contracted 2.5 they are .5, .5, 4.5.
    drift = gathering.node.progress.drift
    assert (drift.maximum, drift.median) == (6, 2)
    assert drift.relative == pytest.approx(6 / 2.5)
    assert drift.contraction == pytest.approx(0.25)
    assert gathering.node.progress.gathers == 1


def test_a_lone_server_gathers_with_nobody(cluster: Make, server: Make) -> None:
    """The vanilla parameter server: gradients in, the next model out."""
    s1 = server(cluster(servers=1, f_servers=0, workers=2, f_workers=0, rule="average"))

    assert s1.receives("w1", Gradient(0, v(-1))) == []
    assert s1.receives("w2", Gradient(0, v(-3))) == [
        "average step=0 f=0: w1=-1 w2=-3; from 0 at rate 1"
    ]
    assert s1.works() == ["publish Model step=1 value=2"]
    assert s1.waits(1.0) == ["send Pull step=1 to w1 w2"]


# Waiting too long


def test_late_gradients_are_pulled_from_those_who_lack(server: Make) -> None:
    """And the other servers are asked where they stand."""
    s1 = server()
    s1.receives("w2", Gradient(0, v(1)))

    assert s1.waits(0.99) == []
    assert s1.waits(0.01) == ["send Pull step=0 to w1 w3 w4", "send Hello step=0 to s2 s3 s4 s5"]
    assert s1.node.progress.pulls == 3


def test_late_gather_models_are_pulled_from_those_who_lack(gathering: Any) -> None:
    """Nobody who voted is asked, the server itself least of all."""
    gathering.receives("s3", GatherModel(1, v(1)))

    assert gathering.waits(1.0) == [
        "send Pull step=1 to s2 s4 s5",
        "send Hello step=1 to s2 s3 s4 s5",
    ]


def test_pulls_back_off_and_begin_anew_with_each_wait(server: Make) -> None:
    """After 1, 3 and 7 seconds in vain; the next phase begins with one second again."""
    s1 = server()
    pulled = [second for second in range(1, 9) if s1.waits(1.0)]
    assert pulled == [1, 3, 7]

    update(s1, 0)
    assert s1.waits(0.99) == []
    assert s1.waits(0.01) != []


def test_a_server_at_work_asks_nobody(server: Make) -> None:
    """While it aggregates it has no deadline."""
    s1 = server()
    s1.hears(THREE, Gradient(0, v(1)))

    assert s1.waits(100) == []


def test_a_peer_that_connects_during_a_gather_is_asked_for_its_vote(gathering: Any) -> None:
    """What it sent before may be lost."""
    assert gathering.connects("s2") == ["send Hello step=1 to s2", "send Pull step=1 to s2"]
    assert gathering.connects("w1") == ["send Hello step=1 to w1"]


def test_a_worker_that_connects_is_asked_for_the_gradient_that_is_late(
    cluster: Make, server: Make
) -> None:
    """Not only when the next pull is due, up to 16 seconds later; nor where nothing is late yet."""
    s1, hello = server(), Hello(3, cluster().digests())
    s1.receives("w2", Gradient(0, v(1)))

    assert s1.receives("w1", hello) == ["send Hello step=0 reply to w1"]
    s1.waits(1.0)
    assert s1.receives("w1", hello) == ["send Hello step=0 reply to w1", "send Pull step=0 to w1"]
    assert s1.receives("w2", hello) == ["send Hello step=0 reply to w2"]
    assert s1.receives("w1", Hello(3, cluster().digests(), reply=True)) == []


# Answering


@pytest.mark.parametrize("peer", ["w1", "s2"])
def test_a_pull_is_answered_with_the_model(cluster: Make, server: Make, peer: str) -> None:
    """With the newest there is, if it is not older than what was asked for."""
    s1 = server(cluster(gather_period=2), step=5, value=7)

    assert s1.receives(peer, Pull(6)) == []
    s1.now = 1
    assert s1.receives(peer, Pull(5)) == [f"send Model step=5 value=7 to {peer}"]
    s1.now = 2
    assert s1.receives(peer, Pull(0)) == [f"send Model step=5 value=7 to {peer}"]


def test_a_server_is_answered_with_the_vote_it_lacks(gathering: Any) -> None:
    """In the gather the vote of that step; a worker gets no uncontracted model."""
    assert gathering.receives("s2", Pull(1)) == ["send GatherModel step=1 value=1 to s2"]
    assert gathering.receives("w2", Pull(1)) == []


def test_the_last_vote_is_still_there_after_the_gather(gathering: Any) -> None:
    """Others may gather later; the contracted model of the same step is no second answer."""
    gather(gathering, 1, 5)
    assert gathering.receives("s2", Pull(1)) == ["send GatherModel step=1 value=1 to s2"]
    assert gathering.receives("s3", Pull(2)) == []


def test_between_gathers_a_server_gets_vote_and_newer_model(cluster: Make, server: Make) -> None:
    """Who lacks the vote can gather, and who fell behind can catch up."""
    s1 = server(cluster(gather_period=2))
    update(s1, 0)
    update(s1, 1)
    gather(s1, 2, 2)
    update(s1, 2)

    assert s1.receives("s2", Pull(2)) == [
        "send GatherModel step=2 value=2 to s2",
        "send Model step=3 value=3 to s2",
    ]
    assert s1.receives("s3", Pull(3)) == ["send Model step=3 value=3 to s3"]


def test_a_peer_is_answered_once_in_half_a_pull_s_time(server: Make) -> None:
    """A pull is small and its answer is not: a flood of pulls is no flood of models."""
    s1 = server(value=7)
    answer = "send Model step=0 value=7 to w1"

    assert s1.receives("w1", *[Pull(0)] * 10) == [answer]
    assert s1.receives("w2", Pull(0)) == ["send Model step=0 value=7 to w2"]
    s1.now = 0.49
    assert s1.receives("w1", Pull(0)) == []
    s1.now = 0.5
    assert s1.receives("w1", Pull(0)) == [answer]


def test_an_operator_s_order_is_kept_until_its_step(server: Make) -> None:
    """It asks for exactly one step and is answered once, when the server gets there."""
    s1 = server()
    assert s1.receives("op", Pull(2)) == []

    update(s1, 0)
    assert gather(s1, 1, 1) == ["publish Model step=1 value=1"]
    update(s1, 1)
    assert gather(s1, 2, 2) == ["publish Model step=2 value=2", "send Model step=2 value=2 to op"]
    update(s1, 2)
    assert gather(s1, 3, 3) == ["publish Model step=3 value=3"]


def test_an_operator_waits_for_the_contracted_model(gathering: Any) -> None:
    """During the gather of the step it asks for, it gets neither vote nor the model before."""
    assert gathering.receives("op", Pull(1)) == []
    assert gather(gathering, 1, 3)[-1] == "send Model step=1 value=3 to op"


def test_an_operator_that_comes_too_late_gets_a_later_step(server: Make) -> None:
    """If the model is gone, a later one is the answer, at once."""
    s1 = server(step=5, value=7)

    assert s1.receives("op", Pull(3)) == ["send Model step=5 value=7 to op"]


def test_an_operator_has_one_order_at_a_time(server: Make) -> None:
    """The last one replaces the others, so orders take no room."""
    s1 = server()
    s1.receives("op", *[Pull(step) for step in range(1000, 0, -1)])
    update(s1, 0)

    assert gather(s1, 1, 1) == ["publish Model step=1 value=1", "send Model step=1 value=1 to op"]
    assert s1.node._orders == {}


# The end, and checkpoints


def test_the_last_step_ends_the_training(cluster: Make, server: Make) -> None:
    """The last model goes out, all orders are filled, and nothing is waited for any more."""
    s1 = server(cluster(steps=1))
    s1.receives("op", Pull(STEP_MAX))
    update(s1, 0)

    assert gather(s1, 1, 1) == ["publish Model step=1 value=1", "send Model step=1 value=1 to op"]
    assert s1.node.done
    assert s1.node.sentence(0) == "done at step 1"
    assert s1.waits(100) == []


def test_a_server_that_is_done_goes_on_answering(cluster: Make, server: Make) -> None:
    """Peers may lack its last vote or model, and operators come for the result."""
    s1 = server(cluster(steps=1))
    update(s1, 0)
    gather(s1, 1, 1)

    assert s1.receives("s2", Pull(1)) == ["send GatherModel step=1 value=1 to s2"]
    assert s1.receives("w1", Pull(0)) == ["send Model step=1 value=1 to w1"]
    assert s1.receives("op", Pull(900)) == ["send Model step=1 value=1 to op"]
    assert s1.hears(THREE, Gradient(1, v(-1))) == []
    assert s1.hears(("s2", "s3", "s4"), Model(9, v(9))) == []
    assert s1.node.step == 1


def test_checkpoints_come_at_their_period_and_at_the_end(cluster: Make, server: Make) -> None:
    """The contracted model of every second step and of the last; theta_0 needs no checkpoint."""
    s1 = server(cluster(steps=5), checkpoint_period=2)
    saved = list(s1.started)
    for step in range(5):
        update(s1, step)
        saved += gather(s1, step + 1, step + 1)

    assert [words for words in saved if words.startswith("save")] == [
        "save step=2 value=2",
        "save step=4 value=4",
        "save step=5 value=5",
    ]


def test_a_server_restarts_from_its_checkpoint(server: Make) -> None:
    """It scatters that model, at that step, and takes gradients of no earlier one."""
    s1 = server(step=40, value=7)

    assert s1.started == ["publish Model step=40 value=7"]
    assert s1.receives("w1", Gradient(39, v(1))) == ["refuse w1 step=39 late"]
    assert s1.receives("s2", GatherModel(40, v(1))) == ["refuse s2 step=40 late"]
    assert s1.hears(THREE, Gradient(40, v(1))) == [
        "mda step=40 f=1: w1=1 w2=1 w3=1; from 7 at rate 1"
    ]


# Falling behind


def test_a_server_that_missed_a_gather_adopts_its_peers_models(server: Make) -> None:
    """With q_ps - 1 peers' models it goes on with M of those, at their step."""
    s1 = server(value=0)

    assert s1.receives("s2", Model(9, v(2))) == []
    assert s1.receives("s3", Model(9, v(4))) == ["send Pull step=0 to s2 s3 s4 s5"]
    assert s1.receives("s4", Model(9, v(6))) == ["coordinate_median step=9 f=1: s2=2 s3=4 s4=6"]
    assert s1.node.sentence(0) == "catch-up at step 9"
    assert s1.works() == [
        "send GatherModel step=9 value=4 to s2 s3 s4 s5",
        "publish Model step=9 value=4",
    ]
    assert s1.node.phase() == "scatter"
    assert s1.node.progress.catch_ups == 1
    assert s1.node.progress.steps == 0


def test_where_2_f_peers_must_do_the_own_model_is_a_vote(cluster: Make, server: Make) -> None:
    """The synchronous variant allows q_ps = 2 f_ps + 1: a median of fewer would not be safe."""
    s1 = server(cluster(servers=4, variant="synchronous", gather_period=1), value=5)
    s1.receives("s2", Model(9, v(-900)))

    assert s1.receives("s3", Model(9, v(6)))[-1] == (
        "coordinate_median step=9 f=1: s1=5 s2=-900 s3=6"
    )


@pytest.mark.parametrize("lie", [-900, 900])
def test_a_lost_disk_and_a_lie_move_no_median(server: Make, lie: float) -> None:
    """A server that begins again at theta_0 = 0 rejoins within the range of its correct peers."""
    s1 = server(value=0)
    s1.receives("s2", Model(9, v(lie)))
    s1.receives("s3", Model(9, v(4)))
    s1.receives("s4", Model(9, v(6)))
    s1.works()

    assert 4 <= s1.node.vector <= 6


def test_no_peer_is_believed_alone(server: Make) -> None:
    """f_ps liars, however often they speak and whatever step they claim, move nobody."""
    s1 = server()
    for _ in range(10):
        assert s1.receives("s2", Hello(STEP_MAX, {}, reply=True)) == [
            "refuse s2 step=9007199254740991 other-cluster"
        ]
    for step in (9, 900, STEP_MAX):
        assert s1.receives("s3", Model(step, v(900)), GatherModel(step, v(900))) == []

    assert s1.node.step == 0
    assert s1.node.phase() == "scatter"


def test_two_peers_are_heard_and_not_followed(server: Make) -> None:
    """One of f_ps + 1 peers is correct: that makes a pull, and still no catch-up."""
    s1 = server()
    s1.receives("s2", Model(9, v(1)))

    assert s1.receives("s3", Model(9, v(1))) == ["send Pull step=0 to s2 s3 s4 s5"]
    assert s1.receives("s3", *[Model(9, v(1))] * 10) == []
    assert s1.node.step == 0


def test_a_liar_s_step_is_not_the_step_to_go_on_at(server: Make) -> None:
    """The lying step leads, the model counts as one vote, and the correct step is taken."""
    s1 = server()
    s1.receives("s2", Model(STEP_MAX, v(900)))
    s1.receives("s3", Model(9, v(4)))

    assert s1.receives("s4", Model(8, v(6))) == ["coordinate_median step=9 f=1: s2=900 s3=4 s4=6"]


def test_a_server_that_is_merely_slow_finishes_its_step(server: Make) -> None:
    """Peers one gather ahead are no reason to give up a step."""
    s1 = server()

    assert s1.hears(("s2", "s3", "s4", "s5"), Model(1, v(1))) == []
    assert update(s1, 0) == ["send GatherModel step=1 value=1 to s2 s3 s4 s5"]


def test_a_server_that_waits_in_vain_follows_after_a_pull(server: Make) -> None:
    """Where others went on, the votes it waits for will not come any more."""
    s1 = server(value=0)
    s1.hears(("s2", "s3", "s4"), Model(1, v(2)))
    s1.waits(1.0)

    assert s1.receives("s5", Model(1, v(2))) == ["coordinate_median step=1 f=1: s2=2 s3=2 s4=2"]


def test_with_a_long_period_a_whole_gather_must_be_missed(cluster: Make, server: Make) -> None:
    """With T = 5, a server at step 3 still meets its peers in the gather of step 5."""
    s1 = server(cluster(gather_period=5), step=3)

    assert s1.hears(("s2", "s3", "s4"), Model(5, v(1))) == []
    assert s1.receives("s2", Model(6, v(1))) == []
    assert s1.receives("s3", Model(6, v(1)))[-1].startswith("coordinate_median step=6")
    assert s1.works() == ["publish Model step=6 value=1"]


def test_hellos_of_peers_far_ahead_make_a_server_ask_for_models(
    cluster: Make, server: Make
) -> None:
    """A server that restarted hears where the others stand, and asks them once a pull's time."""
    s1 = server()
    digests = cluster().digests()

    assert s1.receives("s2", Hello(9, digests, reply=True)) == []
    assert s1.receives("s3", Hello(9, digests, reply=True)) == ["send Pull step=0 to s2 s3 s4 s5"]
    assert s1.receives("s4", Hello(9, digests, reply=True)) == []
    s1.now = 0.99
    assert s1.receives("s4", Hello(9, digests, reply=True)) == []
    s1.node.deadline = s1.now = 1.0
    assert s1.receives("s4", Hello(9, digests, reply=True)) == ["send Pull step=0 to s2 s3 s4 s5"]


def test_a_server_with_another_file_does_not_say_where_it_stands(
    cluster: Make, server: Make
) -> None:
    """Its step is not counted among the peers'."""
    s1 = server()
    s1.receives("s2", Hello(9, cluster(seed=2).digests(), reply=True))

    assert s1.receives("s3", Hello(9, cluster().digests(), reply=True)) == []


def test_a_result_that_was_overtaken_is_dropped(server: Make) -> None:
    """The update of a step that was given up changes nothing, before or after the catch-up."""
    s1 = server()
    s1.hears(THREE, Gradient(0, v(-1)))
    s1.hears(("s2", "s3", "s4"), Model(9, v(2)))
    overtaken = s1.work.pop(0)
    s1.work.insert(0, overtaken)

    assert s1.works(last=True)[-1] == "publish Model step=9 value=2"
    assert s1.works() == []
    assert s1.node.vector == v(2)
    assert s1.node.step == 9


def test_an_early_result_of_an_overtaken_step_is_dropped_too(server: Make) -> None:
    """The server still waits for the median of its peers' models."""
    s1 = server()
    s1.hears(THREE, Gradient(0, v(-1)))
    s1.hears(("s2", "s3", "s4"), Model(9, v(2)))

    assert s1.works() == []
    assert s1.node.phase() == "catch-up"
    assert s1.works()[-1] == "publish Model step=9 value=2"


def test_a_server_gives_up_a_gather_that_it_missed(gathering: Any) -> None:
    """Its lonely vote, in a gather that the others have left behind, counts no more."""
    gathering.hears(("s2", "s3"), GatherModel(3, v(6)))

    assert gathering.receives("s4", GatherModel(3, v(6))) == [
        "coordinate_median step=3 f=1: s2=6 s3=6 s4=6"
    ]


def test_gradients_are_kept_while_catching_up(server: Make) -> None:
    """Those of the step to go on at count at once."""
    s1 = server()
    s1.hears(("s2", "s3", "s4"), Model(9, v(2)))
    assert s1.receives("w4", Gradient(8, v(1))) == ["refuse w4 step=8 late"]
    s1.hears(THREE, Gradient(9, v(1)))

    assert s1.works()[-2:] == [
        "publish Model step=9 value=2",
        "mda step=9 f=1: w1=1 w2=1 w3=1; from 2 at rate 1",
    ]


def test_a_server_may_catch_up_with_the_end(cluster: Make, server: Make) -> None:
    """Behind peers that are done, it is done with them."""
    s1 = server(cluster(steps=9))
    s1.hears(("s2", "s3", "s4"), Model(9, v(2)))

    assert s1.works() == [
        "send GatherModel step=9 value=2 to s2 s3 s4 s5",
        "publish Model step=9 value=2",
    ]
    assert s1.node.done


def test_models_of_before_a_long_silence_do_not_count(server: Make) -> None:
    """Beside an old one a lie could be the median: it needs models of all that are needed anew."""
    s1 = server(step=1000, value=1000)
    s1.hears(("s2", "s3", "s4"), GatherModel(1000, v(1000)))
    s1.waits(3600)

    asks = ["send Pull step=0 to s2 s3 s4 s5"]
    assert s1.receives("s2", GatherModel(4001, v(0))) == asks
    assert s1.receives("s3", Model(4000, v(4000))) == []
    assert s1.receives("s4", Model(4000, v(3999)))[-1] == (
        "coordinate_median step=4000 f=1: s2=0 s3=4000 s4=3999"
    )


# Going back


def go_back(s1: Any, step: int) -> list[str]:
    """Let a server that waits see that three others wait at an earlier step, until it goes there.

    Args:
        s1: The server, in its first wait.
        step: Where the others are.
    """
    for seconds in (1, 6):
        s1.waits(seconds)
        s1.receives("s2", Model(step, v(0)))
        s1.hears(("s2", "s3", "s4"), Model(step, v(0)))
    return s1.works()


def test_a_server_ahead_of_the_others_goes_back(cluster: Make, server: Make) -> None:
    """Where they have been seen to wait twice, in a new life, and tells them at once."""
    s1 = server(cluster(gather_period=2), step=9)

    assert go_back(s1, 7) == [
        "begin a new life",
        "send Hello step=7 to s2 s3 s4 s5",
        "publish Model step=7 value=0",
    ]
    assert s1.receives("s2", Pull(8)) == []


def test_gradients_of_the_life_before_do_not_count(cluster: Make, server: Make) -> None:
    """When the training comes to their steps again, they are of models that nobody has any more."""
    s1 = server(cluster(gather_period=9), step=20)
    s1.hears(("w1", "w2"), Gradient(20, v(-77)))
    go_back(s1, 19)
    update(s1, 19)
    assert s1.node.step == 20

    assert s1.hears(("w1", "w2"), Gradient(20, v(-1))) == []
    assert s1.receives("w3", Gradient(20, v(-1))) == [
        "mda step=20 f=1: w1=-1 w2=-1 w3=-1; from 1 at rate 1"
    ]


def test_others_that_came_by_are_waited_for_anew(cluster: Make, server: Make) -> None:
    """What was seen of them before they caught up says nothing of those that are slow later."""
    s1 = server(cluster(gather_period=2), step=9)
    s1.waits(1)
    s1.receives("s2", Model(7, v(0)))
    s1.hears(("s2", "s3", "s4"), Model(7, v(0)))
    s1.waits(6)
    s1.hears(("s2", "s3", "s4", "s5"), Model(9, v(0)))
    s1.waits(16)
    s1.receives("s2", Model(9, v(0)))
    s1.hears(("s2", "s3", "s4"), Model(7, v(0)))

    assert s1.node.step == 9
