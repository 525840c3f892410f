"""What /status tells of a node, in values that JSON has."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byzsgd.checkpoint import Saves
from byzsgd.messages import Gradient, Hello, Model, Reason
from byzsgd.protocol.variance import RATIO_MAX, SPAN, Spread
from byzsgd.transport import STRANGER, Statistics
from byzsgd_daemons.presence import Presence
from byzsgd_daemons.status import READY_WAIT_SECONDS, ready, snapshot

VECTOR = np.float32([1])


@pytest.fixture
def told(statistics: Statistics) -> Callable[..., dict[str, Any]]:
    """The snapshot of a node, as whoever asks over HTTP reads it."""

    def tell(conversation: Any, **changes: Any) -> dict[str, Any]:
        counted = replace(statistics, **changes)
        presence = Presence(conversation.node)
        presence.silent, presence.unsent = frozenset({"w3"}), frozenset({"s2", "s1"})
        text = json.dumps(snapshot(conversation.node, counted, presence, conversation.now))
        told: dict[str, Any] = json.loads(text)
        return told

    return tell


def test_a_new_server_tells_where_it_stands(server: Any, told: Any) -> None:
    """Identity, role, version and cluster; phase and step; whom it waits for."""
    s1 = server()
    s1.waits(0.5)
    status = told(s1)

    assert (status["id"], status["role"]) == ("s1", "server")
    assert status["cluster"] == s1.node.cluster.digest().hex()
    assert (status["phase"], status["step"], status["steps_done"]) == ("scatter", 0, 0)
    assert status["waiting"] == {
        "for": "gradients",
        "step": 0,
        "have": 0,
        "need": 3,
        "lacking": ["w1", "w2", "w3", "w4"],
        "seconds": 0.5,
    }
    assert status["sentence"].startswith("waits for 3 of 3 gradients of step 0: w1 (never seen)")
    assert status["quorum_margin"] == {"servers": -3, "workers": -3}
    assert status["done"] is False
    assert (status["silent"], status["unsent"]) == (["w3"], ["s1", "s2"])
    assert status["drift"].keys() == {"max", "median", "relative", "contraction"}
    assert "loss" not in status


def test_a_server_tells_its_variance_condition(server: Any, told: Any) -> None:
    """The ratio, the state and since when, and what an operator is to make of it."""
    s1 = server()
    assert told(s1)["variance_condition"] == {
        "state": "unknown",
        "since": 0,
        "sentence": "variance condition: not known",
    }

    for step in range(SPAN):
        s1.node.progress.variance.update(step, Spread(1.0, 2, variance=4.0, square=1.0))
    status = told(s1)
    assert status["variance_ratio"] == RATIO_MAX
    assert status["variance_condition"]["state"] == "violated"
    assert status["variance_condition"]["since"] == SPAN - 1
    assert "100 or more over the last updates" in status["variance_condition"]["sentence"]


def test_a_server_tells_of_its_checkpoints(server: Any, statistics: Statistics) -> None:
    """The newest one's step, how long ago, why the last one failed; null where none are kept."""
    s1 = server()
    presence = Presence(s1.node)
    assert snapshot(s1.node, statistics, presence, 0.0)["checkpoint"] is None

    saves = Saves(step=40, at=100.0, error="the disk is full")
    assert snapshot(s1.node, statistics, presence, 102.5, saves)["checkpoint"] == {
        "step": 40,
        "seconds": 2.5,
        "error": "the disk is full",
    }


def test_a_new_worker_tells_where_it_stands(worker: Any, told: Any) -> None:
    """It waits for models and has no drift."""
    status = told(worker())

    assert (status["id"], status["role"], status["phase"]) == ("w1", "worker", "wait")
    assert status["waiting"]["for"] == "models"
    assert (status["loss"], status["skipped"]) == (None, 0)
    assert status["quorum_margin"] == {"servers": -4}
    assert "drift" not in status


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_none(worker: Any, told: Any, loss: float) -> None:
    """JSON knows neither NaN nor infinity."""
    w1 = worker()
    w1.node.progress.loss = loss
    assert json.dumps(told(w1)["loss"], allow_nan=False) == "null"


def test_a_node_at_work_waits_for_nobody(server: Any, told: Any) -> None:
    """And the sentence is its phase."""
    s1 = server()
    for peer in ("w1", "w2", "w3"):
        s1.receives(peer, Gradient(0, VECTOR))
    status = told(s1)

    assert status["waiting"] is None
    assert status["sentence"] == "update at step 0"


def test_peers_are_all_others_of_the_cluster(server: Any, told: Any) -> None:
    """When each was heard of, whether there is a connection, what of it was refused, and why."""
    s1 = server()
    s1.receives("w1", Gradient(0, VECTOR), Gradient(0, VECTOR + 1))
    s1.waits(2.0)
    status = told(
        s1,
        connected=frozenset({"s2"}),
        refused={("s2", Reason.NON_FINITE): 4, (STRANGER, Reason.STRANGER): 9},
        dropped={("s2", "gather"): 3, ("s2", "pull"): 1},
    )

    peers = status["peers"]
    assert list(peers) == [*s1.node.cluster.servers[1:], *s1.node.cluster.workers, "op"]
    assert peers["w1"] == {
        "role": "worker",
        "connected": None,
        "last_seen_seconds": 2.0,
        "dropped": 0,
        "refused": {"equivocation": 1},
        "differs_in": [],
    }
    assert peers["s2"] == {
        "role": "server",
        "connected": True,
        "last_seen_seconds": None,
        "dropped": 4,
        "refused": {"non-finite": 4},
        "differs_in": [],
    }


def test_a_peer_with_another_file_is_told_with_the_keys(
    server: Any, told: Any, cluster: Any
) -> None:
    """So that the operator knows what to compare."""
    s1 = server()
    s1.receives("w2", Hello(0, cluster(seed=9, batch_size=7).digests()))

    assert told(s1)["peers"]["w2"]["differs_in"] == ["batch_size", "seed"]


def test_a_node_is_ready_once_it_had_a_quorum(worker: Any, told: Any) -> None:
    """Not at its start; while it works; and while it does not wait for long."""
    w1 = worker()
    assert told(w1)["ready"] is False
    for server in ("s1", "s2", "s3", "s4"):
        w1.receives(server, Model(0, VECTOR))
    assert told(w1)["ready"] is True
    w1.works()
    w1.works(gradient=1.0)

    assert told(w1)["waiting"] is not None
    assert told(w1)["ready"] is True
    since = w1.now
    assert ready(w1.node, since + READY_WAIT_SECONDS)
    assert not ready(w1.node, since + READY_WAIT_SECONDS + 0.001)


def test_a_node_that_is_done_stays_ready(worker: Any, cluster: Any, told: Any) -> None:
    """However long nobody says anything: it still answers its peers."""
    w1 = worker(cluster(steps=1))
    for server in ("s1", "s2", "s3", "s4"):
        w1.receives(server, Model(1, VECTOR))
    w1.waits(1000)
    status = told(w1)

    assert (status["done"], status["ready"], status["phase"]) == (True, True, "done")
    assert status["steps"] == 1
