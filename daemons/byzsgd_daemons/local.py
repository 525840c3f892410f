"""A whole cluster on this machine: real daemons with keys, watched while they train.

The daemons are forked from a nursery, as most of their start would be imports. They hold a pipe
that ends with this process, so none of them outlives it, whatever ends it.
"""

import asyncio
import random
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from byzsgd import attacks
from byzsgd.cluster import Cluster, Role
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd.messages import Reason
from byzsgd.simulation import Timing, timing_named
from byzsgd.tasks import Task, load_task
from byzsgd.vectors import Vector, distance, norm
from byzsgd_daemons import initial
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.fetch import operator_of
from byzsgd_daemons.init import LOCALHOST, OPERATOR, Addresses, Plan, identities
from byzsgd_daemons.nursery import ONE_THREAD as ONE_THREAD
from byzsgd_daemons.nursery import Child, Nursery
from byzsgd_daemons.operator import Answers, Operator
from byzsgd_daemons.watch import Status, statuses, times_refused

STOP_SECONDS = 5.0
"""Time that the daemons have to end, before they are killed."""

REFRESH_SECONDS = 0.5
"""How often every node is asked for its status."""

EVALUATIONS = 25
"""How often the model is evaluated in the course of a training."""

ENDLESS_EVERY = 25
"""Steps between two evaluations where a training has no end."""

ANSWER_SECONDS = 5.0
"""An evaluation tries this long before it looks whether there is any progress."""

PORT_FIRST, PORT_LAST = 20_000, 32_000
"""Where local clusters listen: below the ports that systems give to outgoing connections."""

LOG_LINES = 5
"""Of a daemon that ended, shown to say why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drill:
    """Who lies in a local cluster, and how."""

    attack: str | None = None
    """What lying workers do; None: no worker lies."""
    options: Mapping[str, float] = field(default_factory=dict)
    """Numbers of that attack."""
    server_attack: str | None = None
    """What lying servers do; None: no server lies."""
    server_options: Mapping[str, float] = field(default_factory=dict)
    """Numbers of that attack."""
    timing: str = Timing.EARLY.value
    """When they speak: a name of ``Timing``."""
    n_workers: int | None = None
    """How many workers lie; None: as many as the cluster tolerates."""
    n_servers: int | None = None
    """How many servers lie; None: as many as the cluster tolerates."""

    def check(self) -> None:
        """Return when there are such attacks, with such numbers, and such a timing.

        Raises:
            ConfigError: If there are not.
        """
        self.record()

    def record(self) -> dict[str, Any]:
        """What the liars do, every number of it, as plain JSON values: for logs and reports.

        Raises:
            ConfigError: If there is no such attack, number or timing.
        """
        said: dict[str, Any] = {}
        for key, role, attack, options in (
            ("attack", Role.WORKER, self.attack, self.options),
            ("server_attack", Role.SERVER, self.server_attack, self.server_options),
        ):
            said[key] = attack
            numbers = attacks.numbers(attacks.make(attack, role, **options)) if attack else {}
            said[f"{key}_options"] = numbers
        return {**said, "timing": timing_named(self.timing).value}

    def liars(self, cluster: Cluster) -> tuple[str, ...]:
        """The identities that lie: the last ones of each role.

        Raises:
            ConfigError: If there are not so many.
        """
        workers = cluster.f_workers if self.n_workers is None else self.n_workers
        servers = cluster.f_servers if self.n_servers is None else self.n_servers
        workers = workers if self.attack else 0
        servers = servers if self.server_attack else 0
        for count, n, role in ((workers, cluster.n_workers, "workers"),
                               (servers, cluster.n_servers, "servers")):  # fmt: skip
            if count > n:
                raise ConfigError(f"--lying-{role} {count}: there are only {n} {role}")
        return (
            *cluster.servers[cluster.n_servers - servers :],
            *cluster.workers[cluster.n_workers - workers :],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The model of one step, as an operator would leave with it."""

    step: int
    seconds: float
    """Since the first step."""
    accuracy: float
    """Of the median of a quorum's answers, on held-out data: a fraction."""
    accuracy_worst: float
    """Of the worst correct server's model."""
    drift: float
    """Largest Euclidean distance between two correct servers' models."""
    drift_ratio: float
    """``drift`` over the norm of the model."""
    loss: float | None
    """Mean of the correct workers' last losses."""


