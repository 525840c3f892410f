"""The liars of a cluster, who share all that any of them sees."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.aggregation import coordinate_median, krum, mda
from byzsgd.attacks import Attack, View, make
from byzsgd.attacks.attack import SERVERS, WORKERS
from byzsgd.cluster import Cluster, Role
from byzsgd.errors import ConfigError
from byzsgd.messages import GatherModel, Gradient, Hello, Message, Model, Pull
from byzsgd.protocol import PeerConnected, Received, Send
from byzsgd.simulation import Timing
from byzsgd.simulation.adversary import Coalition
from byzsgd.simulation.sight import STEPS_KEPT
from byzsgd.simulation.timing import FAR, Order
from byzsgd.vectors import Vector

CORRECT_WORKERS = ("w2", "w3", "w4")
CORRECT_SERVERS = ("s2", "s3", "s4", "s5")


@pytest.fixture
def conspire(cluster: Callable[..., Cluster]) -> Callable[..., Coalition]:
    """Gathers s1 and w1 of the usual cluster, who flip signs; models are gathered every 2 steps."""

    def gather(
        *liars: str,
        timing: Timing = Timing.EARLY,
        worker_attack: str = "sign-flip",
        scale: float = 1.0,
        **changes: object,
    ) -> Coalition:
        flips = {"scale": scale} if worker_attack == "sign-flip" else {}
        return Coalition(
            cluster(**{"gather_period": 2, **changes}),
            liars or ("w1", "s1"),
            worker_attack=make(worker_attack, Role.WORKER, **flips),
            server_attack=make("sign-flip", Role.SERVER, scale=scale),
            timing=timing,
        )

    return gather


@pytest.fixture
def coalition(conspire: Callable[..., Coalition]) -> Coalition:
    """s1 and w1 of the usual cluster, who flip signs, in models gathered every other step."""
    return conspire()


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


def asked(orders: list[Order]) -> list[tuple[str, str, int]]:
    """Who pulls which step from whom."""
    pulls = []
    for liar, effect in orders:
        if isinstance(effect, Send) and isinstance(effect.message, Pull):
            pulls += [(liar, peer, effect.message.step) for peer in effect.peers]
    return pulls


def lies(orders: list[Order]) -> list[Order]:
    """Orders without the pulls."""
    return [o for o in orders if not (isinstance(o[1], Send) and isinstance(o[1].message, Pull))]


def gradient(step: int, value: float) -> Message:
    return Gradient(step, np.float32([value]))


def model(step: int, value: float) -> Message:
    return Model(step, np.float32([value]))


def votes(step: int, value: float) -> Message:
    return GatherModel(step, np.float32([value]))


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


# Who needs to see what


@pytest.mark.parametrize("attack", ["random", "nan", "zero", "huge"])
def test_who_needs_no_sight(attack: str, conspire: Callable[..., Coalition]) -> None:
    """Lying workers who need not see gradients lie as soon as they see a model."""
    coalition = conspire("w1", worker_attack=attack)
    told = said(coalition.handle("w1", Received("s2", model(4, 3.0))))

    assert [message[:4] for message in told] == [
        ("w1", server, "Gradient", step) for step in (4, 5) for server in ("s1", *CORRECT_SERVERS)
    ]


def test_who_needs_sight(conspire: Callable[..., Coalition]) -> None:
    """Who must see gradients and has neither server nor oracle says nothing about models."""
    coalition = conspire("w1")

    assert coalition.handle("w1", Received("s2", model(4, 3.0))) == []


def test_flipped_labels(cluster: Callable[..., Cluster]) -> None:
    """Label-flip takes its gradient at the newest model, once for each step, in order."""
    steps: list[tuple[int, float]] = []

    def flipped(step: int, vector: Vector) -> Vector:
        steps.append((step, float(vector[0])))
        return vector * np.float32(10)

    coalition = Coalition(
        cluster(), ["w1"], worker_attack=make("label-flip", Role.WORKER), flipped=flipped
    )
    told = []
    for step in (0, 1):
        for server in ("s1", "s2"):
            told += said(coalition.handle("w1", Received(server, model(step, step + 2.0))))

    assert {(kind, step, value) for _, _, kind, step, value in told} == {
        ("Gradient", 0, 20.0),
        ("Gradient", 1, 20.0),
        ("Gradient", 2, 30.0),
    }
    assert steps == [(0, 2.0), (1, 2.0), (2, 3.0)]


def test_no_labels_to_flip(cluster: Callable[..., Cluster]) -> None:
    """Label-flip without a task whose labels can be flipped is refused at once."""
    with pytest.raises(ConfigError, match="label-flip"):
        Coalition(cluster(), ["w1"], worker_attack=make("label-flip", Role.WORKER))


class Spy(Attack):
    """Lies 7, and keeps what it saw."""

    __slots__ = ("pasts", "views")
    roles = WORKERS | SERVERS

    def __init__(self) -> None:
        object.__setattr__(self, "views", [])
        object.__setattr__(self, "pasts", [])

    def forge(self, view: View, receiver: str) -> Vector:
        self.views.append(view)
        self.pasts.append(float(view.past(1)[0]))
        return np.float32([7])


@pytest.mark.parametrize("rule", ["mda", "krum"])
def test_what_an_attack_knows(rule: str, cluster: Callable[..., Cluster]) -> None:
    """Workers' lies are tried on the cluster's rule, servers' on the median; quorums are known."""
    workers, servers = Spy(), Spy()
    coalition = Coalition(
        cluster(workers=7, f_workers=2, rule=rule, seed=5),
        ["w1", "w2", "s1"],
        worker_attack=workers,
        server_attack=servers,
    )
    for number in range(3, 8):
        coalition.overhear(f"w{number}", gradient(0, number))
    for number in range(2, 6):
        coalition.overhear(f"s{number}", model(3, number))
        coalition.overhear(f"s{number}", model(4, 10 * number))
    worker, server = workers.views[0], servers.views[-1]
    rows = [np.float32([value]) for value in (1, 2, 2.5, 3, 900, 901, 902)]

    assert (worker.f, worker.count, worker.quorum, worker.seed) == (2, 2, 5, (5, 0, 1))
    assert (server.f, server.count, server.quorum, server.seed) == (1, 1, 4, (5, 5, 0))
    assert worker.receivers == CORRECT_SERVERS
    assert [float(row[0]) for row in worker.vectors] == [3, 4, 5, 6, 7]
    assert worker.aggregates(rows, 2) == {"mda": mda, "krum": krum}[rule](rows, 2)
    assert worker.aggregates(rows[:2], 2) == np.float32([1.5]), "too few: their mean"
    assert server.aggregates(rows, 2) == coordinate_median(rows, 2)
    assert {name: float(row[0]) for name, row in server.last.items()} == {"s2": 20.0}
    assert servers.pasts[-1] == 2


