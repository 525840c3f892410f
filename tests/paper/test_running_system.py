"""What must also be true of a running system: seven guarantees."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from byzsgd.aggregation import coordinate_median
from byzsgd.errors import WireError
from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Model, Pull, Reason
from byzsgd.protocol.window import WINDOW_STEPS
from byzsgd.wire import Layout, decode, encode

Make = Callable[..., Any]
FOUR = ("s1", "s2", "s3", "s4")


def v(*coordinates: float) -> np.ndarray:
    return np.float32(coordinates)


# 1. One vote per identity.


def test_1_a_quorum_counts_identities(server: Make) -> None:
    """A quorum counts authenticated identities."""
    s1 = server()
    s1.receives("w1", *[Gradient(0, v(value)) for value in range(100)])

    assert s1.node.waiting().have == 1
    assert s1.work == []


def test_1_the_first_of_two_different_vectors_counts(server: Make) -> None:
    """A second, different vector from one identity in one step is equivocation.

    The first counts, the rest are refused and counted in a metric.
    """
    s1 = server()
    assert (
        s1.receives("w1", Gradient(0, v(1)), Gradient(0, v(900)), Gradient(0, v(901)))
        == ["refuse w1 step=0 equivocation"] * 2
    )
    assert s1.node.progress.refused == {("w1", Reason.EQUIVOCATION): 2}

    assert s1.hears(("w2", "w3"), Gradient(0, v(2))) == [
        "mda step=0 f=1: w1=1 w2=2 w3=2; from 0 at rate 1"
    ]


# 2. Nothing invalid votes.


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (v(1, 2), Reason.WRONG_LENGTH),
        (v(1, 2, 3, 4), Reason.WRONG_LENGTH),
        (v(1, np.nan, 3), Reason.NON_FINITE),
        (v(1, 2, np.inf), Reason.NON_FINITE),
        (v(-np.inf, 2, 3), Reason.NON_FINITE),
    ],
)
def test_2_no_invalid_vector_reaches_a_node(vector: np.ndarray, reason: Reason) -> None:
    """Wrong length, dtype or step, or a non-finite coordinate: refused, as if it had never come."""
    with pytest.raises(WireError) as refusal:
        decode(encode(Gradient(0, vector), bytes(8)), Layout(3))

    assert refusal.value.reason == reason


def test_2_a_vector_of_a_wrong_step_does_not_vote(server: Make) -> None:
    """Wrong step: refused, counted by reason and peer."""
    s1 = server(step=9)

    assert s1.receives("w1", Gradient(8, v(1)), Gradient(7, v(1)), Gradient(10, v(1))) == [
        "refuse w1 step=8 late",
        "refuse w1 step=7 stale",
    ]
    assert s1.node.progress.refused == {("w1", Reason.LATE): 1, ("w1", Reason.STALE): 1}
    assert s1.node.waiting().have == 0


# 3. Memory is bounded.


def test_3_memory_is_bounded_whatever_the_peers_send(cluster: Make, server: Make) -> None:
    """At most one vector per identity for each step of a short window ahead."""
    s1 = server()
    shared = cluster()
    for step in range(10 * WINDOW_STEPS):
        s1.hears(shared.workers, Gradient(step, v(step)))
        s1.hears(("s5",), GatherModel(step, v(step)))
        s1.hears(("s5",), Model(step, v(step)))

    assert s1.node._gradients.held <= WINDOW_STEPS * shared.n_workers
    assert s1.node._models.held <= WINDOW_STEPS * shared.n_servers
    assert len(s1.node._catch_up.models) < shared.n_servers


def test_3_older_ones_are_dropped(server: Make) -> None:
    """Older ones dropped: what a step is over for leaves nothing behind."""
    s1 = server()
    s1.hears(("w1", "w2", "w3"), Gradient(0, v(1)))

    assert s1.node._gradients.held == 0


def test_3_a_flooding_peer_takes_nobody_s_room(worker: Make) -> None:
    """One liar's models for a thousand steps push out no model of a correct server."""
    w1 = worker()
    w1.hears(("s1", "s2", "s3"), Model(0, v(1)))
    for step in range(1, 1000):
        w1.receives("s5", Model(step, v(900)))

    assert w1.receives("s4", Model(0, v(1))) == [
        "coordinate_median step=0 f=1: s1=1 s2=1 s3=1 s4=1"
    ]


