"""Whatever happens to a node, in whatever order: it never raises, and its invariants hold."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Hello, Message, Model, Pull
from byzsgd.protocol import Effect, Node, ParameterServer, server_of, synchronous, worker_of
from byzsgd.protocol.window import WINDOW_STEPS

Make = Callable[..., Any]
Happening = tuple[str, Any]

PEERS = ("s1", "s2", "s3", "s4", "s5", "w1", "w2", "w3", "w4", "op", "stranger")
DIGESTS: list[dict[str, bytes] | None] = [None, {}, {"seed": b"lies"}]
"""Of the node's own cluster file (None), of an older version, and of another file."""

steps = st.integers(0, 4) | st.sampled_from([9, STEP_MAX])
values = st.integers(-2, 2)


def of_step(kind: type[Model | GatherModel | Gradient]) -> st.SearchStrategy[Message]:
    return st.builds(lambda step, value: kind(step, np.float32([value])), steps, values)


messages = st.one_of(
    of_step(Model),
    of_step(GatherModel),
    of_step(Gradient),
    st.builds(Pull, steps),
    st.builds(Hello, steps, st.sampled_from(DIGESTS), st.booleans()),
)
someone = st.tuples(st.sampled_from(PEERS), messages)
# What correct peers do moves a node through its phases, which chance alone seldom does.
everybody = st.builds(
    lambda kind, step: kind(step, np.float32([step])),
    st.sampled_from([Model, GatherModel, Gradient]),
    st.integers(0, 4),
)
happenings = st.lists(
    st.one_of(
        someone.map(lambda pair: ("received", pair)),
        everybody.map(lambda message: ("everybody", message)),
        st.sampled_from(PEERS).map(lambda peer: ("connected", peer)),
        st.sampled_from([0.25, 1.0, 20.0]).map(lambda seconds: ("waits", seconds)),
        st.booleans().map(lambda last: ("works", last)),
    ),
    max_size=60,
)
periods = st.sampled_from([1, 2, 4])

KINDS: list[dict[str, Any]] = [
    {"variant": "asynchronous"},
    {"variant": "asynchronous", "overlapped_gather": True},
    {"variant": "synchronous"},
]
"""What a cluster file may ask a server to be."""

every_kind = pytest.mark.parametrize(
    "kind", KINDS, ids=["asynchronous", "overlapped", "synchronous"]
)


@pytest.fixture(scope="module", autouse=True)
def short_priming() -> Iterator[None]:
    """A worker of the synchronous variant soon pulls single models."""
    with mock.patch.object(synchronous, "PRIMING_STEPS", 1):
        yield


def live(conversation: Any, digests: dict[str, bytes], happened: list[Happening]) -> list[Effect]:
    """Let things happen to a node, and return all that it wanted done."""
    effects = list(conversation.effects)
    for name, what in happened:
        match name:
            case "received":
                peer, message = what
                if isinstance(message, Hello) and message.digests is None:
                    message = Hello(message.step, digests, message.reply)
                conversation.receives(peer, message)
            case "everybody":
                voters = "w" if isinstance(what, Gradient) else "s"
                for peer in PEERS[:9]:
                    if peer[0] == voters and peer != conversation.node.identity:
                        conversation.receives(peer, what)
                        effects += conversation.effects
                continue
            case "connected":
                conversation.connects(what)
            case "waits":
                conversation.waits(what)
            case "works" if conversation.work:
                conversation.works(1.0, last=what)
        effects += conversation.effects
    return effects


def held(node: Node) -> int:
    """How many vectors a node keeps for its peers."""
    if isinstance(node, ParameterServer):
        return node._gradients.held + node._models.held + len(node._catch_up.models)
    return node._models.held


def room(node: Node) -> int:
    n_servers, n_workers = node.cluster.n_servers, node.cluster.n_workers
    if isinstance(node, ParameterServer):
        return WINDOW_STEPS * (n_workers + n_servers) + n_servers - 1
    return WINDOW_STEPS * n_servers


@every_kind
@pytest.mark.parametrize("role", ["server", "worker"])
@settings(max_examples=250)
@given(period=periods, happened=happenings)
def test_equal_event_lists_give_equal_effects(
    cluster: Make,
    converse: Make,
    words: Callable[[Effect], str],
    role: str,
    kind: dict[str, Any],
    period: int,
    happened: list[Happening],
) -> None:
    """Same state and same event give the same effects; nothing raises, and memory is bounded.

    Every conversation validates its node after each event.
    """
    shared = cluster(**kind, gather_period=period, steps=4, learning_rate=0.5)
    lives = []
    for _ in range(2):
        node = (
            server_of(shared, "s1", np.float32([0]), checkpoint_period=2)
            if role == "server"
            else worker_of(shared, "w1")
        )
        conversation = converse(node)
        effects = live(conversation, shared.digests(), happened)
        lives.append(
            ([words(effect) for effect in effects], node.trace.story(), node.sentence(99.0))
        )

        assert held(node) <= room(node)

    assert lives[0] == lives[1]


@pytest.mark.parametrize("variant", ["asynchronous", "synchronous"])
@settings(max_examples=150)
@given(
    happened=st.lists(
        st.tuples(st.sampled_from(["op", "stranger", "w1"]), messages).map(
            lambda pair: ("received", pair)
        ),
        max_size=40,
    )
)
def test_who_is_no_server_never_moves_a_worker(
    cluster: Make, converse: Make, variant: str, happened: list[Happening]
) -> None:
    """Operators, strangers and other workers have no vote, whatever they say."""
    shared = cluster(variant=variant)
    conversation = converse(worker_of(shared, "w2"))
    live(conversation, shared.digests(), happened)

    assert conversation.node.waiting().have == 0
    assert conversation.work == []


@every_kind
@settings(max_examples=150)
@given(
    lies=st.lists(st.tuples(st.sampled_from(["s5", "w4", "op"]), messages), max_size=40),
    waits=st.lists(st.sampled_from([0.25, 1.0, 20.0]), min_size=40, max_size=40),
)
def test_as_many_liars_as_are_tolerated_never_move_a_server(
    cluster: Make,
    converse: Make,
    kind: dict[str, Any],
    lies: list[tuple[str, Message]],
    waits: list[float],
) -> None:
    """One server, one worker and an operator, alone with a server: it stays where it is."""
    shared = cluster(**kind)
    conversation = converse(server_of(shared, "s1", np.float32([0])))
    for (liar, lie), seconds in zip(lies, waits, strict=False):
        live(conversation, shared.digests(), [("received", (liar, lie)), ("waits", seconds)])

    assert conversation.node.step == 0
    assert conversation.node.vector == np.float32([0])
    assert conversation.node.phase() == "scatter"
    assert conversation.work == []
