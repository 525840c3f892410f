"""The synchronous pair: events in, effects out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import GatherModel, Gradient, Model, Pull
from byzsgd.protocol import synchronous
from byzsgd.protocol.synchronous import KEPT_MAX, PRIMING_STEPS
from byzsgd.protocol.work import try_model

Make = Callable[..., Any]
SERVERS = ("s1", "s2", "s3", "s4", "s5")
FOUR = SERVERS[:4]


def v(value: float) -> np.ndarray:
    return np.float32([value])


@pytest.fixture
def rounds(cluster: Make) -> Any:
    """A cluster whose rounds take 2 s and that gathers every 5th step, without momentum."""
    return cluster(
        variant="synchronous", gather_period=5, round_timeout=2.0, worker_momentum=0, workers=7,
        f_workers=2,
    )  # fmt: skip


@pytest.fixture
def primed(rounds: Any, worker: Make, monkeypatch: pytest.MonkeyPatch) -> Any:
    """w1 after the medians of steps 0 and 1, having seen the coefficient 1, at step 2.

    Models were 0 and -1, gradients 1 and 2, the learning rate is 1.
    """
    monkeypatch.setattr(synchronous, "PRIMING_STEPS", 2)
    w1 = worker(rounds)
    w1.hears(FOUR, Model(0, v(0)))
    w1.works()
    w1.works(1)
    w1.hears(FOUR, Model(1, v(-1)))
    w1.works()
    gradients = iter([1.0, 2.0])  # At the model before, and at this one.
    w1.meets(try_model(w1.work.pop(0), lambda at, step: (np.full_like(at, next(gradients)), 0.0)))
    return w1


def ahead(w1: Any, gradient: float = 2.0) -> list[str]:
    """The gradient that the filters compare with is there."""
    return w1.works(gradient)


# A server


def test_models_are_not_published(rounds: Any, server: Make) -> None:
    """Workers pull models: the saving that the variant is for."""
    assert server(rounds).started == []


def test_a_pull_is_answered_when_the_server_gets_there(rounds: Any, server: Make) -> None:
    """At once if it is there, and else as soon as the step begins."""
    s1 = server(rounds)
    assert s1.receives("w1", Pull(0)) == ["send Model step=0 value=0 to w1"]
    assert s1.receives("w2", Pull(1)) == []

    s1.hears([f"w{n}" for n in range(1, 8)], Gradient(0, v(1)))
    assert s1.works() == ["send Model step=1 value=-1 to w2"]


def test_one_answer_a_step_and_worker(rounds: Any, server: Make) -> None:
    """Who asks without an end is answered once, and once more in case it was lost."""
    s1 = server(rounds)
    assert s1.receives("w1", *[Pull(0)] * 10) == ["send Model step=0 value=0 to w1"]

    s1.waits(0.5)
    assert s1.receives("w1", *[Pull(0)] * 10) == ["send Model step=0 value=0 to w1"]


def test_a_server_waits_for_every_worker(rounds: Any, server: Make) -> None:
    """Delays are bounded, so all correct ones answer; more gradients are better ones."""
    s1 = server(rounds)
    assert s1.hears([f"w{n}" for n in range(1, 7)], Gradient(0, v(1))) == []
    assert "waits for 1 of 7 gradients of step 0: w7" in s1.node.sentence(0)

    [update] = s1.receives("w7", Gradient(0, v(1)))
    assert update.startswith("mda step=0 f=2: w1=1 w2=1 w3=1 w4=1 w5=1 w6=1 w7=1")


def test_a_round_ends_after_its_time(rounds: Any, server: Make) -> None:
    """Who misses a round is counted and passed over: nobody waits for it in the next one."""
    s1 = server(rounds)
    six = [f"w{n}" for n in range(1, 7)]
    s1.hears(six, Gradient(0, v(1)))
    asked, update = [words for words in s1.waits(2.0) if "Hello" not in words]
    assert asked == "send Pull step=0 to w7"
    assert update.startswith("mda step=0 f=2: w1=1 w2=1 w3=1 w4=1 w5=1 w6=1;")
    assert s1.node.progress.missed == {"w7": 1}

    s1.works()
    assert s1.hears(six, Gradient(1, v(1)))[0].startswith("mda step=1 f=2: w1=1")


def test_a_quorum_is_waited_for_however_long_it_takes(rounds: Any, server: Make) -> None:
    """With fewer than q_w gradients a round goes on after its time."""
    s1 = server(rounds)
    s1.hears(["w1", "w2", "w3", "w4"], Gradient(0, v(1)))
    assert not any("mda" in words for words in s1.waits(60))

    assert s1.receives("w5", Gradient(0, v(1)))[0].startswith("mda step=0 f=2: w1=1 w2=1 w3=1 w4=1")


def test_who_is_in_time_again_is_waited_for_again(rounds: Any, server: Make) -> None:
    """Also if the round had ended without it."""
    s1 = server(rounds)
    six = [f"w{n}" for n in range(1, 7)]
    s1.hears(six, Gradient(0, v(1)))
    s1.waits(2.0)
    s1.works()
    assert set(s1.node.progress.passed_over) == {"w7"}

    s1.hears(six, Gradient(1, v(1)))
    assert s1.receives("w7", Gradient(1, v(1))) == ["refuse w7 step=1 late"]
    assert not s1.node.progress.passed_over
    s1.works()
    assert s1.hears(six, Gradient(2, v(1))) == []
    assert s1.receives("w7", Gradient(2, v(1)))[0].startswith("mda step=2")


def test_saying_the_same_again_is_no_round(rounds: Any, server: Make) -> None:
    """Who is passed over for good cannot buy its way back within a round."""
    s1 = server(rounds)
    six = [f"w{n}" for n in range(1, 7)]
    for step in (0, 1):
        s1.hears(six, Gradient(step, v(1)))
        s1.waits(2.0)
        s1.works()
        s1.receives("w7", Gradient(step, v(1)))  # Late by now: no round of its own.
        s1.node._attendance.miss("w7")
    assert s1.node._attendance._owed == {"w7": 4}

    s1.hears(six, Gradient(2, v(1)))
    s1.receives("w7", *[Gradient(2, v(n)) for n in range(100)])

    assert s1.node._attendance._owed == {"w7": 3}


@pytest.mark.parametrize("seconds", [0.3, 1.7, 5.1])
def test_a_round_ends_when_its_time_is_over(cluster: Make, server: Make, seconds: float) -> None:
    """At its deadline and not at the next one, whatever floating point makes of the sum."""
    s1 = server(cluster(variant="synchronous", round_timeout=seconds, workers=7, f_workers=2))
    for step in range(30):
        s1.node._attendance._owed.clear()
        s1.hears(["w1", "w2", "w3", "w4", "w5"], Gradient(step, v(1)))
        began = s1.node._waiting_since
        while not s1.work:
            s1.waits(s1.node.deadline - s1.now)
        assert s1.now == began + seconds
        s1.works()
        s1.hears(("s2", "s3", "s4"), GatherModel(step + 1, v(0)))
        if s1.work:
            s1.works()


@pytest.mark.parametrize(
    ("workers", "f_workers", "missing", "f"), [(7, 2, 2, 2), (5, 2, 1, 1), (5, 2, 2, 1)]
)
def test_f_w_is_kept_although_silent_workers_are_missing(
    cluster: Make, server: Make, workers: int, f_workers: int, missing: int, f: int
) -> None:
    """MDA keeps f_w where its bound allows; else what is left of it, for who is silent lies."""
    s1 = server(cluster(variant="synchronous", workers=workers, f_workers=f_workers))
    s1.hears([f"w{n}" for n in range(1, workers + 1 - missing)], Gradient(0, v(1)))

    assert f"mda step=0 f={f}:" in " ".join(s1.waits(2.0))


def test_servers_gather_as_ever(cluster: Make, server: Make) -> None:
    """In a gather step servers exchange models and take M of the first q_ps."""
    s1 = server(cluster(variant="synchronous", gather_period=1))
    s1.hears(["w1", "w2", "w3", "w4"], Gradient(0, v(1)))
    assert s1.works() == ["send GatherModel step=1 value=-1 to s2 s3 s4 s5"]

    assert s1.hears(["s2", "s3", "s4"], GatherModel(1, v(-3))) == [
        "coordinate_median step=1 f=1: s1=-1 s2=-3 s3=-3 s4=-3; own s1"
    ]


# A worker


def test_a_worker_begins_with_all_servers(rounds: Any, worker: Make) -> None:
    """It does not know where they are: any step will do."""
    w1 = worker(rounds)
    assert w1.started == ["send Pull step=0 to s1 s2 s3 s4 s5"]

    assert w1.hears(FOUR, Model(0, v(1))) == ["coordinate_median step=0 f=1: s1=1 s2=1 s3=1 s4=1"]


def test_the_first_steps_are_medians(cluster: Make, worker: Make) -> None:
    """In the first 10 steps it takes M of all, which gives the filter something to compare with."""
    shared = cluster(variant="synchronous", gather_period=100)
    w1 = worker(shared)
    for step in range(PRIMING_STEPS):
        w1.hears(FOUR, Model(step, v(-step)))
        w1.works()
        w1.works(1)

    assert w1.node.step == PRIMING_STEPS
    assert w1.node.progress.scatter_steps == 1
    assert w1.node.waiting().lacking == ("s2",)


def test_one_model_is_pulled(primed: Any) -> None:
    """Worker j pulls from server (j + t + 1) mod n_ps: 0 + 2 + 1 is the fourth one."""
    assert primed.node.sentence(0) == "waits for 1 of 1 models of step 2: s4 (last seen 0 s ago)"
    assert primed.node.progress.scatter_pulls == 1


def test_a_worker_goes_one_step_ahead_of_itself(primed: Any) -> None:
    """While it waits it takes the gradient at its last model, on the batch of this step."""
    [effect] = primed.work

    assert (effect.step, effect.vector, effect.beta) == (2, v(-1), 0)


def test_a_model_is_tried_and_accepted(primed: Any) -> None:
    """Outliers: 2 * (17 * 5 / 8 + 2) = 25.25; k = |3 - 2| / |2| = 0.5 is no more than was seen."""
    ahead(primed)
    assert primed.receives("s4", Model(2, v(-3))) == [
        "try step=2 at -3 bound=25.25 reference=2 base=-1 momentum=2"
    ]

    sent, *_ = primed.works(3)
    assert sent == "send Gradient step=2 value=3 to s1 s2 s3 s4 s5"
    assert primed.node.progress.filtered == {}


def test_the_model_may_be_faster_than_the_own_gradient(primed: Any) -> None:
    """It is tried as soon as both are there."""
    assert primed.receives("s4", Model(2, v(-3))) == []

    assert ahead(primed)[0].startswith("try step=2 at -3")


def test_an_outlier_is_refused(primed: Any) -> None:
    """No gradient is computed there, and the next server in turn is asked."""
    ahead(primed)
    primed.receives("s4", Model(2, v(100)))

    assert primed.works(3) == ["send Pull step=2 to s5"]
    assert primed.node.progress.filtered == {("s4", "outliers"): 1}


def test_a_model_where_the_gradient_changes_fast_is_refused(primed: Any) -> None:
    """The coefficient is |9 - 2| / |2| = 3.5, more than has been seen."""
    ahead(primed)
    primed.receives("s4", Model(2, v(-4)))

    assert primed.works(9) == ["send Pull step=2 to s5"]
    assert primed.node.progress.filtered == {("s4", "lipschitz"): 1}
    assert primed.node.progress.scatter_pulls == 2


def test_what_f_ps_plus_1_servers_say_is_accepted(primed: Any) -> None:
    """One of them is correct; nothing is computed again."""
    ahead(primed)
    primed.receives("s4", Model(2, v(-4)))
    primed.works(9)

    sent, *_ = primed.receives("s5", Model(2, v(-4)))
    assert sent == "send Gradient step=2 value=9 to s1 s2 s3 s4 s5"


def test_an_outlier_that_f_ps_plus_1_servers_say_is_accepted(primed: Any) -> None:
    """Its gradient was not computed yet."""
    ahead(primed)
    primed.receives("s4", Model(2, v(100)))
    primed.works()
    assert primed.receives("s5", Model(2, v(100))) == ["gradient step=2 at 100 momentum=2 beta=0"]

    assert primed.works(5)[0] == "send Gradient step=2 value=5 to s1 s2 s3 s4 s5"


def test_whenever_every_server_was_refused_the_median_is_taken(primed: Any) -> None:
    """Of all that was pulled; that step is counted."""
    ahead(primed)
    for server, value in {"s4": -4, "s5": -5, "s1": -6, "s2": -7, "s3": -8}.items():
        assert primed.receives(server, Model(2, v(value)))[0].startswith("try")
        words = primed.works(float(value) ** 8)  # Each is worse than all before.

    assert words[-1] == "coordinate_median step=2 f=1: s1=-6 s2=-7 s4=-4 s5=-5"
    assert primed.node.progress.fallbacks == 1
    assert primed.works() == ["gradient step=2 at -5.5 momentum=2 beta=0"]


def test_a_silent_server_is_passed_over(primed: Any) -> None:
    """After its share of a round the next one is asked; it is counted if another one answers."""
    ahead(primed)
    assert primed.waits(0.5) == ["send Pull step=2 to s5"]
    primed.receives("s5", Model(2, v(-3)))
    assert primed.node.progress.missed == {}

    primed.works(3)
    assert primed.node.progress.missed == {"s4": 1}
    assert set(primed.node.progress.passed_over) == {"s4"}


def test_a_late_answer_is_as_good(primed: Any) -> None:
    """It is tried if it comes before that of the next server."""
    ahead(primed)
    primed.waits(0.5)

    assert primed.receives("s4", Model(2, v(-3)))[0].startswith("try step=2 at -3")
    assert primed.node.progress.missed == {}


def test_who_is_passed_over_is_asked_last(primed: Any) -> None:
    """Of those that are not, the (j + t + 1)th comes first: in step 3, of s1, s2 and s3, s2."""
    ahead(primed)
    primed.waits(0.5)
    primed.waits(0.5)
    primed.receives("s1", Model(2, v(-3)))
    primed.works(3)

    assert primed.node.step == 3
    assert primed.node._next == ["s3", "s1", "s4", "s5"]
    assert primed.node.waiting().lacking == ("s2",)


def test_nobody_is_waited_for_for_ever(primed: Any) -> None:
    """Each server is asked twice in turn, and then all at once."""
    ahead(primed)
    words = primed.waits(60)

    assert words[-1].startswith("send Pull step=0 to s1 s2 s3 s4 s5")
    assert primed.node.progress.fallbacks == 1
    assert primed.node.progress.missed == {}


def test_a_gather_step_takes_the_median_of_q_ps(primed: Any) -> None:
    """Every worker pulls from all the servers and takes M of the first n_ps - f_ps."""
    for step in (2, 3, 4):
        server = SERVERS[(step + 1) % 5]
        ahead(primed)
        primed.receives(server, Model(step, v(-step)))
        words = primed.works(2)

    assert words[-1] == "send Pull step=5 to s1 s2 s3 s4 s5"
    assert primed.hears(FOUR, Model(5, v(-5)))[-1].startswith("coordinate_median step=5")


def test_one_server_cannot_lead_a_worker_away(primed: Any) -> None:
    """A model of another step than was asked for sends it to the next server."""
    ahead(primed)

    assert primed.receives("s4", Model(999, v(0))) == ["send Pull step=2 to s5"]
    assert primed.node.step == 2


def test_a_worker_follows_where_f_ps_plus_1_servers_are(rounds: Any, worker: Make) -> None:
    """They are at different steps: it asks for the next one that all will come to."""
    w1 = worker(rounds)
    for server, step in {"s1": 7, "s2": 8, "s3": 7}.items():
        assert w1.receives(server, Model(step, v(0))) == []

    assert w1.receives("s4", Model(999, v(0))) == ["send Pull step=9 to s1 s2 s3 s4 s5"]
    assert w1.hears(FOUR[:3], Model(9, v(0))) == []
    assert w1.receives("s5", Model(9, v(0)))[0].startswith("coordinate_median step=9")


def test_one_liar_sends_nobody_away(rounds: Any, worker: Make) -> None:
    """While q_ps servers may still come to this step, a later one is no reason to leave it."""
    w1 = worker(rounds)
    w1.hears(("s1", "s2", "s3"), Model(0, v(0)))
    assert w1.receives("s5", Model(1, v(0))) == []

    assert w1.receives("s4", Model(0, v(0)))[0].startswith("coordinate_median step=0")


def test_in_the_end_it_follows_all_the_same(rounds: Any, worker: Make) -> None:
    """The one server that is missing may have gone on."""
    w1 = worker(rounds)
    w1.hears(("s1", "s2", "s3"), Model(0, v(0)))
    w1.receives("s5", Model(1, v(0)))

    assert w1.waits(1.0) == ["send Pull step=1 to s1 s2 s3 s4"]


def test_gradients_that_are_no_numbers_are_refused(primed: Any) -> None:
    """A model there is refused, and its coefficient says nothing of later ones."""
    ahead(primed)
    primed.receives("s4", Model(2, v(-3)))
    seen = list(primed.node._lipschitz._seen)

    assert primed.works(float("nan")) == ["send Pull step=2 to s5"]
    assert primed.node.progress.filtered == {("s4", "lipschitz"): 1}
    assert list(primed.node._lipschitz._seen) == seen


def test_gradients_of_before_the_servers_went_back(cluster: Make, worker: Make) -> None:
    """What is kept of later steps is of another life, and makes no room for what was sent since."""
    w1 = worker(cluster(variant="synchronous", servers=1, f_servers=0))
    for step in (*range(100, 110), *range(50, 53)):
        w1.node._models.reopen()
        w1.node._ask_all(step, w1.now)
        w1.receives("s1", Model(step, v(0)))
        while w1.work:
            w1.works(1)

    assert sorted(w1.node._kept) == [50, 51, 52]


def test_models_of_before_the_servers_went_back(cluster: Make, worker: Make) -> None:
    """They are no votes when the servers come to their steps again."""
    w1 = worker(cluster(variant="synchronous"))
    for step in (4, 5):
        w1.hears(FOUR, Model(step, v(0)))
        w1.works()
        w1.works(1)
    w1.hears(("s1", "s2"), Model(6, v(900)))
    w1.waits(7.0)
    for step in (4, 5):
        w1.hears(FOUR, Model(step, v(0)))
        while w1.work:
            w1.works(1)

    assert w1.hears(FOUR, Model(6, v(1)))[-1] == (
        "coordinate_median step=6 f=1: s1=1 s2=1 s3=1 s4=1"
    )


def test_a_gradient_is_sent_again(primed: Any) -> None:
    """To a server that asks for one since the last gather: it may be a whole period behind."""
    assert primed.receives("s2", Pull(1)) == ["send Gradient step=1 value=2 to s2"]
    assert primed.receives("s2", Pull(0)) == ["send Gradient step=0 value=1 to s2"]
    for step in (2, 3, 4):
        ahead(primed)
        primed.receives(SERVERS[(step + 1) % 5], Model(step, v(-step)))
        primed.works(2)
    primed.hears(FOUR, Model(5, v(-5)))
    primed.works()
    primed.works(2)

    assert primed.receives("s2", Pull(4)) == []
    assert primed.receives("s2", Pull(5)) == ["send Gradient step=5 value=2 to s2"]


def test_the_gradients_kept_are_few(cluster: Make, worker: Make) -> None:
    """However long the period is."""
    w1 = worker(cluster(variant="synchronous", servers=1, f_servers=0))
    for step in range(20):
        w1.receives("s1", Model(step, v(0)))
        while w1.work:
            w1.works(1)

    assert sorted(w1.node._kept) == list(range(20 - KEPT_MAX, 20))


def test_without_liars_among_servers_nothing_is_filtered(cluster: Make, worker: Make) -> None:
    """With f_ps = 0 any server's model will do, from the second step on."""
    w1 = worker(cluster(variant="synchronous", servers=2, f_servers=0, gather_period=50))
    w1.hears(["s1", "s2"], Model(0, v(0)))
    w1.works()
    w1.works(1)
    assert w1.node.waiting().lacking == ("s1",)

    assert w1.receives("s1", Model(1, v(900))) == ["gradient step=1 at 900 momentum=0.1 beta=0.9"]


