"""Runs one training in memory: the nodes that the daemons run, in one thread and virtual time.

As a program it takes one description of a run a line, and answers each with its outcome; several
of these use several cores.
"""

import json
import os
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations
from math import inf
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TextIO

import numpy as np

from byzsgd.aggregation import AggregationError
from byzsgd.cluster import Cluster, Role
from byzsgd.errors import ByzsgdError
from byzsgd.protocol import Aggregate, Aggregated, ParameterServer
from byzsgd.protocol.work import aggregate
from byzsgd.simulation import Coalition, Simulation, coalition_of
from byzsgd.tasks import Task, load_task
from byzsgd.vectors import Vector, distance, norm
from byzsgd_daemons.evaluate.plan import AVERAGED, Run
from byzsgd_daemons.evaluate.results import Outcome, State
from byzsgd_daemons.init import LOCALHOST, OPERATOR, Addresses, cluster_text, identities
from byzsgd_daemons.local import Drill, Point

STALL_SECONDS = 120.0
"""Virtual time without a step after which a training is given up: all have pulled often."""


def train(run: Run, *, checked: bool = False) -> Outcome:
    """Train to the last step, or until no step is made any more.

    Args:
        run: What to run.
        checked: Whether the promises of the protocol are checked at every event: a third slower.

    Raises:
        ByzsgdError: If there is no such task, attack or cluster.
        AssertionError: If a promise is broken.
    """
    started = time.monotonic()
    cluster = cluster_of(run)
    task = _task(cluster.task)
    simulation = Simulation(
        cluster,
        task,
        seed=cluster.seed,
        liars=_coalition(run.drill, cluster, task),
        work=_models_averaged if run.models_averaged else aggregate,
        checked=checked,
    )
    observer = _Observer(run, simulation)
    try:
        simulation.run_until(observer, seconds=inf)
        why = observer.standstill()
    except AggregationError as broken:
        # A server that lies have driven out of all bounds: in daemons it would say no more.
        why = f"diverged at step {observer.step}: {broken}"
    return Outcome(
        state=State.STALLED if why else State.DONE,
        sentence=why,
        wall_seconds=time.monotonic() - started,
        points=tuple(observer.points(task)),
        drift=tuple(observer.drift()) if run.drift else (),
        messages=dict(simulation.messages),
        bytes=dict(simulation.bytes),
        pulls=sum(node.progress.pulls for node in simulation.nodes.values()),
        parameters=next(len(server.vector) for server in simulation.servers.values()),
    )


def cluster_of(run: Run) -> Cluster:
    """The cluster of a run, without keys, with what suits the rest where its plan says nothing."""
    plan = run.plan
    names = [*identities(plan, Role.SERVER), *identities(plan, Role.WORKER), OPERATOR]
    addresses = [f"{LOCALHOST}:{1000 + 2 * index}" for index in range(plan.servers)]
    text = cluster_text(plan, Addresses(servers=addresses, http={}), dict.fromkeys(names, ""))
    return Cluster.from_mapping(tomllib.loads(run.with_quorums(text)), keys=False)


def _coalition(drill: Drill, cluster: Cluster, task: Task) -> Coalition | None:
    liars = drill.liars(cluster)
    if not liars:
        return None
    return coalition_of(
        cluster,
        liars,
        lambda: task,
        attack=drill.attack,
        options=drill.options,
        server_attack=drill.server_attack,
        server_options=drill.server_options,
        timing=drill.timing,
    )


@cache
def _task(name: str) -> Task:
    import torch

    torch.set_num_threads(1)  # More are slower for models as small as these.
    return load_task(name, {}, directory=Path())


def _models_averaged(effect: Aggregate) -> Aggregated:
    """What a server or worker computes that trusts all servers: the mean of their models."""
    return aggregate(replace(effect, rule=AVERAGED) if effect.model is None else effect)