def test_a_line_for_the_log(coalition: Coalition) -> None:
    """The coalition says who lies, how and when, every number of it."""
    assert str(coalition) == (
        "s1, w1 lie; workers: sign-flip scale=1; servers: sign-flip scale=1; timing: early"
    )


# Too late


def test_late_gradients(conspire: Callable[..., Coalition]) -> None:
    """Late liars cast their votes for a step once a quorum of it was seen, and for no other."""
    coalition = conspire(timing=Timing.LATE)
    orders = [o for w in CORRECT_WORKERS[:2] for o in coalition.overhear(w, gradient(0, 1))]
    told = said(coalition.overhear("w4", gradient(0, 4)))

    assert orders == []
    assert told == [("w1", server, "Gradient", 0, -2.0) for server in CORRECT_SERVERS]
    assert coalition.overhear("w4", gradient(0, 4)) == []


def test_late_models(conspire: Callable[..., Coalition]) -> None:
    """Late liars tell workers models, and servers votes, once a quorum told theirs; once each."""
    coalition = conspire(timing=Timing.LATE)
    early = [o for s in CORRECT_SERVERS[:3] for o in coalition.overhear(s, votes(2, 1))]
    early += [o for s in CORRECT_SERVERS[:3] for o in coalition.overhear(s, model(2, 1))]
    voted = said(coalition.overhear("s5", votes(2, 1)))
    scattered = said(coalition.overhear("s5", model(2, 1)))

    assert early == []
    assert voted == [("s1", server, "GatherModel", 2, -1.0) for server in CORRECT_SERVERS]
    assert scattered == [("s1", worker, "Model", 2, -1.0) for worker in CORRECT_WORKERS]
    assert coalition.overhear("s5", model(2, 1)) == []


