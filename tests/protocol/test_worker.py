"""A correct worker: events in, effects out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import STEP_MAX, Model, Pull

Make = Callable[..., Any]
FOUR = ("s1", "s2", "s3", "s4")
ALL = (*FOUR, "s5")


def v(value: float) -> np.ndarray:
    return np.float32([value])


def work(w1: Any, step: int, gradient: float = 1, value: float = 0) -> list[str]:
    """Bring a worker through a step."""
    w1.hears(FOUR, Model(step, v(value)))
    w1.works()
    return w1.works(gradient)


@pytest.fixture
def w1(worker: Make) -> Any:
    return worker()


@pytest.fixture
def plain(cluster: Make, worker: Make) -> Any:
    """A worker without momentum, so that it sends its gradients as they are."""
    return worker(cluster(worker_momentum=0))


# A step


def test_a_worker_starts_by_waiting(w1: Any) -> None:
    """Models come by themselves."""
    assert w1.started == []
    assert w1.node.sentence(0) == (
        "waits for 4 of 4 models of step 0: s1 (never seen), s2 (never seen), "
        "s3 (never seen), s4 (never seen), s5 (never seen)"
    )


def test_the_median_of_the_first_q_ps_models_is_taken(w1: Any) -> None:
    """Not one before, ordered by identity whoever came first."""
    assert w1.receives("s5", Model(0, v(5))) == []
    assert w1.receives("s4", Model(0, v(4))) == []
    assert w1.receives("s1", Model(0, v(1))) == []
    assert w1.receives("s3", Model(0, v(3))) == [
        "coordinate_median step=0 f=1: s1=1 s3=3 s4=4 s5=5"
    ]
    assert w1.node.sentence(0) == "median at step 0"


def test_of_models_f_ps_are_byzantine(cluster: Make, worker: Make) -> None:
    """The median's f is that of the servers, whatever f_w may be."""
    w1 = worker(cluster(servers=5, f_servers=1, workers=7, f_workers=2))

    assert w1.hears(FOUR, Model(0, v(1))) == ["coordinate_median step=0 f=1: s1=1 s2=1 s3=1 s4=1"]


def test_the_gradient_is_computed_at_the_median(w1: Any) -> None:
    """An even count takes the mean of the two middles; momentum begins with nothing."""
    for peer, value in {"s1": 1, "s2": 2, "s3": 4, "s4": 900}.items():
        w1.receives(peer, Model(0, v(value)))

    assert w1.works() == ["gradient step=0 at 3 momentum=none beta=0.9"]
    assert w1.node.sentence(0) == "gradient at step 0"


def test_the_gradient_is_sent_to_every_server(plain: Any) -> None:
    """Labelled with the step of the models, also to those that were not in the quorum."""
    assert work(plain, 7, gradient=3) == ["send Gradient step=7 value=3 to s1 s2 s3 s4 s5"]
    assert plain.node.phase() == "wait"
    assert plain.node.progress.steps == 1


def test_one_server_votes_once(w1: Any) -> None:
    """A server that speaks four times is not a quorum."""
    assert w1.receives("s1", *[Model(0, v(value)) for value in (1, 1, 2, 3)]) == [
        "refuse s1 step=0 duplicate",
        "refuse s1 step=0 equivocation",
        "refuse s1 step=0 equivocation",
    ]
    assert w1.node.waiting().have == 1


def test_models_of_different_steps_are_no_quorum(w1: Any) -> None:
    """A worker waits for models of one step."""
    for step, peer in enumerate(ALL):
        assert w1.receives(peer, Model(step, v(1))) == []


def test_a_model_after_the_quorum_is_late_and_then_stale(w1: Any) -> None:
    """What comes after the q_ps-th model changes nothing."""
    w1.hears(FOUR, Model(3, v(1)))

    assert w1.receives("s5", Model(3, v(9))) == ["refuse s5 step=3 late"]
    assert w1.receives("s5", Model(2, v(9))) == ["refuse s5 step=2 stale"]


def test_loss_and_time_of_a_gradient_are_kept(w1: Any) -> None:
    """For those who watch."""
    work(w1, 0)

    assert w1.node.progress.loss == 0
    assert sum(w1.node.progress.work["gradient"].counts) == 1
    assert sum(w1.node.progress.work["coordinate_median"].counts) == 1


# Momentum


def test_momentum_is_what_was_sent_last(cluster: Make, worker: Make) -> None:
    """What is sent is m = beta * m + (1 - beta) * g, step after step."""
    w1 = worker(cluster(worker_momentum=0.5))

    assert work(w1, 0, gradient=8) == ["send Gradient step=0 value=4 to s1 s2 s3 s4 s5"]
    w1.hears(FOUR, Model(1, v(7)))
    assert w1.works() == ["gradient step=1 at 7 momentum=4 beta=0.5"]
    assert w1.works(8) == ["send Gradient step=1 value=6 to s1 s2 s3 s4 s5"]


