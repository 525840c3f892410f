"""What Prometheus is shown of a server and of a worker, in the form that it wants."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client import Metric as Family
from prometheus_client.exposition import generate_latest

from byzsgd.checkpoint import Failure, Saves
from byzsgd.cluster import Cluster
from byzsgd.filters import Filter
from byzsgd.messages import GatherModel, Gradient, Hello, Model, Reason
from byzsgd.metrics import ALIVE_SECONDS, NodeCollector, quorum_margins
from byzsgd.protocol import Node
from byzsgd.protocol.progress import SECONDS_BOUNDS
from byzsgd.protocol.variance import State
from byzsgd.transport import STRANGER, Statistics

OF_NODES = {
    "byzsgd_build_info": "gauge",
    "byzsgd_node_step": "gauge",
    "byzsgd_node_phase": "gauge",
    "byzsgd_node_steps": "counter",
    "byzsgd_node_pulls": "counter",
    "byzsgd_node_event_loop_lag_seconds": "gauge",
    "byzsgd_node_quorum_wait_seconds": "histogram",
    "byzsgd_node_work_seconds": "histogram",
    "byzsgd_node_waiting_seconds": "gauge",
    "byzsgd_node_waiting_for": "gauge",
    "byzsgd_node_peer_last_seen_seconds": "gauge",
    "byzsgd_node_peer_silent": "gauge",
    "byzsgd_node_peer_differs": "gauge",
    "byzsgd_node_quorum_margin": "gauge",
    "byzsgd_node_tolerated": "gauge",
    "byzsgd_node_refused": "counter",
    "byzsgd_node_http_refused": "counter",
    "byzsgd_node_messages": "counter",
    "byzsgd_node_message_bytes": "counter",
    "byzsgd_node_dropped": "counter",
    "byzsgd_node_connected_peers": "gauge",
}
OF_SERVERS = OF_NODES | {
    "byzsgd_server_gathers": "counter",
    "byzsgd_server_catch_ups": "counter",
    "byzsgd_server_drift_max": "gauge",
    "byzsgd_server_drift_median": "gauge",
    "byzsgd_server_drift_ratio": "gauge",
    "byzsgd_server_contraction_ratio": "gauge",
    "byzsgd_server_variance_ratio": "gauge",
    "byzsgd_server_variance_violated": "gauge",
    "byzsgd_server_votes": "counter",
    "byzsgd_server_left_out": "counter",
}
OF_WORKERS = OF_NODES | {
    "byzsgd_worker_samples": "counter",
    "byzsgd_worker_skipped_steps": "counter",
    "byzsgd_worker_loss": "gauge",
}

OF_ROUNDS = {"byzsgd_node_missed_rounds": "counter", "byzsgd_node_passed_over": "gauge"}
OF_FILTERS = OF_ROUNDS | {
    "byzsgd_worker_scatter_steps": "counter",
    "byzsgd_worker_scatter_pulls": "counter",
    "byzsgd_worker_fallback_steps": "counter",
    "byzsgd_worker_accepted": "counter",
    "byzsgd_worker_filtered": "counter",
}
"""What the synchronous variant adds, for both roles and for workers."""

STATISTICS = Statistics(
    messages={("gradient", "received"): 5, ("model", "sent"): 2},
    bytes={("gradient", "received"): 500, ("model", "sent"): 200},
    dropped={("s2", "gather"): 3},
    refused={("w4", Reason.NON_FINITE): 2, (STRANGER, Reason.STRANGER): 7},
    last_seen={},
    boot={},
    connected=frozenset({"s2", "s3"}),
)

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Watched:
    """A node behind a collector."""

    node: Node
    now: float

    def collector(self) -> NodeCollector:
        return NodeCollector(
            self.node, lambda: STATISTICS, lambda: 0.25, lambda: self.now, silent=lambda: {"s2"}
        )

    def families(self) -> list[Family]:
        return list(self.collector().collect())

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name and those labels."""
        [found] = [
            sample.value
            for family in self.families()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return float(found)

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """All samples of a name by the values of their labels."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.families()
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
def at_work(server: Any) -> Watched:
    """A server that has updated and gathered once, and that refused what was wrong."""
    s1 = server()
    s1.waits(0.3)
    for peer, value in (("w1", 1), ("w2", 1), ("w3", 7)):
        s1.receives(peer, Gradient(0, np.float32([value])))
    s1.works()
    for peer, value in (("s2", -1), ("s3", -2), ("s4", -3)):
        s1.receives(peer, GatherModel(1, np.float32([value])))
    s1.works()
    s1.receives("w1", Gradient(1, np.float32([2])), Gradient(1, np.float32([3])))
    return Watched(s1.node, s1.now)


@pytest.fixture
def learning(worker: Any) -> Watched:
    """A worker that computed two gradients, skipped steps in between, and had to pull."""
    w1 = worker()
    for step in (0, 5):
        for peer in ("s1", "s2", "s3", "s4"):
            w1.receives(peer, Model(step, np.float32([step])))
        w1.works()
        w1.works(gradient=1.0)
    w1.waits(1.0)
    return Watched(w1.node, w1.now)


@pytest.fixture(params=["server", "worker", "new server", "new worker"])
def watched(request: pytest.FixtureRequest) -> Watched:
    """Each kind of node, at work and at its start."""
    if request.param == "server":
        return request.getfixturevalue("at_work")
    if request.param == "worker":
        return request.getfixturevalue("learning")
    conversation = request.getfixturevalue(request.param.removeprefix("new "))()
    return Watched(conversation.node, conversation.now)


# All of them


def test_a_server_shows_all_of_its_metrics(at_work: Watched) -> None:
    """Each once, with its type."""
    families = at_work.families()

    assert {family.name: family.type for family in families} == OF_SERVERS
    assert len(families) == len(OF_SERVERS)
    assert all(family.samples for family in families)


def test_a_worker_shows_all_of_its_metrics(learning: Watched) -> None:
    """Each once, with its type."""
    families = learning.families()

    assert {family.name: family.type for family in families} == OF_WORKERS
    assert len(families) == len(OF_WORKERS)


def test_the_synchronous_variant_shows_more(
    server: Any, worker: Any, cluster: Callable[..., Cluster]
) -> None:
    """Rounds that were missed, and what workers pulled and filtered."""
    shared = cluster(variant="synchronous")
    s1, w1 = server(shared), worker(shared)
    s1.hears(("w1", "w2", "w3"), Gradient(0, np.float32([1])))
    s1.waits(shared.round_timeout)
    w1.node.progress.filtered["s2", Filter.LIPSCHITZ] += 3
    of_server, of_worker = Watched(s1.node, s1.now), Watched(w1.node, w1.now)

    assert {f.name: f.type for f in of_server.families()}.items() >= OF_ROUNDS.items()
    assert {f.name: f.type for f in of_worker.families()}.items() >= OF_FILTERS.items()
    assert of_server.samples("byzsgd_node_missed_rounds_total") == {("w4",): 1}
    assert of_server.samples("byzsgd_node_passed_over") == {("w4",): 1}
    assert of_worker.samples("byzsgd_worker_filtered_total") == {("s2", "lipschitz"): 3}


def test_names_and_help_follow_prometheus_conventions(watched: Watched) -> None:
    """Units at the end, seconds and bytes in full, a sentence of help, no NaN."""
    for family in watched.families():
        assert family.name.startswith(("byzsgd_node_", "byzsgd_server_", "byzsgd_worker_")) or (
            family.name == "byzsgd_build_info"
        )
        assert family.documentation.endswith(".")
        assert len(family.documentation) < 100
        for sample in family.samples:
            assert np.isfinite(sample.value)
            assert (family.type == "counter") == sample.name.endswith("_total")


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="apt-get install prometheus to check with promtool"
)
def test_promtool_has_nothing_to_say(watched: Watched) -> None:
    """Prometheus' own linter, on all that a daemon shows."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(watched.collector())
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(registry),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )

    assert (checked.returncode, checked.stdout.decode()) == (0, "")


