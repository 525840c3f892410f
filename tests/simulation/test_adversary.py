"""The liars of a cluster, who share all that any of them sees."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import make
from byzsgd.cluster import Cluster, Role
from byzsgd.messages import GatherModel, Gradient, Hello, Message, Model, Pull
from byzsgd.protocol import PeerConnected, Received, Send
from byzsgd.simulation.adversary import STEPS_KEPT, Coalition, Order

CORRECT_WORKERS = ("w2", "w3", "w4")


@pytest.fixture
def coalition(cluster: Callable[..., Cluster]) -> Coalition:
    """s1 and w1 of the usual cluster, who flip signs, in models gathered every other step."""
    return Coalition(
        cluster(gather_period=2),
        ["w1", "s1"],
        worker_attack=make("sign-flip", Role.WORKER, scale=1.0),
        server_attack=make("sign-flip", Role.SERVER, scale=1.0),
    )


def said(orders: list[Order]) -> list[tuple[str, str, str, int, float]]:
    """Who tells whom what, in plain values."""
    told = []
    for liar, effect in orders:
        assert isinstance(effect, Send)
        message = effect.message
        assert isinstance(message, Model | GatherModel | Gradient)
        value = float(message.vector[0])
        told += [(liar, peer, type(message).__name__, message.step, value) for peer in effect.peers]
    return told


def gradient(step: int, value: float) -> Message:
    return Gradient(step, np.float32([value]))


def test_workers_lie_once_enough_is_known(coalition: Coalition) -> None:
    """Once all correct gradients of a step are known, lies go out for it and for the next."""
    assert coalition.overhear("w2", gradient(0, 1)) == []
    assert coalition.overhear("w3", gradient(0, 2)) == []
    told = said(coalition.overhear("w4", gradient(0, 3)))

    assert told == [
        ("w1", server, "Gradient", step, -2.0)
        for step in (0, 1)
        for server in ("s2", "s3", "s4", "s5")
    ]


def test_no_step_is_lied_about_twice(coalition: Coalition) -> None:
    """The next step's gradients call forth lies for the one after it alone."""
    for step in (0, 1):
        orders = [o for w in CORRECT_WORKERS for o in coalition.overhear(w, gradient(step, 1))]

    assert {message[3] for message in said(orders)} == {2}


def test_servers_lie_ahead(coalition: Coalition) -> None:
    """One correct model is enough: workers are told models, servers votes where they gather."""
    told = said(coalition.overhear("s2", Model(0, np.float32([4]))))

    assert {(peer, kind, step) for _, peer, kind, step, _ in told} == {
        (worker, "Model", step) for worker in CORRECT_WORKERS for step in (0, 1)
    }
    assert {value for *_, value in told} == {-4.0}
    told = said(coalition.overhear("s3", Model(1, np.float32([5]))))
    assert {(peer, kind, step) for _, peer, kind, step, _ in told} == {
        *((worker, "Model", 2) for worker in CORRECT_WORKERS),
        *((server, "GatherModel", 2) for server in ("s2", "s3", "s4", "s5")),
    }


def test_liars_learn_nothing_from_one_another(coalition: Coalition) -> None:
    """What liars say is nothing that a lie is forged from."""
    assert coalition.overhear("s1", Model(0, np.float32([4]))) == []
    for _ in range(5):
        assert coalition.overhear("w1", gradient(0, 1)) == []


def test_a_gradient_of_long_ago(coalition: Coalition) -> None:
    """Late gradients of steps that were forgotten call forth nothing, and break nothing."""
    coalition.overhear("w2", gradient(STEPS_KEPT, 1))
    orders = [
        o for _ in range(3) for w in CORRECT_WORKERS for o in coalition.overhear(w, gradient(0, 1))
    ]

    assert orders == []


def test_pulls_are_answered_with_lies(coalition: Coalition) -> None:
    """Who pulls from a lying server is told the newest lie."""
    assert coalition.handle("s1", Received("w2", Pull(0))) == []
    coalition.overhear("s2", Model(0, np.float32([4])))

    assert said(coalition.handle("s1", Received("w2", Pull(0)))) == [("s1", "w2", "Model", 1, -4.0)]
    assert said(coalition.handle("s1", Received("s3", Pull(8)))) == [
        ("s1", "s3", "GatherModel", 8, -4.0)
    ]
    assert said(coalition.handle("s1", Received("op", Pull(0)))) == [("s1", "op", "Model", 1, -4.0)]


def test_lost_lies_are_told_again(coalition: Coalition) -> None:
    """A server that asks a lying worker for a gradient is told the same lie again."""
    assert coalition.handle("w1", Received("s2", Pull(0))) == []
    for worker in CORRECT_WORKERS:
        coalition.overhear(worker, gradient(0, 1))

    assert said(coalition.handle("w1", Received("s2", Pull(1)))) == [
        ("w1", "s2", "Gradient", 1, -1.0)
    ]
    assert coalition.handle("w1", Received("s2", Pull(7))) == []


def test_liars_greet(coalition: Coalition, cluster: Callable[..., Cluster]) -> None:
    """Liars show the right cluster file, so that they are heard."""
    digests = cluster(gather_period=2).digests()
    greeted = coalition.handle("w1", PeerConnected("s2"))
    answered = coalition.handle("s1", Received("s2", Hello(3, digests)))

    assert greeted == [("w1", Send(("s2",), Hello(0, digests))), ("w1", Send(("s2",), Pull(0)))]
    assert answered == [("s1", Send(("s2",), Hello(0, digests, reply=True)))]
    assert coalition.handle("s1", Received("s2", Hello(3, digests, reply=True))) == []


def test_an_oracle(cluster: Callable[..., Cluster]) -> None:
    """Lying workers that no server helps forge from what an oracle says of correct gradients."""
    coalition = Coalition(
        cluster(),
        ["w1"],
        worker_attack=make("sign-flip", Role.WORKER, scale=1.0),
        oracle=lambda step, model: {w: model + np.float32(step) for w in CORRECT_WORKERS},
    )
    told = said(coalition.handle("w1", Received("s1", Model(7, np.float32([1])))))

    assert {(kind, step, value) for _, _, kind, step, value in told} == {
        ("Gradient", 7, -8.0),
        ("Gradient", 8, -8.0),
    }


def test_silence(cluster: Callable[..., Cluster]) -> None:
    """Liars without an attack say nothing but hello."""
    coalition = Coalition(cluster(), ["s1", "w1"])
    orders = [o for w in CORRECT_WORKERS for o in coalition.overhear(w, gradient(0, 1))]
    orders += coalition.overhear("s2", Model(0, np.float32([4])))

    assert orders == []
    assert coalition.handle("s1", Received("w2", Pull(0))) == []