class _Observer:
    """Looks at every server after every event, and keeps the models of the steps that count."""

    def __init__(self, run: Run, simulation: Simulation) -> None:
        self.step = 0
        """The furthest step of a correct server."""
        self._simulation = simulation
        self._steps = set(range(run.steps() + 1)) if run.drift else set(run.evaluated())
        self._evaluated = run.evaluated()
        self._servers = simulation.servers
        self._seen = dict.fromkeys(self._servers, -1)
        self._models: dict[int, dict[str, Vector]] = {}
        self._seconds: dict[int, float] = {}
        self._losses: dict[int, float | None] = {}
        self._progress = 0.0
        self._stalled = False

    def __call__(self) -> bool:
        """Whether the training has ended, one way or the other."""
        now = self._simulation.timeline.now
        for identity, server in self._servers.items():
            # Of a gather step an operator is told the contracted model.
            if self._seen[identity] != server.model_step and not server.is_gathering():
                self._note(identity, server, now)
        self._stalled = now - self._progress > STALL_SECONDS
        return self._stalled or all(server.done for server in self._servers.values())

    def _note(self, identity: str, server: ParameterServer, now: float) -> None:
        step = server.model_step
        self._seen[identity] = step
        if step > self.step or step == 0:
            self.step, self._progress = step, now
        if step in self._steps:
            self._seconds.setdefault(step, now)
            self._losses.setdefault(step, self._loss())
            self._models.setdefault(step, {})[identity] = server.vector

    def _loss(self) -> float | None:
        nodes = self._simulation.nodes
        losses = [node.progress.loss for who, node in nodes.items() if who not in self._servers]
        known = [loss for loss in losses if loss is not None]
        return float(np.mean(known)) if known else None

    def standstill(self) -> str:
        """Why the training was given up, or nothing if it was not."""
        if all(server.done for server in self._servers.values()):
            return ""
        now = self._simulation.timeline.now
        name, server = min(self._servers.items(), key=lambda item: item[1].model_step)
        waiting = server.waiting()
        # Nothing is lost here: a correct node is lacking only if what it says is not finite.
        broken = waiting and not self._simulation.nodes.keys().isdisjoint(waiting.lacking)
        words = "diverged, and stands still" if broken else "stands still"
        return f"{words} at step {self.step}: {name} {server.sentence(now)}"

    def points(self, task: Task) -> Iterator[Point]:
        """The evaluations, as an operator would make them."""
        for step in self._evaluated:
            models = self._finite(step)
            if not models:
                continue
            middle = aggregate(Aggregate(step, _MEDIAN, tuple(models), tuple(models.values()), 0))
            accuracy = task.accuracy(middle.vector)
            drift = _drift(models.values())
            yield Point(
                step=step,
                seconds=self._seconds[step],
                accuracy=accuracy,
                accuracy_worst=min([accuracy, *map(task.accuracy, models.values())]),
                drift=drift,
                drift_ratio=drift / (norm(middle.vector) or 1.0),
                loss=self._losses[step],
            )

    def drift(self) -> Iterator[tuple[int, float]]:
        """Every step that several correct servers' models were seen of, and their drift."""
        for step in sorted(self._models):
            models = self._finite(step)
            if len(models) > 1:
                yield step, _drift(models.values())

    def _finite(self, step: int) -> dict[str, Vector]:
        models = self._models.get(step, {})
        return {who: models[who] for who in sorted(models) if np.isfinite(models[who]).all()}


_MEDIAN = "coordinate_median"


def _drift(models: Iterable[Vector]) -> float:
    return max((distance(one, other) for one, other in combinations(models, 2)), default=0.0)


def main() -> None:
    """Answer every description of a run with its outcome; end with whoever asks."""
    # A user's task may print, or read: that is no answer, and takes no question.
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    lines: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(asked, lines), daemon=True).start()
    while True:
        outcome = _outcome(json.loads(lines.get()))
        print(json.dumps(outcome.as_json(), allow_nan=False), file=answers, flush=True)


def _outcome(description: Mapping[str, Any]) -> Outcome:
    try:
        return train(Run.described(description))
    except (ByzsgdError, AssertionError) as error:
        return Outcome(state=State.FAILED, sentence=str(error) or repr(error))


def _listen(asked: TextIO, lines: "SimpleQueue[str]") -> None:
    """Hand on what is asked; once nobody can ask any more, end the process, amid a run too."""
    for line in asked:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