def test_the_end(cluster: Make, worker: Make) -> None:
    """After the last gradient it is done, and still sends it to whoever has lost it."""
    w1 = worker(cluster(variant="synchronous", steps=1))
    w1.hears(FOUR, Model(0, v(0)))
    w1.works()
    w1.works(1)
    assert w1.node.done

    assert w1.receives("s1", Pull(0)) == ["send Gradient step=0 value=0.1 to s1"]


def test_after_the_end_the_servers_may_go_back(cluster: Make, worker: Make) -> None:
    """Once f_ps + 1 of them ask for earlier gradients it looks where they are."""
    w1 = worker(cluster(variant="synchronous", steps=2))
    for step in (0, 1):
        w1.hears(FOUR, Model(step, v(0)))
        w1.works()
        w1.works(1)
    assert w1.node.done
    w1.node._kept.clear()
    assert w1.receives("s1", *[Pull(0)] * 9) == []
    assert w1.receives("s2", Pull(0)) == ["send Pull step=0 to s1 s2 s3 s4 s5"]

    assert w1.hears(FOUR, Model(2, v(0))) == []
    assert w1.node.done
    assert w1.hears(("s1", "s3"), Pull(0)) == ["send Pull step=0 to s1 s2 s3 s4 s5"]
    assert w1.hears(FOUR, Model(0, v(0)))[-1].startswith("coordinate_median step=0")