def test_late_without_sight(conspire: Callable[..., Coalition]) -> None:
    """Late liars who see no gradients lie about a step once there is a model of the next."""
    coalition = conspire("w1", worker_attack="random", timing=Timing.LATE)

    assert coalition.handle("w1", Received("s2", model(0, 1.0))) == []
    told = said(coalition.handle("w1", Received("s2", model(1, 1.0))))
    assert {message[3] for message in told} == {0}


def test_late_with_an_oracle(cluster: Callable[..., Cluster]) -> None:
    """Late liars who compute gradients lie about a step once there is a model of the next."""
    coalition = Coalition(
        cluster(),
        ["w1"],
        worker_attack=make("sign-flip", Role.WORKER, scale=1.0),
        oracle=lambda step, vector: {w: vector + np.float32(step) for w in CORRECT_WORKERS},
        timing=Timing.LATE,
    )

    assert coalition.handle("w1", Received("s1", model(7, 1.0))) == []
    told = said(coalition.handle("w1", Received("s1", model(8, 1.0))))
    assert {(step, value) for *_, step, value in told} == {(7, -8.0)}


# Too much


def test_a_flood(conspire: Callable[..., Coalition]) -> None:
    """A flood tells each early lie twice, other vectors besides, and wrong steps."""
    coalition = conspire("w1", timing=Timing.FLOOD)
    for worker in CORRECT_WORKERS[:2]:
        coalition.overhear(worker, gradient(3000, 1))
    told = said(coalition.overhear("w4", gradient(3000, 1)))
    to_one = [(step, value) for _, peer, _, step, value in told if peer == "s1"]

    assert to_one == [
        (told, value)
        for step in (3000, 3001)
        for told, value in (
            (step, -1.0),
            (step, 1.0),
            (3 * FAR + FAR, -1.0),
            (step - FAR, 1.0),
            (step, -1.0),
            (step, -2.0),
        )
    ]


# Where workers pull


@pytest.fixture
def synchronous(conspire: Callable[..., Coalition]) -> Callable[..., Coalition]:
    """Gathers the same liars in a cluster of the synchronous variant."""

    def gather(*liars: str, **changes: object) -> Coalition:
        return conspire(*liars, **{"variant": "synchronous", **changes})

    return gather


def test_pulls_call_forth_lies_of_just_that_step(synchronous: Callable[..., Coalition]) -> None:
    """Who pulls a step from a lying server is told a lie of that step, one that stays the same."""
    coalition = synchronous()
    coalition.overhear("s2", model(3, 4.0))

    for step in (3, 4, 3, 9, 1):
        answer = lies(coalition.handle("s1", Received("w2", Pull(step))))
        assert said(answer) == [("s1", "w2", "Model", step, -4.0)]
    answer = lies(coalition.handle("s1", Received("s2", Pull(4))))
    assert said(answer) == [("s1", "s2", "GatherModel", 4, -4.0)]
    coalition.overhear("s2", model(4, 5.0))
    answer = lies(coalition.handle("s1", Received("w3", Pull(4))))
    assert said(answer) == [("s1", "w3", "Model", 4, -4.0)], "as it told w2"


def test_no_models_unasked(synchronous: Callable[..., Coalition]) -> None:
    """Workers that pull are told nothing unasked; servers that gather are sent votes."""
    coalition = synchronous()
    first = lies(coalition.overhear("s2", model(0, 4.0)))
    second = lies(coalition.overhear("s2", model(1, 4.0)))

    assert first == []
    assert said(second) == [("s1", s, "GatherModel", 2, -4.0) for s in CORRECT_SERVERS]