def test_sending_again_applies_no_momentum(cluster: Make, worker: Make) -> None:
    """A gradient asked for again is the same vector, and the next one builds on it once."""
    w1 = worker(cluster(worker_momentum=0.5))
    work(w1, 0, gradient=8)
    for _ in range(3):
        assert w1.receives("s2", Pull(0)) == ["send Gradient step=0 value=4 to s2"]

    assert work(w1, 1, gradient=8) == ["send Gradient step=1 value=6 to s1 s2 s3 s4 s5"]


# Skipping


def test_a_slow_worker_skips(plain: Any) -> None:
    """It works on the newest step for which it holds q_ps models."""
    plain.hears(FOUR, Model(0, v(0)))
    plain.works()
    for step in (1, 2, 3):
        assert plain.hears(FOUR, Model(step, v(step))) == []

    assert plain.works(5) == [
        "send Gradient step=0 value=5 to s1 s2 s3 s4 s5",
        "coordinate_median step=3 f=1: s1=3 s2=3 s3=3 s4=3",
    ]
    assert plain.node.progress.skipped == 2


def test_a_newer_step_with_too_few_models_does_not_tempt_a_worker(plain: Any) -> None:
    """f_ps servers that run ahead pull nobody along."""
    plain.hears(FOUR, Model(0, v(0)))
    plain.works()
    plain.hears(FOUR, Model(1, v(1)))
    plain.receives("s5", Model(STEP_MAX, v(900)))

    assert plain.works(5)[-1] == "coordinate_median step=1 f=1: s1=1 s2=1 s3=1 s4=1"
    assert plain.node.progress.skipped == 0


def test_a_worker_that_joins_late_skips_nothing(w1: Any) -> None:
    """Its first step is its first, whatever its number."""
    work(w1, 40)

    assert w1.node.progress.skipped == 0


# Waiting too long


def test_late_models_are_pulled_from_those_who_lack(w1: Any) -> None:
    """For the step where most models are there, and of no step that is over."""
    work(w1, 4)
    w1.receives("s2", Model(5, v(1)))
    w1.receives("s4", Model(5, v(1)))
    w1.receives("s5", Model(900, v(1)))

    assert w1.waits(0.99) == []
    assert w1.waits(0.01) == ["send Pull step=5 to s1 s3 s5"]


def test_a_server_that_connects_is_asked_for_its_model(w1: Any) -> None:
    """Who comes late need not wait for the next step; a worker at work asks nobody."""
    assert w1.connects("s2") == ["send Hello step=0 to s2", "send Pull step=0 to s2"]

    work(w1, 4)
    assert w1.connects("s2") == ["send Hello step=4 to s2", "send Pull step=5 to s2"]

    w1.hears(FOUR, Model(5, v(1)))
    assert w1.connects("s2") == ["send Hello step=5 to s2"]


def test_a_worker_at_work_has_no_deadline(w1: Any) -> None:
    """Neither while it takes a median nor while it computes a gradient."""
    w1.hears(FOUR, Model(0, v(1)))
    assert w1.waits(100) == []
    w1.works()
    assert w1.waits(100) == []


def test_only_the_gradient_that_was_asked_for_is_sent_again(plain: Any) -> None:
    """To the server that asks, and of the last step alone."""
    assert plain.receives("s2", Pull(0)) == []
    work(plain, 3, gradient=5)

    assert plain.receives("s2", Pull(3)) == ["send Gradient step=3 value=5 to s2"]
    assert plain.receives("s2", Pull(2)) == []
    assert plain.receives("s2", Pull(4)) == []


def test_a_gradient_can_be_asked_for_while_the_next_is_computed(plain: Any) -> None:
    """The last one is kept until there is another."""
    work(plain, 3, gradient=5)
    plain.hears(FOUR, Model(4, v(0)))
    assert plain.receives("s2", Pull(3)) == ["send Gradient step=3 value=5 to s2"]
    plain.works()
    assert plain.receives("s2", Pull(3)) == ["send Gradient step=3 value=5 to s2"]
    plain.works(6)
    assert plain.receives("s2", Pull(3)) == []


# Servers that went back


def test_after_two_pulls_in_vain_models_of_any_step_are_taken(plain: Any) -> None:
    """The servers may have restarted from checkpoints of earlier steps."""
    work(plain, 40, gradient=5)
    assert plain.receives("s1", Model(20, v(1))) == ["refuse s1 step=20 stale"]
    assert plain.waits(3.0) == ["send Pull step=41 to s1 s2 s3 s4 s5"] * 2
    assert plain.receives("s1", Model(20, v(1))) == ["refuse s1 step=20 stale"]
    assert plain.waits(4.0) == ["send Pull step=0 to s1 s2 s3 s4 s5"]

    assert plain.hears(FOUR, Model(20, v(1))) == [
        "coordinate_median step=20 f=1: s1=1 s2=1 s3=1 s4=1"
    ]
    assert plain.works() == ["gradient step=20 at 1 momentum=5 beta=0"]
    assert plain.works(6) == ["send Gradient step=20 value=6 to s1 s2 s3 s4 s5"]
    assert plain.receives("s1", Model(19, v(1))) == ["refuse s1 step=19 stale"]
    assert plain.node.progress.skipped == 0