@dataclass(kw_only=True, slots=True)
class Training:
    """What is known of a training under way; views read it."""

    cluster: Cluster
    lying: frozenset[str]
    points: list[Point] = field(default_factory=list)
    found: dict[str, Status] = field(default_factory=dict)
    """The last /status of each node."""
    ended: dict[str, str] = field(default_factory=dict)
    """Daemons that ended by themselves, and how."""
    stalled: str = ""
    """Why the training was given up, in the words of a node that waits."""
    vector: Vector | None = None
    """``(d,)`` float32, the model of the last point."""
    began: int = 0
    """Which point is the first since the training was last started."""
    unwritten: str = ""
    """A sentence that says why the last points are not on disk; empty while they are."""

    def correct_servers(self) -> list[str]:
        """The servers that do not lie, sorted."""
        return [server for server in self.cluster.servers if server not in self.lying]

    def furthest(self) -> int:
        """The highest step that a correct server was seen at, -1 for none."""
        steps = [self.found.get(server, {}).get("step") for server in self.correct_servers()]
        return max((step for step in steps if isinstance(step, int)), default=-1)

    def hopeless(self) -> bool:
        """Whether so many daemons have ended that there can be no quorum any more."""
        gone = self.lying | self.ended.keys()
        servers = [server for server in self.cluster.servers if server not in gone]
        workers = [worker for worker in self.cluster.workers if worker not in gone]
        answer = self.lying if "adversary" not in self.ended else frozenset()
        lying_servers = len(answer.intersection(self.cluster.servers))
        lying_workers = len(answer.intersection(self.cluster.workers))
        return (
            len(servers) + lying_servers < self.cluster.server_quorum
            or len(workers) + lying_workers < self.cluster.worker_quorum
        )

    def diverged(self) -> bool:
        """Whether so many correct workers' gradients are not finite that there is no quorum."""
        correct = set(self.cluster.workers) - self.lying
        refused = correct.intersection(times_refused(self.found, Reason.NON_FINITE))
        may_lack = self.cluster.n_workers - self.cluster.worker_quorum
        return bool(self.points) and len(refused) > may_lack

    def steps_per_second(self) -> float:
        """Learning steps per second between the first and the last evaluation since the start."""
        points = self.points[self.began :]
        if len(points) < 2:
            return 0.0
        first, last = points[0], points[-1]
        return (last.step - first.step) / max(last.seconds - first.seconds, 1e-9)

    def troubles(self) -> list[str]:
        """What has gone wrong though the training goes on, a sentence each."""
        unsaved = []
        for server in self.correct_servers():
            saved = self.found.get(server, {}).get("checkpoint") or {}
            if saved.get("error"):
                unsaved.append(f"{server}: no checkpoint is saved ({saved['error']})")
        return [*self.ended.values(), *filter(None, [self.unwritten]), *unsaved]

    def seconds_left(self) -> float | None:
        """How long the rest will take at that speed, or None where nobody knows."""
        speed = self.steps_per_second()
        if not (self.cluster.steps and speed):
            return None
        return max(self.cluster.steps - self.reached(), 0) / speed

    def reached(self) -> int:
        """How many steps are made, by what was seen and evaluated."""
        return max(self.furthest(), *(point.step for point in self.points[-1:]), 0)

    def loss(self) -> float | None:
        """Mean of the correct workers' last losses, or None."""
        losses = [
            loss
            for worker in self.cluster.workers
            if worker not in self.lying
            and isinstance(loss := self.found.get(worker, {}).get("loss"), float)
        ]
        return sum(losses) / len(losses) if losses else None


class View(Protocol):
    """Shows a training to a person."""

    def refresh(self, training: Training) -> None:
        """The nodes were asked again."""

    def evaluated(self, training: Training) -> None:
        """There is a new point."""


def free_addresses(plan: Plan) -> Addresses:
    """Loopback addresses for a plan that nothing listens on now."""
    ports = _free_ports()
    servers = [f"{LOCALHOST}:{next(ports)}" for _ in range(plan.servers)]
    nodes = [*identities(plan, Role.SERVER), *identities(plan, Role.WORKER)]
    return Addresses(servers=servers, http={node: f"{LOCALHOST}:{next(ports)}" for node in nodes})


def _free_ports() -> Iterator[int]:
    """Ports that are free together with the next one, from a place that chance chooses."""
    first = random.randrange(PORT_FIRST, PORT_LAST - 2000, 2)
    for port in range(first, PORT_LAST, 2):
        try:
            with socket.socket() as one, socket.socket() as other:
                one.bind((LOCALHOST, port))
                other.bind((LOCALHOST, port + 1))
        except OSError:
            continue
        yield port
    raise ByzsgdError(f"no free ports between {first} and {PORT_LAST} on {LOCALHOST}")


