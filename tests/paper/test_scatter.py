"""Asynchronous ByzSGD: scatter, step t."""

from collections.abc import Callable
from typing import Any

import numpy as np

from byzsgd.messages import Gradient, Model
from byzsgd.tasks.quadratic import quadratic

Make = Callable[..., Any]


def v(value: float) -> np.ndarray:
    return np.float32([value])


def test_every_server_starts_from_the_same_model(cluster: Make) -> None:
    """Every correct server starts from the same theta_0, built with the cluster's seed."""
    seed = cluster().seed

    assert quadratic().initial(seed).tobytes() == quadratic().initial(seed).tobytes()
    assert quadratic().initial(seed).tobytes() != quadratic().initial(seed + 1).tobytes()


def test_scatter_1(server: Make) -> None:
    """1. every server broadcasts theta_t to every worker."""
    s1 = server(step=7, value=5)

    assert s1.started == ["publish Model step=7 value=5"]


def test_scatter_2_a_worker_waits_for_q_ps_models(worker: Make) -> None:
    """2. a worker waits for the first q_ps models of step t (one per server identity)."""
    w1 = worker()

    assert w1.hears(("s1", "s1", "s1", "s2", "s3"), Model(7, v(1)))[2:] == []
    assert w1.receives("s4", Model(8, v(1))) == []
    assert w1.receives("s5", Model(7, v(1))) == [
        "coordinate_median step=7 f=1: s1=1 s2=1 s3=1 s5=1"
    ]


def test_scatter_2_a_worker_computes_its_gradient_at_the_median(worker: Make) -> None:
    """2. it takes M of them, computes its stochastic gradient there."""
    w1 = worker()
    for peer, value in {"s1": 1, "s2": 3, "s3": 5, "s4": -900}.items():
        w1.receives(peer, Model(7, v(value)))

    assert w1.works() == ["gradient step=7 at 2 momentum=none beta=0.9"]


def test_scatter_2_a_worker_sends_its_gradient_to_every_server(cluster: Make, worker: Make) -> None:
    """2. and sends the gradient, labelled t, to every server."""
    w1 = worker(cluster(worker_momentum=0))
    w1.hears(("s1", "s2", "s3", "s4"), Model(7, v(0)))
    w1.works()

    assert w1.works(gradient=4) == ["send Gradient step=7 value=4 to s1 s2 s3 s4 s5"]


def test_scatter_3_a_server_waits_for_q_w_gradients(server: Make) -> None:
    """3. a server waits for the first q_w gradients of step t (one per worker identity)."""
    s1 = server(step=7)

    assert s1.hears(("w1", "w1", "w1", "w2"), Gradient(7, v(1)))[2:] == []
    assert s1.receives("w3", Gradient(8, v(1))) == []
    assert s1.receives("w4", Gradient(7, v(1))) == [
        "mda step=7 f=1: w1=1 w2=1 w4=1; from 0 at rate 1"
    ]


def test_scatter_3_a_server_updates_its_model(cluster: Make, server: Make) -> None:
    """3. and sets theta_{t+1} = theta_t - eta_t * F(gradients)."""
    s1 = server(cluster(learning_rate=0.5, gather_period=2), value=10)
    for peer, value in {"w1": 2, "w2": 4, "w3": 900}.items():
        s1.receives(peer, Gradient(0, v(value)))

    assert s1.works() == ["publish Model step=1 value=8.5"]


def test_a_scatter_step_has_the_rounds_of_a_vanilla_server(cluster: Make, server: Make) -> None:
    """A scatter step has exactly the rounds of a non-Byzantine parameter server."""
    vanilla = cluster(servers=1, f_servers=0, workers=3, f_workers=0, gather_period=2)
    resilient = cluster(gather_period=2)

    for s1 in (server(vanilla), server(resilient)):
        assert s1.hears(("w1", "w2"), Gradient(0, v(-1))) == []
        assert len(s1.receives("w3", Gradient(0, v(-1)))) == 1
        assert s1.works() == ["publish Model step=1 value=1"]


def test_worker_momentum(cluster: Make, worker: Make) -> None:
    """What a worker sends is m = beta * m + (1 - beta) * g, zero at the start."""
    w1 = worker(cluster(worker_momentum=0.75))
    sent = []
    for step in (0, 1, 2):
        w1.hears(("s1", "s2", "s3", "s4"), Model(step, v(0)))
        w1.works()
        sent.append(w1.works(gradient=64)[0].split()[3])

    assert sent == ["value=16", "value=28", "value=37"]