def test_models_of_the_life_before_do_not_count(plain: Any) -> None:
    """What servers said of later steps before they went back is no vote when they come there."""
    work(plain, 40, gradient=5)
    plain.hears(("s1", "s2"), Model(41, v(900)))
    plain.waits(7.0)
    work(plain, 39, gradient=6)
    work(plain, 40, gradient=6)

    assert plain.hears(FOUR, Model(41, v(1))) == [
        "coordinate_median step=41 f=1: s1=1 s2=1 s3=1 s4=1"
    ]


def test_after_two_pulls_in_vain_every_server_is_asked(w1: Any) -> None:
    """Also those whose models are here: they may have gone on since, or gone back."""
    w1.hears(("s2", "s4"), Model(0, v(1)))

    assert w1.waits(3.0) == ["send Pull step=0 to s1 s3 s5"] * 2
    assert w1.waits(4.0) == ["send Pull step=0 to s1 s2 s3 s4 s5"]


def test_servers_that_are_still_there_get_the_gradient_again(plain: Any) -> None:
    """Models of the step just done say that the gradient was lost on its way: no second work."""
    work(plain, 3, gradient=5)
    plain.waits(7.0)

    assert plain.hears(FOUR, Model(3, v(0))) == ["send Gradient step=3 value=5 to s1 s2 s3 s4 s5"]
    assert plain.node.progress.steps == 1
    assert plain.node.phase() == "wait"

    assert plain.waits(8.0) == ["send Pull step=0 to s1 s2 s3 s4 s5"]
    assert plain.hears(FOUR, Model(3, v(0))) == ["send Gradient step=3 value=5 to s1 s2 s3 s4 s5"]


def test_the_step_after_counts_as_ever(plain: Any) -> None:
    """A worker that sent its gradient again goes on when the servers do."""
    work(plain, 3, gradient=5)
    plain.waits(7.0)
    plain.hears(FOUR, Model(3, v(0)))

    assert plain.hears(FOUR, Model(4, v(1))) == [
        "coordinate_median step=4 f=1: s1=1 s2=1 s3=1 s4=1"
    ]


# The end


def test_models_of_the_last_step_end_the_training(cluster: Make, worker: Make) -> None:
    """There is no gradient to compute any more, and nothing to wait for."""
    w1 = worker(cluster(steps=3, worker_momentum=0))
    work(w1, 2, gradient=5)

    assert w1.hears(FOUR, Model(3, v(1))) == []
    assert w1.node.done
    assert w1.node.sentence(0) == "done at step 3"
    assert w1.waits(100) == []


def test_a_worker_that_is_done_goes_on_answering(cluster: Make, worker: Make) -> None:
    """A server that lacks its last gradient gets it."""
    w1 = worker(cluster(steps=3, worker_momentum=0))
    work(w1, 2, gradient=5)
    w1.hears(FOUR, Model(3, v(1)))

    assert w1.receives("s5", Pull(2)) == ["send Gradient step=2 value=5 to s5"]
    assert w1.receives("s5", Model(3, v(1))) == []
    assert w1.connects("s5") == ["send Hello step=3 to s5"]
    assert w1.node.done


def test_a_worker_that_is_done_takes_up_work_again(cluster: Make, worker: Make) -> None:
    """All servers restarted from checkpoints of an earlier step: there is more to do."""
    w1 = worker(cluster(steps=3, worker_momentum=0))
    work(w1, 2, gradient=5)
    w1.hears(FOUR, Model(3, v(1)))
    assert w1.node.done

    words = w1.hears(FOUR, Model(1, v(7)))

    assert words == ["coordinate_median step=1 f=1: s1=7 s2=7 s3=7 s4=7"]
    assert not w1.node.done


def test_who_is_done_never_turns_deaf(cluster: Make, worker: Make) -> None:
    """The servers restarted one step before the end, and then still earlier."""
    w1 = worker(cluster(steps=3, worker_momentum=0))
    work(w1, 2, gradient=5)
    w1.hears(FOUR, Model(3, v(1)))
    assert w1.hears(FOUR, Model(2, v(0))) == ["send Gradient step=2 value=5 to s1 s2 s3 s4 s5"]

    assert w1.hears(FOUR, Model(1, v(7))) == ["coordinate_median step=1 f=1: s1=7 s2=7 s3=7 s4=7"]


def test_one_server_cannot_end_the_training(cluster: Make, worker: Make) -> None:
    """f_ps servers that say the last step is reached are not believed."""
    w1 = worker(cluster(steps=3))

    assert w1.receives("s1", Model(3, v(900)), Model(4, v(900))) == []
    assert not w1.node.done


def test_a_lone_server_s_model_is_the_median(cluster: Make, worker: Make) -> None:
    """One trusted server: its model is taken as it is."""
    w1 = worker(cluster(servers=1, f_servers=0, worker_momentum=0))

    assert w1.receives("s1", Model(0, v(3))) == ["coordinate_median step=0 f=0: s1=3"]
    assert w1.works() == ["gradient step=0 at 3 momentum=none beta=0"]
    assert w1.works(2) == ["send Gradient step=0 value=2 to s1"]