async def train(
    cluster_file: Path,
    drill: Drill,
    view: View,
    *,
    logs: Path,
    device: str = "cpu",
    stall_seconds: float = float("inf"),
    every: int | None = None,
    nursery: Nursery | None = None,
    state: Path | None = None,
    earlier: Sequence[Point] = (),
) -> Training:
    """Run a cluster on this machine until its last step, or until cancelled.

    Args:
        cluster_file: With the keys of all its nodes beside it, as ``byzsgd init`` writes them.
        drill: Who lies.
        view: Shows how it goes.
        logs: Folder for a log of each daemon.
        device: Where workers compute: ``cpu``, ``cuda``, ``mps``.
        stall_seconds: Without a step for so long, the training is given up; at once if it has
            diverged. Infinite: never.
        every: Steps between two evaluations; None for about 25 of them.
        nursery: Starts the daemons; None for one of this training's own. Who runs many trainings,
            one after the other, saves what a nursery takes to start.
        state: Folder for the servers' checkpoints, from which they go on; None for none.
        earlier: Points of the training before it was stopped; those before its first new one stay.

    Raises:
        ByzsgdError: If a file is wrong, or if a daemon ends before the first step.
    """
    cluster = read_cluster(cluster_file)
    drill.check()
    training = Training(cluster=cluster, lying=frozenset(drill.liars(cluster)))
    settings = Settings(id=OPERATOR, cluster=cluster_file)
    identity, secret = operator_of(cluster, settings)
    async with Daemons(cluster_file, cluster, logs, nursery) as daemons:
        # Loaded while the nursery does its imports: either takes torch.
        loading = asyncio.create_task(asyncio.to_thread(_load, cluster, settings.folder))
        try:
            for worker in cluster.workers:
                if worker not in training.lying:
                    await daemons.start("worker", worker, "--device", device)
            task, first = await loading
        finally:
            loading.cancel()
        theta_0 = logs / "initial.safetensors"
        initial.write(first, theta_0)
        for server in cluster.servers:
            if server not in training.lying:
                words = ("--state", str(state / server)) if state else ()
                await daemons.start("server", server, "--initial", str(theta_0), *words)
        if training.lying:
            await daemons.start_liars(training.lying, drill, theta_0)
        async with Operator(cluster, identity, secret, len(first.vector)) as operator:
            tasks = {
                asyncio.create_task(_watch(training, daemons, view, stall_seconds)),
                asyncio.create_task(
                    _evaluate(training, task, operator, view, stall_seconds, every, earlier)
                ),
            }
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in tasks:
                    each.cancel()
                await asyncio.wait(tasks)
            for each in done:
                each.result()
            training.ended = daemons.ended()  # Also since the last look.
    return training


def _load(cluster: Cluster, folder: Path) -> tuple[Task, initial.Initial]:
    task = load_task(cluster.task, cluster.task_options, directory=folder)
    return task, initial.of_task(task, cluster)


async def _watch(training: Training, daemons: "Daemons", view: View, stall_seconds: float) -> None:
    """Ask every node for its status, for ever or until the training has diverged."""
    furthest = -1
    while True:
        training.ended = daemons.ended()
        if training.ended and (not training.points or training.hopeless()):
            raise ByzsgdError("\n".join(training.ended.values()))
        training.found = await statuses(training.cluster)
        view.refresh(training)
        stands, furthest = training.furthest() == furthest, training.furthest()
        if stall_seconds < float("inf") and stands and training.diverged():
            training.stalled = _standstill(training)
            return
        await asyncio.sleep(REFRESH_SECONDS)


async def _evaluate(
    training: Training,
    task: Task,
    operator: Operator,
    view: View,
    stall_seconds: float,
    every: int | None,
    earlier: Sequence[Point],
) -> None:
    """Pull the model of every few steps and evaluate it, until the last step or a standstill."""
    cluster = training.cluster
    started, before = time.monotonic(), list[Point]()
    pulling = asyncio.create_task(_pull(training, operator, 0, stall_seconds))
    try:
        while answers := await pulling:
            now = time.monotonic()
            seconds = now - started
            if training.vector is None:
                before = [point for point in earlier if point.step <= answers.step]
                # As late as the last one before the stop: what was between them took no time.
                seconds = before[-1].seconds if before else 0.0
                started = now - seconds
            ended = 0 < cluster.steps <= answers.step
            if not ended:
                # Asked for before this one is evaluated: it may be there before that is done.
                following = _following(cluster, answers.step, every)
                pulling = asyncio.create_task(_pull(training, operator, following, stall_seconds))
            vector = await asyncio.to_thread(answers.median)
            point = await asyncio.to_thread(_point, training, task, answers, vector, seconds)
            if training.vector is None:
                known = bool(before) and before[-1].step == answers.step
                training.points += before if known else [*before, point]
                training.began = len(training.points) - 1
            else:
                training.points.append(point)
            training.vector = vector
            view.evaluated(training)
            if ended:
                return
    finally:
        pulling.cancel()


async def _pull(
    training: Training, operator: Operator, step: int, stall_seconds: float
) -> Answers | None:
    """The servers' models of a step, or None if no server has made a step for too long."""
    correct = training.correct_servers()
    reached, progress = -1, time.monotonic()
    while True:
        try:
            return await operator.models(step, seconds=ANSWER_SECONDS, besides=correct)
        except ByzsgdError:
            furthest = training.furthest()
            if furthest > reached:
                reached, progress = furthest, time.monotonic()
            elif time.monotonic() - progress > stall_seconds:
                training.stalled = _standstill(training)
                return None