# What they say


def test_a_server_counts_what_it_did(at_work: Watched) -> None:
    """Steps, gathers, the drift from its peers, and whom the rule left out."""
    assert at_work.value("byzsgd_node_step") == 1
    assert at_work.value("byzsgd_node_steps_total") == 1
    assert at_work.value("byzsgd_server_gathers_total") == 1
    assert at_work.value("byzsgd_server_catch_ups_total") == 0
    assert at_work.value("byzsgd_node_phase", phase="scatter") == 1
    assert at_work.samples("byzsgd_node_phase") == {("scatter",): 1}
    # The own model was -1, the peers' -1, -2 and -3, and their median is -1.5.
    assert at_work.value("byzsgd_server_drift_max") == 2
    assert at_work.value("byzsgd_server_drift_median") == 1
    assert at_work.value("byzsgd_server_drift_ratio") == pytest.approx(2 / 1.5)
    assert at_work.value("byzsgd_server_contraction_ratio") == 0.5
    assert at_work.samples("byzsgd_server_votes_total") == {("w1",): 1, ("w2",): 1, ("w3",): 1}
    assert at_work.samples("byzsgd_server_left_out_total") == {("w3",): 1}


def test_a_vote_that_came_late_is_no_vote(server: Any) -> None:
    """Of four workers three are a quorum."""
    s1 = server()
    for peer in ("w1", "w2", "w3", "w4"):
        s1.receives(peer, Gradient(0, np.float32([1])))
    s1.works()

    votes = Watched(s1.node, s1.now).samples("byzsgd_server_votes_total")
    assert votes == {("w1",): 1, ("w2",): 1, ("w3",): 1}


