"""Options, clusters without keys, and nodes that a test talks to and that answer in words."""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Any

import hypothesis
import numpy as np
import pytest

from byzsgd.cluster import Cluster
from byzsgd.messages import Hello, Message, Pull
from byzsgd.protocol import (
    Aggregate,
    ComputeGradient,
    DeadlinePassed,
    Effect,
    Event,
    NewLife,
    Node,
    PeerConnected,
    Publish,
    Received,
    Refuse,
    SaveCheckpoint,
    Send,
    Stop,
    TryModel,
    server_of,
    worker_of,
)
from byzsgd.protocol.effects import Work
from byzsgd.protocol.work import aggregate, compute_gradient, try_model
from byzsgd.simulation.cluster import without_keys
from byzsgd.vectors import Vector

HEAVY = (Aggregate, ComputeGradient, TryModel)

# The same examples in every run, and none of them in time: a busy machine proves nothing.
hypothesis.settings.register_profile(
    "byzsgd",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("byzsgd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what stands under the bars of tests/scenarios/*.txt anew; read the diff",
    )


SURROUNDINGS = ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "NOTIFY_SOCKET")
"""What a terminal, a CI or a service manager sets for every program that it starts."""


@pytest.fixture(scope="session", autouse=True)
def _plain_surroundings() -> Iterator[None]:
    """Tables are as wide and plain as anywhere, and no manager hears of the hosts of tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SURROUNDINGS:
            patch.delenv(name, raising=False)
        yield


REAL = (
    "tests/docs/test_tried.py",
    "tests/hostile/",
    "tests/network/",
    "tests/processes/",
    "tests/systemd/",
)
"""Tests of real daemons: they share ports and cores, so that they run one after another."""

SITE = "tests/docs/test_site.py"
"""Tests that share one build of the site."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real daemons come first, so that the rest fills the other cores meanwhile."""
    items.sort(key=lambda item: not item.nodeid.startswith(REAL))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deals out tests one by one, but those of real daemons, or of the site, all to one process."""
    # Marks of xdist_group would say the same, but for xdist 3.8 under pytest 9.2, which drops them.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(SITE):
                return SITE
            return "real" if nodeid.startswith(REAL) else nodeid

    return Scheduling(config, log)


def _value(vector: Vector | None) -> str:
    return "none" if vector is None else ",".join(f"{coordinate:g}" for coordinate in vector)


def _message(message: Message) -> str:
    words = f"{type(message).__name__} step={message.step}"
    if isinstance(message, Hello):
        return words + " reply" * message.reply
    return words if isinstance(message, Pull) else f"{words} value={_value(message.vector)}"


def say(effect: Effect) -> str:
    """An effect in words, nothing left out but the digests of a Hello."""
    match effect:
        case Send(peers, message):
            return f"send {_message(message)} to {' '.join(peers)}"
        case Publish(message):
            return f"publish {_message(message)}"
        case Aggregate():
            named = zip(effect.identities, effect.vectors, strict=True)
            votes = " ".join(f"{who}={_value(vector)}" for who, vector in named)
            words = f"{effect.rule} step={effect.step} f={effect.f}: {votes}"
            if effect.model is not None:
                words += f"; from {_value(effect.model)} at rate {effect.learning_rate:g}"
            return words + (f"; own {effect.own}" if effect.own else "")
        case ComputeGradient(step, vector, momentum, beta):
            momentum_words = f"momentum={_value(momentum)} beta={beta:g}"
            return f"gradient step={step} at {_value(vector)} {momentum_words}"
        case TryModel():
            bound = "" if effect.bound == inf else f" bound={effect.bound:g}"
            return (
                f"try step={effect.step} at {_value(effect.vector)}{bound} "
                f"reference={_value(effect.reference)} base={_value(effect.base)} "
                f"momentum={_value(effect.momentum)}"
            )
        case SaveCheckpoint(step, vector):
            return f"save step={step} value={_value(vector)}"
        case NewLife():
            return "begin a new life"
        case Refuse(peer, step, reason):
            return f"refuse {peer} step={step} {reason}"
        case Stop(sentence):
            return f"stop: {sentence}"


class Conversation:
    """A node with a clock that stands still but in ``waits``; each method says what it did."""

    def __init__(self, node: Node, now: float = 0.0) -> None:
        self.node = node
        self.now = now
        self.effects: list[Effect] = []
        """What the node did last."""
        self.started = self._answer(node.start(now))
        """What the node did at its start, in words."""
        self.work: list[Work] = [e for e in self.effects if isinstance(e, HEAVY)]
        """Heavy work that the node asked for and that is not done, oldest first."""

    def receives(self, peer: str, *messages: Message) -> list[str]:
        """What the node does about messages of a peer."""
        return [words for message in messages for words in self.meets(Received(peer, message))]

    def hears(self, peers: Iterable[str], message: Message) -> list[str]:
        """What the node does about the same message of several peers."""
        return [words for peer in peers for words in self.meets(Received(peer, message))]

    def connects(self, peer: str) -> list[str]:
        """What the node does when a connection to a peer is made."""
        return self.meets(PeerConnected(peer))

    def waits(self, seconds: float) -> list[str]:
        """What the node does while time passes and nothing else happens."""
        end, words = self.now + seconds, []
        while self.node.deadline <= end:
            self.now = self.node.deadline
            words += self.meets(DeadlinePassed())
        self.now = end
        return words

    def works(self, gradient: float = 0.0, *, last: bool = False) -> list[str]:
        """What the node does once its oldest (or its last) heavy work is done."""
        effect = self.work.pop(-1 if last else 0)

        def constant(at: Vector, step: int) -> tuple[Vector, float]:
            return np.full_like(at, gradient), 0.0

        if isinstance(effect, Aggregate):
            return self.meets(aggregate(effect))
        if isinstance(effect, TryModel):
            return self.meets(try_model(effect, constant))
        return self.meets(compute_gradient(effect, constant))

    def meets(self, event: Event) -> list[str]:
        """What the node does about an event."""
        words = self._answer(self.node.handle(event, self.now))
        self.work += [e for e in self.effects if isinstance(e, HEAVY)]
        return words

    def _answer(self, effects: list[Effect]) -> list[str]:
        self.effects = effects
        self.node.validate()
        return [say(effect) for effect in effects]


def make_cluster(
    servers: int = 5, workers: int = 4, f_servers: int = 1, f_workers: int = 1, **changes: object
) -> Cluster:
    """A cluster of s1, s2, ..., w1, w2, ... and an operator; models move by whole gradients."""
    nodes = [
        {"id": f"s{n}", "role": "server", "address": f"10.0.0.{n}:5555"}
        for n in range(1, servers + 1)
    ]
    nodes += [{"id": f"w{n}", "role": "worker"} for n in range(1, workers + 1)]
    nodes.append({"id": "op", "role": "operator"})
    mapping = {"f_servers": f_servers, "f_workers": f_workers, "nodes": nodes}
    return without_keys(mapping, **{"task": "quadratic", "learning_rate": 1.0} | changes)


@pytest.fixture(scope="session")
def cluster() -> Callable[..., Cluster]:
    """Makes clusters: 5 servers, 4 workers, 1 liar of each, and whatever the test changes."""
    return make_cluster


@pytest.fixture(scope="session")
def words() -> Callable[[Effect], str]:
    """Says an effect in words."""
    return say


@pytest.fixture(scope="session")
def converse() -> type[Conversation]:
    """Begins a conversation with a node that the test made."""
    return Conversation


@pytest.fixture
def conversations() -> Iterator[list[Conversation]]:
    """All conversations of a test: at its end every node's invariants must hold."""
    made: list[Conversation] = []
    yield made
    for conversation in made:
        conversation.node.validate()


@pytest.fixture
def server(conversations: list[Conversation]) -> Callable[..., Conversation]:
    """Starts a server, s1 of the usual cluster with the model 0 unless the test says otherwise."""

    def start(
        cluster: Cluster | None = None, *, identity: str = "s1", value: float = 0, **options: int
    ) -> Conversation:
        shared = cluster or make_cluster()
        node = server_of(shared, identity, np.float32([value]), **options)
        conversations.append(Conversation(node))
        return conversations[-1]

    return start


@pytest.fixture
def worker(conversations: list[Conversation]) -> Callable[..., Conversation]:
    """Starts a worker, w1 of the usual cluster unless the test says otherwise."""

    def start(cluster: Cluster | None = None, *, identity: str = "w1") -> Conversation:
        conversations.append(Conversation(worker_of(cluster or make_cluster(), identity)))
        return conversations[-1]

    return start
