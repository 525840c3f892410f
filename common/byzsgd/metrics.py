"""What Prometheus sees of a node: a collector that reads its state when scraped.

Labels come from closed sets (the cluster file and enums), so their number is bounded.
"""

import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from byzsgd import __version__
from byzsgd.checkpoint import Failure, Saves
from byzsgd.cluster import Role, Variant
from byzsgd.messages import Reason
from byzsgd.protocol import Node, ParameterServer
from byzsgd.protocol.progress import SECONDS_BOUNDS, Buckets
from byzsgd.protocol.variance import State
from byzsgd.transport import Statistics

ALIVE_SECONDS = 10.0
"""A peer that was heard of within this time counts as alive for the quorum margin."""


class NodeCollector(Collector):
    """Reads a node, its transport and its host; nothing is counted for its sake."""

    def __init__(
        self,
        node: Node,
        statistics: Callable[[], Statistics],
        lag_seconds: Callable[[], float],
        clock: Callable[[], float],
        *,
        saves: Saves | None = None,
        silent: Callable[[], Collection[str]] = frozenset,
        http_refused: Callable[[], int] = int,
    ) -> None:
        """Watch a node.

        Args:
            node: The state machine.
            statistics: The transport's counters.
            lag_seconds: How late the event loop was at the last look.
            clock: The clock that the node's ``now`` comes from.
            saves: What became of a server's checkpoints; None where it keeps none.
            silent: The peers that were there and say nothing any more.
            http_refused: How many connections the node's HTTP has refused.
        """
        self._silent = silent
        self._http_refused = http_refused
        self._node = node
        self._saves = saves
        self._statistics = statistics
        self._lag_seconds = lag_seconds
        self._clock = clock
        self._role = node.cluster.role(node.identity) or Role.WORKER

    def collect(self) -> Iterable[Metric]:
        """All metrics of the node, as they are now."""
        statistics = self._statistics()
        yield from self._of_node(statistics)
        yield from self._of_transport(statistics)
        synchronous = self._node.cluster.variant is Variant.SYNCHRONOUS
        if synchronous:
            yield from self._of_rounds()
        if isinstance(self._node, ParameterServer):
            yield from self._of_server()
            if self._saves is not None:
                yield from self._of_checkpoints(self._saves)
        else:
            yield from self._of_worker()
            if synchronous:
                yield from self._of_filters()

    def _of_node(self, statistics: Statistics) -> Iterator[Metric]:
        node, progress = self._node, self._node.progress
        build = GaugeMetricFamily(
            "byzsgd_build_info",
            "Always 1; the labels say what runs.",
            labels=["version", "python", "role"],
        )
        build.add_metric([__version__, platform.python_version(), self._role.value], 1)
        yield build
        yield GaugeMetricFamily("byzsgd_node_step", "Learning step the node is at.", node.step)
        phase = GaugeMetricFamily(
            "byzsgd_node_phase", "1 for the phase that the node is in.", labels=["phase"]
        )
        phase.add_metric([node.phase()], 1)
        yield phase
        yield CounterMetricFamily(
            "byzsgd_node_steps",
            "Learning steps completed: updates of a server, gradients of a worker.",
            progress.steps,
        )
        yield CounterMetricFamily(
            "byzsgd_node_pulls",
            "Pulls sent: something was late, or a worker of the synchronous variant asked.",
            progress.pulls,
        )
        yield GaugeMetricFamily(
            "byzsgd_node_event_loop_lag_seconds",
            "How late the event loop was at the last look.",
            self._lag_seconds(),
        )
        waits = HistogramMetricFamily(
            "byzsgd_node_quorum_wait_seconds", "Time from the start of a wait to its quorum."
        )
        waits.add_metric([], *_histogram(progress.quorum_waits))
        yield waits
        work = HistogramMetricFamily(
            "byzsgd_node_work_seconds",
            "Time of heavy work, by aggregation rule, and of gradients and checkpoints.",
            labels=["kind"],
        )
        for kind, buckets in sorted(progress.work.items()):
            work.add_metric([kind], *_histogram(buckets))
        yield work
        yield from self._of_waiting()
        yield from self._of_presence()
        yield self._margins()
        yield self._tolerated()
        refused = CounterMetricFamily(
            "byzsgd_node_refused",
            "Messages that did not count, by sender and reason.",
            labels=["peer", "reason"],
        )
        for (peer, reason), count in sorted(refusals(node, statistics).items()):
            refused.add_metric([peer, reason.value], count)
        yield refused
        yield CounterMetricFamily(
            "byzsgd_node_http_refused",
            "HTTP connections closed at once, as too many were open, in all or of one address.",
            self._http_refused(),
        )

    def _of_waiting(self) -> Iterator[Metric]:
        waiting, now = self._node.waiting(), self._clock()
        seconds = GaugeMetricFamily(
            "byzsgd_node_waiting_seconds",
            "How long the node has waited for this now; 0 while it works.",
            labels=["what"],
        )
        lacking = GaugeMetricFamily(
            "byzsgd_node_waiting_for",
            "1 for a peer whose vote is lacking in the quorum waited for.",
            labels=["peer"],
        )
        server = isinstance(self._node, ParameterServer)
        for what in ("gradients", "gather models") if server else ("models",):
            this = waiting is not None and waiting.what == what
            seconds.add_metric([what], now - waiting.since if waiting and this else 0)
        for peer in self._peers():
            lacking.add_metric([peer], waiting is not None and peer in waiting.lacking)
        yield seconds
        yield lacking

    def _of_presence(self) -> Iterator[Metric]:
        now, silent = self._clock(), self._silent()
        age = GaugeMetricFamily(
            "byzsgd_node_peer_last_seen_seconds",
            "Time since a peer was last heard of.",
            labels=["peer"],
        )
        state = GaugeMetricFamily(
            "byzsgd_node_peer_silent",
            "1 for a peer that was there and says nothing any more.",
            labels=["peer"],
        )
        differs = GaugeMetricFamily(
            "byzsgd_node_peer_differs",
            "1 for a peer that runs another cluster file: its votes do not count.",
            labels=["peer"],
        )
        for peer in self._peers():
            if peer in self._node.last_seen:
                age.add_metric([peer], now - self._node.last_seen[peer])
            state.add_metric([peer], peer in silent)
            differs.add_metric([peer], peer in self._node.differing)
        yield age
        yield state
        yield differs

    def _peers(self) -> list[str]:
        """The peers that the node hears of in training."""
        cluster = self._node.cluster
        peers = cluster.servers
        if isinstance(self._node, ParameterServer):
            peers += cluster.workers
        return [peer for peer in peers if peer != self._node.identity]

    def _margins(self) -> Metric:
        margin = GaugeMetricFamily(
            "byzsgd_node_quorum_margin",
            "Peers heard of in the last 10 seconds beyond the quorum; below 0 nothing goes on.",
            labels=["of"],
        )
        for role, margin_of in quorum_margins(self._node, self._clock()).items():
            margin.add_metric([role], margin_of)
        return margin

    def _tolerated(self) -> Metric:
        cluster = self._node.cluster
        tolerated = GaugeMetricFamily(
            "byzsgd_node_tolerated",
            "How many servers or workers may be Byzantine, by the node's cluster file.",
            labels=["of"],
        )
        for role, f in (("servers", cluster.f_servers), ("workers", cluster.f_workers)):
            tolerated.add_metric([role], f)
        return tolerated

    def _of_transport(self, statistics: Statistics) -> Iterator[Metric]:
        messages = CounterMetricFamily(
            "byzsgd_node_messages", "Messages by kind and direction.", labels=["kind", "direction"]
        )
        size = CounterMetricFamily(
            "byzsgd_node_message_bytes",
            "Bytes of messages by kind and direction, before encryption.",
            labels=["kind", "direction"],
        )
        for (kind, direction), count in sorted(statistics.messages.items()):
            messages.add_metric([kind, direction], count)
            size.add_metric([kind, direction], statistics.bytes[kind, direction])
        yield messages
        yield size
        dropped = CounterMetricFamily(
            "byzsgd_node_dropped",
            "Messages not sent because the peer was away or its queue full.",
            labels=["peer", "kind"],
        )
        for (peer, kind), count in sorted(statistics.dropped.items()):
            dropped.add_metric([peer, kind], count)
        yield dropped
        yield GaugeMetricFamily(
            "byzsgd_node_connected_peers",
            "Peers that this node has a connection to.",
            len(statistics.connected),
        )

    def _of_server(self) -> Iterator[Metric]:
        progress = self._node.progress
        yield CounterMetricFamily("byzsgd_server_gathers", "Gathers completed.", progress.gathers)
        yield CounterMetricFamily(
            "byzsgd_server_catch_ups",
            "Times the server adopted its peers' models because it had fallen behind.",
            progress.catch_ups,
        )
        drift = progress.drift
        yield GaugeMetricFamily(
            "byzsgd_server_drift_max",
            "Largest Euclidean distance from the own model to a peer's at the last gather.",
            drift.maximum,
        )
        yield GaugeMetricFamily(
            "byzsgd_server_drift_median",
            "Median Euclidean distance from the own model to the peers' at the last gather.",
            drift.median,
        )
        yield GaugeMetricFamily(
            "byzsgd_server_drift_ratio",
            "Largest distance at the last gather, over the norm of the model.",
            drift.relative,
        )
        yield GaugeMetricFamily(
            "byzsgd_server_contraction_ratio",
            "Median distance of the votes to the contracted model, over that to the own before.",
            drift.contraction,
        )
        if progress.variance.ratio is not None:
            yield GaugeMetricFamily(
                "byzsgd_server_variance_ratio",
                "MDA's variance condition over the last updates, left side over right; "
                "above 1 nothing is promised.",
                progress.variance.ratio,
            )
        yield GaugeMetricFamily(
            "byzsgd_server_variance_violated",
            "1 while MDA's variance condition fails with the gradient still long.",
            progress.variance.state is State.VIOLATED,
        )
        votes = CounterMetricFamily(
            "byzsgd_server_votes",
            "Times a worker's gradient was in the quorum of an update.",
            labels=["worker"],
        )
        for worker, count in sorted(progress.votes.items()):
            votes.add_metric([worker], count)
        yield votes
        left_out = CounterMetricFamily(
            "byzsgd_server_left_out",
            "Times a worker's gradient was in the quorum and the rule did not select it.",
            labels=["worker"],
        )
        for worker, count in sorted(progress.left_out.items()):
            left_out.add_metric([worker], count)
        yield left_out

    def _of_checkpoints(self, saves: Saves) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "byzsgd_server_checkpoints", "Checkpoints written since the start.", saves.written
        )
        failed = CounterMetricFamily(
            "byzsgd_server_checkpoint_failures",
            "Checkpoints that the disk did not take, by reason.",
            labels=["reason"],
        )
        for failure in Failure:
            failed.add_metric([failure.value], saves.failed[failure])
        yield failed
        yield GaugeMetricFamily(
            "byzsgd_server_checkpoint_failing",
            "1 while the last checkpoint was not written.",
            saves.error is not None,
        )
        if saves.step is not None:
            yield GaugeMetricFamily(
                "byzsgd_server_checkpoint_step",
                "Step of the newest checkpoint, at which the server would resume.",
                saves.step,
            )
        yield GaugeMetricFamily(
            "byzsgd_server_checkpoint_age_seconds",
            "Time since the last checkpoint was written, or since the start.",
            self._clock() - saves.at,
        )

    def _of_worker(self) -> Iterator[Metric]:
        progress = self._node.progress
        yield CounterMetricFamily(
            "byzsgd_worker_samples",
            "Training examples that went into gradients.",
            progress.steps * self._node.cluster.batch_size,
        )
        yield CounterMetricFamily(
            "byzsgd_worker_skipped_steps",
            "Steps passed over because newer models were there.",
            progress.skipped,
        )
        if progress.loss is not None:
            yield GaugeMetricFamily(
                "byzsgd_worker_loss", "Loss on the last mini-batch.", progress.loss
            )

    def _of_rounds(self) -> Iterator[Metric]:
        missed = CounterMetricFamily(
            "byzsgd_node_missed_rounds",
            "Rounds of the synchronous variant that a peer was waited for in vain.",
            labels=["peer"],
        )
        passed_over = GaugeMetricFamily(
            "byzsgd_node_passed_over",
            "1 for a peer that is not waited for until it is in time again.",
            labels=["peer"],
        )
        for peer, count in sorted(self._node.progress.missed.items()):
            missed.add_metric([peer], count)
            passed_over.add_metric([peer], peer in self._node.progress.passed_over)
        yield missed
        yield passed_over

    def _of_filters(self) -> Iterator[Metric]:
        progress = self._node.progress
        yield CounterMetricFamily(
            "byzsgd_worker_scatter_steps",
            "Steps in which one server's model was to do: no gather, not the first ones.",
            progress.scatter_steps,
        )
        yield CounterMetricFamily(
            "byzsgd_worker_scatter_pulls",
            "Models pulled in those steps, refused and late ones included.",
            progress.scatter_pulls,
        )
        yield CounterMetricFamily(
            "byzsgd_worker_fallback_steps",
            "Steps in which every server's model was refused, and their median taken.",
            progress.fallbacks,
        )
        accepted = CounterMetricFamily(
            "byzsgd_worker_accepted",
            "Models of a single server that both filters accepted, by server.",
            labels=["server"],
        )
        for server, count in sorted(progress.accepted.items()):
            accepted.add_metric([server], count)
        yield accepted
        filtered = CounterMetricFamily(
            "byzsgd_worker_filtered",
            "Models that a filter refused, by server and filter.",
            labels=["server", "filter"],
        )
        for (server, which), count in sorted(progress.filtered.items()):
            filtered.add_metric([server, which.value], count)
        yield filtered