def test_pulls_before_anything_is_known(synchronous: Callable[..., Coalition]) -> None:
    """A pull that comes before the liars know any model is answered once they do."""
    coalition = synchronous()

    assert lies(coalition.handle("s1", Received("w2", Pull(0)))) == []
    orders = lies(coalition.handle("w1", Received("s3", model(0, 2.0))))
    assert said(orders) == [("s1", "w2", "Model", 0, -2.0)]
    assert lies(coalition.handle("w1", Received("s4", model(0, 2.0)))) == []


def test_liars_pull(synchronous: Callable[..., Coalition]) -> None:
    """A lying worker asks each correct server for the model after the one that it was told."""
    coalition = synchronous()
    connected = coalition.handle("w1", PeerConnected("s2"))
    first = coalition.handle("w1", Received("s2", model(0, 2.0)))
    other = coalition.handle("w1", Received("s3", model(0, 2.0)))
    again = coalition.overhear("s3", model(0, 2.0))

    assert asked(connected) == [("w1", "s2", 0)]
    assert asked(first) == [("w1", "s2", 1), ("w1", "s3", 0), ("w1", "s4", 0), ("w1", "s5", 0)]
    assert asked(other) == [("w1", "s3", 1)]
    assert asked(again) == []


def test_liars_hear_where_the_others_are(synchronous: Callable[..., Coalition]) -> None:
    """A gradient or a pull of a later step tells liars which models to ask for."""
    coalition = synchronous()
    heard = coalition.handle("s1", Received("w2", gradient(5, 1)))
    pulled = coalition.handle("s1", Received("w3", Pull(6)))
    operator = coalition.handle("s1", Received("op", Pull(90)))

    assert asked(heard) == [("w1", server, 5) for server in CORRECT_SERVERS]
    assert asked(pulled) == [("w1", server, 6) for server in CORRECT_SERVERS]
    assert asked(operator) == []


def test_lying_servers_pull_what_is_there(synchronous: Callable[..., Coalition]) -> None:
    """Where no worker lies, a lying server asks its peers for the step that they are at."""
    coalition = synchronous("s1")
    connected = coalition.handle("s1", PeerConnected("s2"))
    told = coalition.handle("s1", Received("s2", model(4, 2.0)))

    assert asked(connected) == [("s1", "s2", 0)]
    assert asked(told) == [("s1", server, 4) for server in CORRECT_SERVERS]


def test_a_lost_pull(synchronous: Callable[..., Coalition]) -> None:
    """After a new connection, what was asked before is asked again."""
    coalition = synchronous()
    coalition.handle("w1", Received("s2", model(4, 2.0)))
    connected = coalition.handle("w1", PeerConnected("s2"))
    answered = coalition.handle("w1", Received("s2", model(4, 2.0)))

    assert asked(connected) == [("w1", "s2", 4)]
    assert asked(answered) == [("w1", "s2", 5)]


def test_late_answers(synchronous: Callable[..., Coalition]) -> None:
    """Late liars answer a pull once they have seen a quorum of that step's models."""
    coalition = synchronous(timing=Timing.LATE)
    early = lies(coalition.handle("s1", Received("w2", Pull(0))))
    for server in CORRECT_SERVERS[:3]:
        early += lies(coalition.overhear(server, model(0, 2.0)))
    late = lies(coalition.overhear("s5", model(0, 2.0)))

    assert early == []
    assert said(late) == [("s1", "w2", "Model", 0, -2.0)]


def test_synchronous_gradients(synchronous: Callable[..., Coalition]) -> None:
    """Lying workers cast votes as ever: for the step whose gradients they know and the next."""
    coalition = synchronous()
    orders = [o for w in CORRECT_WORKERS for o in coalition.overhear(w, gradient(0, 1))]

    assert said(lies(orders)) == [
        ("w1", server, "Gradient", step, -1.0) for step in (0, 1) for server in CORRECT_SERVERS
    ]
