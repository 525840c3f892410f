"""Runs one training in real daemons on this machine, and reads their counters at its end."""

import asyncio
import http.client
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from byzsgd.cluster import Cluster, Member, Role, split_address
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd_daemons import init, local
from byzsgd_daemons.evaluate.plan import Run
from byzsgd_daemons.evaluate.results import Outcome, State
from byzsgd_daemons.local import Training
from byzsgd_daemons.nursery import Nursery

METRICS_SECONDS = 10.0
"""How long a node may take to show its metrics: it may be busy, and nobody waits."""

STALL_SECONDS = 20.0
"""Without a step for so long, a training is given up."""

METRICS_BYTES_MAX = 1 << 20
"""Of a node's metrics: far more than it has."""


def train(
    run: Run,
    shown: Callable[[int], None],
    *,
    device: str = "cpu",
    nursery: Nursery | None = None,
) -> Outcome:
    """Train with real processes, to the last step or until no step is made any more.

    A training of which a daemon ended by itself has failed, however it went on.

    Args:
        run: What to run.
        shown: Told of every evaluation's step.
        device: Where workers compute.
        nursery: Starts the daemons; None for one of this run's own.

    Raises:
        ConfigError: If a file or a word is wrong, which no other try would mend.
    """
    assert not any((run.in_memory, run.models_averaged, run.drift)), "in memory only"
    started = time.monotonic()
    watcher = _Watcher(shown)
    try:
        with tempfile.TemporaryDirectory(prefix="byzsgd-") as scratch:
            file = init.create(Path(scratch), run.plan, local.free_addresses(run.plan))
            file.write_text(run.with_quorums(file.read_text()))
            training = asyncio.run(
                local.train(
                    file,
                    run.drill,
                    watcher,
                    logs=Path(scratch) / "logs",
                    device=device,
                    stall_seconds=STALL_SECONDS,
                    every=run.every,
                    nursery=nursery,
                )
            )
    except ConfigError:
        raise
    except ByzsgdError as error:
        return _failed(str(error), started)
    if training.ended:
        # Without its liars a training is none under attack, and whoever else died was correct.
        return _failed("\n".join(training.ended.values()), started)
    return Outcome(
        state=State.STALLED if training.stalled else State.DONE,
        sentence=_why(training),
        wall_seconds=time.monotonic() - started,
        points=tuple(training.points),
        messages=watcher.counts.messages,
        bytes=watcher.counts.bytes,
        pulls=watcher.counts.pulls,
        parameters=0 if training.vector is None else len(training.vector),
    )


def _failed(sentence: str, started: float) -> Outcome:
    seconds = time.monotonic() - started
    return Outcome(state=State.FAILED, sentence=sentence, wall_seconds=seconds)


def _why(training: Training) -> str:
    """Why a training was given up, or nothing if it was not."""
    diverged = training.stalled and training.diverged()
    return f"diverged, and {training.stalled}" if diverged else training.stalled


@dataclass(kw_only=True, slots=True)
class Counts:
    """What correct nodes have counted since their start."""

    messages: Counter[str] = field(default_factory=Counter)
    """Received, by kind."""
    bytes: Counter[str] = field(default_factory=Counter)
    """Of these messages."""
    pulls: int = 0
    """Sent."""


class _Watcher:
    """A view that shows the step, and reads the counters while the daemons still run."""

    def __init__(self, shown: Callable[[int], None]) -> None:
        self._shown = shown
        self.counts = Counts()

    def refresh(self, training: Training) -> None:
        """Nothing: steps are shown when they were evaluated."""

    def evaluated(self, training: Training) -> None:
        """Show the step; after the last one, ask what it took to get there."""
        step = training.points[-1].step
        self._shown(step)
        if step >= training.cluster.steps:
            self.counts = counts(training.cluster, training.lying)


def counts(cluster: Cluster, lying: frozenset[str]) -> Counts:
    """What the correct nodes of a running cluster have counted; nothing of who does not answer."""
    found = Counts()
    for node in cluster.nodes:
        if node.role is not Role.OPERATOR and node.id not in lying and node.http:
            _count(found, _metrics(node))
    return found


def _metrics(node: Member) -> str:
    host, port = split_address(node.http)
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=METRICS_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read(METRICS_BYTES_MAX).decode()
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    finally:
        connection.close()


def _count(found: Counts, metrics: str) -> None:
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels: Mapping[str, str] = sample.labels
            received = labels.get("direction") == "received"
            match sample.name:
                case "byzsgd_node_messages_total" if received:
                    found.messages[labels["kind"]] += int(sample.value)
                case "byzsgd_node_message_bytes_total" if received:
                    found.bytes[labels["kind"]] += int(sample.value)
                case "byzsgd_node_pulls_total":
                    found.pulls += int(sample.value)