def refusals(node: Node, statistics: Statistics) -> Counter[tuple[str, Reason]]:
    """What did not count, by peer and reason: refused by the node, or no message to begin with."""
    return node.progress.refused + Counter(statistics.refused)


def quorum_margins(node: Node, now: float) -> dict[str, int]:
    """For each kind of peer that a node waits for, how many are alive beyond the quorum.

    Args:
        node: A server (waits for workers and servers) or a worker (waits for servers).
        now: The clock that the node's ``now`` comes from.
    """
    cluster = node.cluster
    alive = {peer for peer, seen in node.last_seen.items() if now - seen <= ALIVE_SECONDS}
    servers = len(alive.intersection(cluster.servers))
    if not isinstance(node, ParameterServer):
        return {"servers": servers - cluster.server_quorum}
    return {
        "servers": servers + 1 - cluster.server_quorum,
        "workers": len(alive.intersection(cluster.workers)) - cluster.worker_quorum,
    }


def _histogram(buckets: Buckets) -> tuple[list[tuple[str, float]], float]:
    """Prometheus' cumulative buckets, and the sum of what was observed."""
    bounds = [*map(str, map(float, SECONDS_BOUNDS)), "+Inf"]
    return list(zip(bounds, map(float, accumulate(buckets.counts)), strict=True)), buckets.total