@pytest.mark.parametrize(("state", "value"), [(State.VIOLATED, 1), (State.FADED, 0)])
def test_a_violated_condition_is_told_from_a_faded_gradient(
    at_work: Watched, state: State, value: float
) -> None:
    """The ratio is above 1 in both cases."""
    at_work.node.progress.variance.state = state
    assert at_work.value("byzsgd_server_variance_violated") == value


def test_a_peer_with_another_cluster_file_is_shown(
    server: Any, cluster: Callable[..., Cluster]
) -> None:
    """Until it comes with the right one."""
    s1 = server()
    s1.receives("w2", Hello(0, cluster(seed=9).digests()))
    shown = Watched(s1.node, s1.now).samples("byzsgd_node_peer_differs")
    assert {peer for (peer,), value in shown.items() if value} == {"w2"}
    assert len(shown) == 8

    s1.receives("w2", Hello(0, s1.node.cluster.digests()))
    assert set(Watched(s1.node, s1.now).samples("byzsgd_node_peer_differs").values()) == {0}


def test_what_the_cluster_tolerates_is_shown(at_work: Watched) -> None:
    """So that rules can tell what more nodes say than may lie."""
    cluster = at_work.node.cluster
    assert at_work.samples("byzsgd_node_tolerated") == {
        ("servers",): cluster.f_servers,
        ("workers",): cluster.f_workers,
    }


def test_a_worker_counts_what_it_did(learning: Watched) -> None:
    """Gradients, examples, steps passed over, pulls and the last loss."""
    assert learning.value("byzsgd_node_step") == 5
    assert learning.value("byzsgd_node_steps_total") == 2
    assert learning.value("byzsgd_worker_samples_total") == 2 * learning.node.cluster.batch_size
    assert learning.value("byzsgd_worker_skipped_steps_total") == 4
    assert learning.value("byzsgd_worker_loss") == 0
    assert learning.value("byzsgd_node_pulls_total") == 5
    assert learning.samples("byzsgd_node_work_seconds_count") == {
        ("coordinate_median",): 2,
        ("gradient",): 2,
    }


def test_refusals_of_node_and_transport_are_added_up(at_work: Watched) -> None:
    """By peer and reason: a closed set, for strangers have one name together."""
    assert at_work.samples("byzsgd_node_refused_total") == {
        ("stranger", "stranger"): 7,
        ("w1", "equivocation"): 1,
        ("w4", "non-finite"): 2,
    }


def test_the_transports_counters_are_shown(at_work: Watched) -> None:
    """Messages and bytes by kind and direction, what was dropped, and the connections."""
    assert at_work.samples("byzsgd_node_messages_total") == {
        ("gradient", "received"): 5,
        ("model", "sent"): 2,
    }
    assert at_work.samples("byzsgd_node_message_bytes_total") == {
        ("gradient", "received"): 500,
        ("model", "sent"): 200,
    }
    assert at_work.samples("byzsgd_node_dropped_total") == {("s2", "gather"): 3}
    assert at_work.value("byzsgd_node_connected_peers") == 2
    assert at_work.value("byzsgd_node_event_loop_lag_seconds") == 0.25


def test_a_wait_falls_into_its_bucket(at_work: Watched) -> None:
    """0.3 s for the gradients and none for the gather: buckets are cumulative, the last is all."""
    buckets = at_work.samples("byzsgd_node_quorum_wait_seconds_bucket")

    assert [float(bound) for (bound,) in buckets] == [*map(float, SECONDS_BOUNDS), float("inf")]
    assert [buckets[bound,] for bound in ("0.001", "0.25", "0.5", "60.0", "+Inf")] == [
        1,
        1,
        2,
        2,
        2,
    ]
    assert at_work.value("byzsgd_node_quorum_wait_seconds_count") == 2
    assert at_work.value("byzsgd_node_quorum_wait_seconds_sum") == pytest.approx(0.3)


