"""What servers and workers share: who is heard, whose file differs, and how long to wait."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import GatherModel, Gradient, Hello, Message, Model, Pull, Reason
from byzsgd.protocol import DeadlinePassed

Make = Callable[..., Any]


def v(value: float) -> np.ndarray:
    return np.float32([value])


MESSAGES: list[Message] = [
    Model(0, v(1)),
    GatherModel(1, v(1)),
    Gradient(0, v(1)),
    Pull(0),
    Hello(0),
]


def kind(message: Message) -> str:
    return type(message).__name__


@pytest.fixture(params=["s1", "w1"])
def node(request: pytest.FixtureRequest, server: Make, worker: Make) -> Any:
    """Both kinds of node in turn."""
    return server() if request.param == "s1" else worker()


# Who is heard


@pytest.mark.parametrize("message", MESSAGES, ids=kind)
def test_a_stranger_is_refused_and_not_remembered(node: Any, message: Message) -> None:
    """A peer that is not in the cluster file has no vote, no answer, and no place in memory."""
    assert node.receives("s9", message) == [f"refuse s9 step={message.step} stranger"]
    assert node.node.last_seen == {}
    assert node.node.differing == {}


@pytest.mark.parametrize("message", MESSAGES, ids=kind)
def test_nobody_else_speaks_with_the_own_voice(node: Any, message: Message) -> None:
    """A peer that bears the node's own identity is another node with its key: a stranger."""
    own = node.node.identity

    assert node.receives(own, message) == [f"refuse {own} step={message.step} stranger"]


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ("s2", Gradient(0, v(1))),
        ("w2", Model(0, v(1))),
        ("w2", GatherModel(0, v(1))),
        ("op", Gradient(0, v(1))),
        ("op", Model(0, v(1))),
        ("op", GatherModel(0, v(1))),
    ],
    ids=lambda value: value if isinstance(value, str) else kind(value),
)
def test_a_server_takes_votes_of_their_own_role_only(
    server: Make, peer: str, message: Message
) -> None:
    """Gradients are the workers' and models the servers'; an operator has no vote at all."""
    s1 = server()

    assert s1.receives(peer, message) == [f"refuse {peer} step=0 wrong-role"]
    assert s1.node.waiting().have == 0


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ("s2", Gradient(0, v(1))),
        ("s2", GatherModel(0, v(1))),
        ("w2", Model(0, v(1))),
        ("w2", Gradient(0, v(1))),
        ("w2", Pull(0)),
        ("op", Model(0, v(1))),
        ("op", Pull(0)),
    ],
    ids=lambda value: value if isinstance(value, str) else kind(value),
)
def test_a_worker_takes_models_and_pulls_of_servers_only(
    worker: Make, peer: str, message: Message
) -> None:
    """Nothing else counts, and nobody else is answered."""
    w1 = worker()

    assert w1.receives(peer, message) == [f"refuse {peer} step=0 wrong-role"]
    assert w1.node.waiting().have == 0


def test_refusals_are_counted_by_peer_and_reason(node: Any) -> None:
    """Refused, counted by reason and peer, as if it had never come."""
    node.receives("s9", Pull(0), Pull(0))
    node.receives("op", Gradient(0, v(1)))

    assert node.node.progress.refused == {
        ("s9", Reason.STRANGER): 2,
        ("op", Reason.WRONG_ROLE): 1,
    }


# Hello, and whose cluster file differs


def test_a_connection_begins_with_a_hello(cluster: Make, server: Make) -> None:
    """It says where the node stands and which cluster file it runs."""
    s1 = server(step=7)

    assert s1.connects("s2") == ["send Hello step=7 to s2"]
    assert s1.effects[0].message.digests == cluster().digests()


def test_a_hello_is_answered_and_its_answer_is_not(cluster: Make, node: Any) -> None:
    """Or two nodes would greet each other for ever."""
    digests = cluster().digests()

    assert node.receives("s2", Hello(0, digests)) == ["send Hello step=0 reply to s2"]
    assert node.effects[0].message.digests == digests
    assert node.receives("s2", Hello(0, digests, reply=True)) == []


def test_a_peer_with_another_cluster_file_is_refused(cluster: Make, node: Any) -> None:
    """The keys that differ are named, and nothing of it counts but another Hello."""
    other = cluster(learning_rate=0.5, seed=2).digests()

    assert node.receives("s2", Hello(0, other)) == [
        "send Hello step=0 reply to s2",
        "refuse s2 step=0 other-cluster",
    ]
    assert node.node.differing == {"s2": ("learning_rate", "seed")}
    for message in (Model(0, v(1)), GatherModel(1, v(1)), Pull(0)):
        assert node.receives("s2", message) == [f"refuse s2 step={message.step} other-cluster"]