# 4. Progress through loss and restarts.


def test_4_a_node_that_waits_too_long_pulls(server: Make, worker: Make) -> None:
    """A node that has waited too long asks the peers it still lacks for what it lacks."""
    s1, w1 = server(), worker()
    s1.receives("w2", Gradient(0, v(1)))
    w1.receives("s2", Model(0, v(1)))

    assert s1.waits(1.0)[0] == "send Pull step=0 to w1 w3 w4"
    assert w1.waits(1.0)[0] == "send Pull step=0 to s1 s3 s4 s5"


def test_4_a_gradient_asked_for_again_is_sent_again(cluster: Make, worker: Make) -> None:
    """A worker asked again for a gradient it has sent sends it again."""
    w1 = worker(cluster(worker_momentum=0.5))
    w1.hears(FOUR, Model(0, v(1)))
    w1.works()

    assert w1.works(gradient=8) == ["send Gradient step=0 value=4 to s1 s2 s3 s4 s5"]
    assert w1.receives("s3", Pull(0), Pull(0)) == ["send Gradient step=0 value=4 to s3"] * 2


# 5. A slow worker skips.


def test_5_a_slow_worker_skips(worker: Make) -> None:
    """It works on the newest step for which it holds q_ps models."""
    w1 = worker()
    w1.hears(FOUR, Model(0, v(0)))
    w1.works()
    w1.hears(FOUR, Model(1, v(1)))
    w1.hears(FOUR, Model(2, v(2)))
    w1.hears(FOUR[:3], Model(3, v(3)))

    assert w1.works()[-1] == "coordinate_median step=2 f=1: s1=2 s2=2 s3=2 s4=2"


# 6. A server that fell behind or restarts.


def test_6_a_server_starts_from_its_checkpoint(server: Make) -> None:
    """It starts from its last checkpoint (or theta_0)."""
    assert server(step=40, value=7).started == ["publish Model step=40 value=7"]
    assert server(value=7).started == ["publish Model step=0 value=7"]


def test_6_a_server_adopts_the_median_of_its_peers_models(server: Make) -> None:
    """When it holds q_ps - 1 peers' models of one later gather step, it adopts M of those.

    Of those alone: its own model may be theta_0.
    """
    s1 = server()
    s1.hears(("s2", "s3"), GatherModel(9, v(6)))
    assert s1.work == []

    assert s1.receives("s4", GatherModel(9, v(8))) == [
        "coordinate_median step=9 f=1: s2=6 s3=6 s4=8"
    ]
    assert s1.works()[-1] == "publish Model step=9 value=6"
    assert s1.node.step == 9


def test_6_what_is_adopted_lies_within_the_range_of_correct_values(server: Make) -> None:
    """With at most f_ps liars among q_ps >= 2 f_ps + 2 that lies within the correct range."""
    for lie, step in product((-1e30, 1e30), (0, 9, STEP_MAX)):
        s1 = server(value=2)
        s1.receives("s5", Model(step, v(lie)))
        s1.receives("s2", Model(9, v(4)))
        s1.receives("s3", Model(9, v(5)))
        s1.works()

        assert 2 <= s1.node.vector.item() <= 5
        assert s1.node.step == 9


# 7. Leaving with the model.


def test_7_servers_are_asked_for_the_same_gather_step(server: Make) -> None:
    """A client that wants the trained model asks every server for the same gather step."""
    behind = server(identity="s1", value=0)
    assert behind.receives("op", Pull(1)) == []
    behind.hears(("w1", "w2", "w3"), Gradient(0, v(-1)))
    behind.works()
    behind.hears(("s2", "s3", "s4"), GatherModel(1, v(1)))
    there = server(identity="s2", step=1, value=1)

    assert behind.works()[-1] == "send Model step=1 value=1 to op"
    assert there.receives("op", Pull(1)) == ["send Model step=1 value=1 to op"]


def test_7_no_single_server_is_believed() -> None:
    """And takes M of q_ps answers: no single server is believed, then either."""
    answers = np.float32([[1], [1.5], [2], [900]])

    assert 1 <= coordinate_median(answers, 1).item() <= 2