def test_the_margin_counts_who_was_heard_of_lately(at_work: Watched) -> None:
    """Alive peers beyond the quorum; the server itself is one of the servers."""
    assert quorum_margins(at_work.node, at_work.now) == {"servers": 0, "workers": 0}
    assert quorum_margins(at_work.node, at_work.now + ALIVE_SECONDS) == {"servers": 0, "workers": 0}

    later = at_work.now + ALIVE_SECONDS + 0.1
    assert quorum_margins(at_work.node, later) == {"servers": -3, "workers": -3}
    at_work.now = later
    assert at_work.samples("byzsgd_node_quorum_margin") == {("servers",): -3, ("workers",): -3}


def test_a_wait_names_what_and_whom_it_is_for(at_work: Watched) -> None:
    """Seconds by kind of message, and 1 for each peer that has not answered."""
    at_work.now += 2.5
    assert at_work.samples("byzsgd_node_waiting_seconds") == {
        ("gradients",): 2.5,
        ("gather models",): 0,
    }
    waiting_for = at_work.samples("byzsgd_node_waiting_for")
    assert {peer for (peer,), value in waiting_for.items() if value} == {"w2", "w3", "w4"}
    assert len(waiting_for) == 8, "all other servers and workers, and no operator"


def test_a_worker_waits_for_models(worker: Any) -> None:
    """Of servers; it hears of nobody else."""
    w1 = worker()
    w1.waits(0.5)
    watched = Watched(w1.node, w1.now)

    assert watched.samples("byzsgd_node_waiting_seconds") == {("models",): 0.5}
    assert watched.samples("byzsgd_node_waiting_for") == {(f"s{n}",): 1 for n in range(1, 6)}


def test_who_works_waits_for_nobody(worker: Any) -> None:
    """All are zero."""
    w1 = worker()
    for peer in ("s1", "s2", "s3", "s4"):
        w1.receives(peer, Model(0, np.float32([0])))
    watched = Watched(w1.node, w1.now + 9)

    assert set(watched.samples("byzsgd_node_waiting_seconds").values()) == {0}
    assert set(watched.samples("byzsgd_node_waiting_for").values()) == {0}


def test_peers_are_shown_with_when_they_were_seen_and_whether_they_are_silent(
    at_work: Watched,
) -> None:
    """Who was never seen has no age."""
    at_work.now += 7
    age = at_work.samples("byzsgd_node_peer_last_seen_seconds")
    silent = at_work.samples("byzsgd_node_peer_silent")

    assert set(age) == {("w1",), ("w2",), ("w3",), ("s2",), ("s3",), ("s4",)}
    assert age["w1",] == 7
    assert {peer for (peer,), value in silent.items() if value} == {"s2"}
    assert len(silent) == 8


def test_a_worker_has_a_margin_of_servers_alone(learning: Watched) -> None:
    """It waits for nobody else."""
    assert quorum_margins(learning.node, learning.now) == {"servers": 0}


def test_a_scrape_changes_nothing(watched: Watched) -> None:
    """Two in a row say the same: a collector reads."""
    registry = CollectorRegistry()
    registry.register(watched.collector())

    assert generate_latest(registry) == generate_latest(registry)


def test_the_number_of_series_is_bounded(server: Any, cluster: Callable[..., Cluster]) -> None:
    """Whoever sends whatever: labels come from the cluster file and from enums."""
    s1 = server()

    def series() -> Iterator[Any]:
        for family in Watched(s1.node, s1.now).families():
            yield from family.samples

    everybody = [*s1.node.cluster.servers, *s1.node.cluster.workers, "op"]
    for step in range(30):
        for peer in everybody:
            s1.receives(peer, Gradient(step, np.float32([step])), Model(step, np.float32([1])))
    peers = len(s1.node.cluster.nodes) + 1
    assert len(list(series())) < 100 + peers * len(Reason)


def test_checkpoints_are_counted_where_they_are_kept(server: Any) -> None:
    """Written, failed by reason, whether they fail now, and the newest one's step and age."""
    saves = Saves(written=3, step=40, at=2.0, error="full")
    saves.failed[Failure.FULL] = 2
    collector = NodeCollector(
        server().node, lambda: STATISTICS, lambda: 0.0, lambda: 12.0, saves=saves
    )
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
        if "checkpoint" in sample.name
    }

    assert found == {
        ("byzsgd_server_checkpoints_total",): 3,
        ("byzsgd_server_checkpoint_failures_total", "full"): 2,
        ("byzsgd_server_checkpoint_failures_total", "read-only"): 0,
        ("byzsgd_server_checkpoint_failures_total", "permission"): 0,
        ("byzsgd_server_checkpoint_failures_total", "other"): 0,
        ("byzsgd_server_checkpoint_failing",): 1,
        ("byzsgd_server_checkpoint_step",): 40,
        ("byzsgd_server_checkpoint_age_seconds",): 10,
    }