@pytest.mark.parametrize("change", ["lacks a key", "knows another key"])
def test_keys_of_other_versions_differ(cluster: Make, node: Any, change: str) -> None:
    """A key that only one of two files has is a difference, too."""
    digests = cluster().digests()
    if change == "lacks a key":
        del digests["seed"]
    else:
        digests["colour"] = b"blue"

    node.receives("s2", Hello(0, digests, reply=True))

    assert node.node.differing == {"s2": ("seed" if change == "lacks a key" else "colour",)}


def test_a_peer_that_got_the_right_file_is_heard_again(cluster: Make, worker: Make) -> None:
    """The next Hello with equal digests ends the refusal."""
    w1 = worker()
    w1.receives("s2", Hello(0, cluster(seed=2).digests(), reply=True))

    assert w1.receives("s2", Hello(0, cluster().digests(), reply=True)) == []
    assert w1.receives("s2", Model(0, v(1))) == []
    assert w1.node.waiting().have == 1


def test_one_differing_server_may_be_the_liar(cluster: Make, node: Any) -> None:
    """Up to f_ps servers may lie about their file, so the node goes on; of one more, one is right.

    The sentence names the servers and the keys, and says what to do.
    """
    other = cluster(seed=2).digests()
    assert node.receives("s3", Hello(0, other, reply=True)) == ["refuse s3 step=0 other-cluster"]
    assert node.receives("s3", Hello(0, other, reply=True)) == ["refuse s3 step=0 other-cluster"]

    assert node.receives("s2", Hello(0, other, reply=True)) == [
        "refuse s2 step=0 other-cluster",
        "stop: this node's cluster file differs from that of s2, s3 in: seed; "
        "give every node the same file",
    ]


def test_differing_workers_stop_nobody(cluster: Make, server: Make) -> None:
    """Workers with another file are refused, however many they are."""
    s1 = server()
    other = cluster(seed=2).digests()

    for peer in ("w1", "w2", "w3", "w4"):
        assert s1.receives(peer, Hello(0, other, reply=True)) == [
            f"refuse {peer} step=0 other-cluster"
        ]
        assert s1.receives(peer, Gradient(0, v(1))) == [f"refuse {peer} step=0 other-cluster"]


def test_an_operator_may_have_another_file(server: Make) -> None:
    """It has no vote, so its Hello is answered and its pulls, too."""
    s1 = server(value=7)

    assert s1.receives("op", Hello(0)) == ["send Hello step=0 reply to op"]
    assert s1.receives("op", Pull(0)) == ["send Model step=0 value=7 to op"]


# Waiting


def test_waiting_on_a_node_asks_less_and_less_often(worker: Make) -> None:
    """It pulls after 1, 2, 4, ... times pull_after, at most 16."""
    w1 = worker()
    pulled = []
    for second in range(1, 80):
        pulled += [second] * len(w1.waits(1.0))

    assert pulled == [1, 3, 7, 15, 31, 47, 63, 79]


def test_a_deadline_handed_in_too_early_is_none(node: Any) -> None:
    """Hosts may be woken before the time; the node looks at the clock itself."""
    node.now = 0.999
    assert node.meets(DeadlinePassed()) == []
    assert node.node.deadline == 1.0

    node.now = 1.0
    assert node.meets(DeadlinePassed()) != []
    assert node.node.deadline == 3.0


def test_a_waiting_node_says_whom_it_waits_for(server: Make) -> None:
    """How many of how many, of which step, and when each was last seen."""
    s1 = server()
    s1.receives("w2", Gradient(3, v(1)))
    s1.now = 12.0
    s1.receives("w1", Gradient(0, v(1)))

    assert s1.node.sentence(12.0) == (
        "waits for 2 of 3 gradients of step 0: "
        "w2 (last seen 12 s ago), w3 (never seen), w4 (never seen)"
    )


def test_a_working_node_says_what_it_does(server: Make) -> None:
    """The phase and the step."""
    s1 = server(step=4)
    s1.hears(("w1", "w2", "w3"), Gradient(4, v(1)))

    assert s1.node.waiting() is None
    assert s1.node.sentence(0.0) == "update at step 4"


def test_the_time_to_a_quorum_is_observed(server: Make) -> None:
    """From the start of the wait to the last vote of the quorum."""
    s1 = server()
    s1.hears(("w1", "w2"), Gradient(0, v(1)))
    s1.now = 0.75
    s1.receives("w3", Gradient(0, v(1)))

    assert s1.node.progress.quorum_waits.total == 0.75
    assert sum(s1.node.progress.quorum_waits.counts) == 1


def test_a_node_remembers_its_story(node: Any) -> None:
    """Events and effects stand in the trace."""
    node.receives("s9", Pull(0))

    assert node.node.trace.story() == [
        "0.000 Received Pull step=0 peer=s9; Refuse step=0 peer=s9 reason=stranger"
    ]