def _standstill(training: Training) -> str:
    """Where a training stands still, and what a server says to that."""
    first = training.found.get(training.correct_servers()[0], {})
    return f"stands still at step {training.furthest()}: {first.get('sentence', 'no answer')}"


def _following(cluster: Cluster, step: int, every: int | None) -> int:
    """The step to evaluate after a step."""
    if not cluster.steps:
        return (step // ENDLESS_EVERY + 1) * ENDLESS_EVERY
    every = every or max(cluster.steps // EVALUATIONS, 1)
    return min((step // every + 1) * every, cluster.steps)


def _point(
    training: Training, task: Task, answers: Answers, vector: Vector, seconds: float
) -> Point:
    models = [answers.models[s] for s in training.correct_servers() if s in answers.models]
    accuracy = task.accuracy(vector)
    others = [model for model in models if not np.array_equal(model, vector)]
    drift = max((distance(one, other) for one, other in combinations(models, 2)), default=0.0)
    return Point(
        step=answers.step,
        seconds=seconds,
        accuracy=accuracy,
        accuracy_worst=min([accuracy, *map(task.accuracy, others)]),
        drift=drift,
        drift_ratio=drift / (norm(vector) or 1.0),
        loss=training.loss(),
    )


class Daemons:
    """The processes of a local cluster, as an async context manager that ends them all."""

    def __init__(
        self, cluster_file: Path, cluster: Cluster, logs: Path, nursery: Nursery | None = None
    ) -> None:
        """Prepare; no process is started before it is entered.

        Args:
            cluster_file: With the keys of all its nodes beside it.
            cluster: That file's content.
            logs: Folder for a log of each daemon.
            nursery: Starts the daemons; None for one that begins and ends with them.
        """
        self._cluster_file = cluster_file
        self._cluster = cluster
        self._logs = logs
        self._own = nursery is None
        self._nursery = nursery or Nursery()
        self._running: dict[str, Child] = {}

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        if self._own:
            self._nursery.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.shield(self._leave())

    async def _leave(self) -> None:
        try:
            await self.stop()
        finally:
            if self._own:
                self._nursery.close()

    async def start(self, command: str, identity: str, *more: str) -> None:
        """Start the daemon of a node."""
        await self._spawn(identity, command, "--id", identity, *more)

    async def start_liars(self, liars: frozenset[str], drill: Drill, theta_0: Path) -> None:
        """Start the one process that plays all liars."""
        words = ["--initial", str(theta_0)]
        for liar in sorted(liars):
            words += ["--as", liar]
        if drill.attack:
            words += ["--attack", drill.attack]
        for name, number in drill.options.items():
            words += ["--option", f"{name}={number}"]
        if drill.server_attack:
            words += ["--server-attack", drill.server_attack]
        for name, number in drill.server_options.items():
            words += ["--server-option", f"{name}={number}"]
        words += ["--timing", drill.timing]
        await self._spawn("adversary", "adversary", *words)

    def process(self, identity: str) -> Child:
        """The process of a node, or ``adversary``."""
        return self._running[identity]

    def ended(self) -> dict[str, str]:
        """The daemons that have ended by themselves, each with a sentence that says how."""
        return {
            identity: self._how(identity, process.returncode)
            for identity, process in self._running.items()
            if process.returncode is not None
        }

    async def stop(self) -> None:
        """End every daemon: ask first, and kill what has not ended in time."""
        running = [p for p in self._running.values() if p.returncode is None]
        for process in running:
            process.terminate()
        waits = {asyncio.ensure_future(process.wait()) for process in running}
        for _ in range(2):
            if waits:
                _, waits = await asyncio.wait(waits, timeout=STOP_SECONDS)
            for process in running:
                process.kill()
        for wait in waits:
            wait.cancel()

    async def _spawn(self, name: str, command: str, *words: str) -> None:
        with self._log(name).open("ab") as log:
            child = self._nursery.start(
                (
                    *(command, "--cluster", str(self._cluster_file)),
                    *("--until-stdin-closes", "--stop-seconds", str(STOP_SECONDS / 2)),
                    *words,
                ),
                log,
            )
        # Before it is waited for: who is interrupted meanwhile ends this one too.
        self._running[name] = child
        await child.wait_started()

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _how(self, identity: str, status: int) -> str:
        how = f"exit {status}" if status >= 0 else signal.Signals(-status).name
        lines = self._log(identity).read_text(errors="replace").splitlines()[-LOG_LINES:]
        return f"{identity} has ended ({how}): " + " ".join(lines)
