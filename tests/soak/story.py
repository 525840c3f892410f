"""What one seed decides: who takes part, who lies and how, what breaks when, and what comes of it.

A story is told in virtual time. After ``CALM_AFTER`` seconds nothing breaks any more, and then
every correct node has ``PATIENCE`` seconds to reach the last step.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from unittest import mock

import numpy as np
from tests.soak.record import Record

from byzsgd.attacks import names
from byzsgd.cluster import Cluster, Role
from byzsgd.protocol import synchronous
from byzsgd.simulation import CALM, Coalition, Simulation, Timing, coalition_of
from byzsgd.simulation.cluster import BrokenPromiseError, without_keys
from byzsgd.simulation.hostile import HABITS, Flood
from byzsgd.tasks.quadratic import Quadratic

CALM_AFTER = 13.0
"""Virtual seconds after which nothing breaks any more."""

PATIENCE = 300.0
"""Virtual seconds that the correct nodes have from then on: pulls back off to 16 seconds."""

PRIMING_STEPS = 2
"""Medians that a worker of the synchronous variant begins with: few, for stories are short."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """Something that breaks at a time."""

    kind: str
    """``crash``, ``power``, ``uneven``, ``cut``, ``split`` or ``slow``."""
    at: float
    seconds: float
    """How long it lasts."""
    who: tuple[str, ...] = ()
    bad: bool = False
    """A crash that costs the disk too; a split that stops only one direction."""
    factor: float = 1.0
    """How many times as slow."""

    def happen(self, simulation: Simulation) -> None:
        """Let it happen now; but ``uneven`` once it makes a difference, or at 4 s."""

        def again() -> None:
            self.happen(simulation)

        correct = [identity for identity in self.who if identity in simulation.nodes]
        match self.kind:
            case "crash":
                for identity in correct:
                    simulation.crash(identity, self.seconds, disk=not self.bad)
            case "power":
                simulation.power_cut(self.seconds, disk=not self.bad)
            case "uneven":
                saved = [simulation.servers[identity] for identity in correct]
                if any(server.model_step < 2 for server in saved) and simulation.timeline.now < 4:
                    simulation.timeline.at(simulation.timeline.now + 0.01, again)
                else:
                    simulation.power_cut(self.seconds, saved=self.who)
            case "cut":
                simulation.cut(self.seconds)
            case "split":
                simulation.split(self.who, self.seconds, one_way=self.bad)
            case "slow":
                for identity in correct:
                    simulation.slow(identity, self.factor, self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """All that a run depends on; the defaults are the simplest."""

    seed: int = 0
    variant: str = "asynchronous"
    workers: int = 4
    f_workers: int = 1
    servers: int = 5
    f_servers: int = 1
    fewer_gradients: int = 0
    """How many less than n_w - f_w make a quorum, as far as the bounds allow."""
    fewer_models: int = 0
    rule: str = "mda"
    gather_period: int = 1
    overlapped: bool = False
    """Whether workers compute while servers gather."""
    momentum: float = 0.9
    steps: int = 4
    d: int = 1
    checkpoint_period: int = 0
    workers_say: str | None = None
    servers_say: str | None = None
    timing: str = "early"
    habit: str = "plain"
    liars_first: bool = True
    loss: float = 0.0
    duplication: float = 0.0
    straggle: float = 0.0
    queue: int = 0
    clocks: bool = False
    """Whether clocks differ, in what they show and in how fast they are."""
    mishaps: tuple[Mishap, ...] = ()

    def cluster(self) -> Cluster:
        """The cluster, whose bounds hold.

        Raises:
            ClusterError: If there is none of these numbers.
        """
        synchronous = self.variant == "synchronous"
        least_models = 2 * self.f_servers + (1 if synchronous else 2)
        least_gradients = 2 * self.f_workers + 1
        if synchronous:
            least_gradients = min(least_gradients, self.workers - self.f_workers)
        least_models = 1 if self.servers == 1 else max(least_models, 2)
        models = max(self.servers - self.f_servers - self.fewer_models, least_models)
        gradients = max(self.workers - self.f_workers - self.fewer_gradients, least_gradients)
        return without_keys(
            {
                "nodes": [
                    *(
                        {"id": f"s{n}", "role": "server", "address": f"10.0.0.{n}:5555"}
                        for n in range(1, self.servers + 1)
                    ),
                    *({"id": f"w{n}", "role": "worker"} for n in range(1, self.workers + 1)),
                ],
                "task": "quadratic",
                "f_servers": self.f_servers,
                "f_workers": self.f_workers,
            },
            server_quorum=models,
            worker_quorum=gradients,
            **self.changes(),
        )

    def changes(self) -> dict[str, object]:
        """The keys of the cluster file that are about neither nodes nor quorums."""
        return {
            "variant": self.variant,
            "rule": self.rule,
            "gather_period": self.gather_period,
            "overlapped_gather": self.overlapped,
            "worker_momentum": self.momentum,
            "steps": self.steps,
            "learning_rate": 0.5,
        }

    def to_json(self) -> str:
        """What differs from the defaults, for a command line."""
        plain = asdict(self)
        default = asdict(Story())
        return json.dumps({key: plain[key] for key in plain if plain[key] != default[key]})

    @staticmethod
    def from_json(text: str) -> "Story":
        """The story that ``to_json`` wrote."""
        fields = json.loads(text)
        mishaps = tuple(
            Mishap(**{**each, "who": tuple(each["who"])}) for each in fields.pop("mishaps", ())
        )
        return Story(**fields, mishaps=mishaps)


def story_of(seed: int) -> Story:
    """The story that a seed tells."""
    rng = np.random.default_rng(seed)

    def one(*choices: object) -> object:
        return choices[rng.integers(len(choices))]

    synchronous = bool(rng.random() < 0.4)
    f_workers, f_servers = int(one(0, 1, 1, 2)), int(one(0, 1, 1, 1, 2))
    workers = (2 if synchronous else 3) * f_workers + 1 + int(one(0, 0, 1, 2))
    servers = 3 * f_servers + (1 if synchronous else 2) + int(one(0, 0, 1))
    if f_servers == 0 and rng.random() < 0.3:
        servers = 1
    timing = str(one(*Timing))
    habit = "plain" if timing == "flood" else str(one("plain", *HABITS))
    nodes = [f"s{n}" for n in range(1, servers + 1)] + [f"w{n}" for n in range(1, workers + 1)]
    mishaps = tuple(_some_mishap(rng, nodes, f_servers) for _ in range(int(one(0, 0, 1, 2, 3))))
    if any(mishap.kind == "uneven" for mishap in mishaps) and rng.random() < 0.7:
        habit = "flatterer"
    return Story(
        seed=seed,
        variant="synchronous" if synchronous else "asynchronous",
        workers=workers,
        f_workers=f_workers,
        servers=servers,
        f_servers=f_servers,
        fewer_gradients=int(one(0, 1, 9)),
        fewer_models=int(one(0, 1, 9)),
        rule=str(one("mda", "mda", "mda", "coordinate_median", "trimmed_mean")),
        gather_period=int(one(1, 2, 3, 5)),
        momentum=float(one(0.9, 0.9, 0.0)),
        steps=int(one(3, 5, 8, 11)),
        d=int(one(1, 2, 7)),
        checkpoint_period=int(one(0, 1, 2, 4)),
        workers_say=one(*names(Role.WORKER), None) if f_workers else None,
        servers_say=one(*names(Role.SERVER), None) if f_servers else None,
        timing=timing,
        habit=habit,
        liars_first=bool(one(True, True, False)),
        loss=float(one(0, 0, 0.02, 0.15)),
        duplication=float(one(0, 0, 0.2)),
        straggle=float(one(0, 0.02, 0.1)),
        queue=int(one(0, 1, 2, 4)),
        clocks=bool(one(True, False)),
        mishaps=mishaps,
        # Drawn last: whoever knew a seed before there was this one knows the rest of its story.
        overlapped=bool(one(False, False, True)) and not synchronous,
    )


def _some_mishap(rng: np.random.Generator, nodes: list[str], f_servers: int) -> Mishap:
    kinds = ["crash", "crash", "power", "cut", "split", "split", "slow", "long split"]
    kind = str(rng.choice([*kinds, "uneven", "uneven", "uneven"] if f_servers else kinds))
    count, longest = 1, 4.0
    if kind == "uneven":
        # Too few for the others to follow. Those that lie are the first.
        count = int(rng.choice([1, f_servers, f_servers]))
        nodes = [node for node in nodes if node.startswith("s")][f_servers:]
    elif kind == "long split":
        kind, longest = "split", 8.0
    elif kind == "split":
        count = 1 + int(rng.integers(len(nodes) // 2))
    return Mishap(
        kind,
        at=round(float(min(rng.exponential(0.2), 3.0)), 3),
        seconds=round(float(min(rng.exponential(longest / 5), longest)), 3),
        who=tuple(str(who) for who in sorted(rng.choice(nodes, count, replace=False))),
        bad=bool(rng.random() < 0.4),
        factor=float(rng.choice([5.0, 20.0, 100.0])),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a story ended."""

    story: Story
    record: Record
    seconds: float
    """Virtual seconds until all correct nodes were done, or until a promise was broken."""
    why: str = ""
    """The promise that was broken; empty if none."""
    identity: str = ""
    """Who broke it, if that is known."""

    @property
    def kind(self) -> str:
        """What is alike in the broken promises of one bug: ``why`` without numbers and names."""
        return re.sub(r"\b[sw]?\d+(\.\d+)?\b", "#", self.why.splitlines()[0] if self.why else "")


def tell(story: Story) -> Outcome:
    """Run a story to its end, or until a promise is broken."""
    record = Record()
    # Whatever goes wrong is found, not only broken promises.
    with mock.patch.object(synchronous, "PRIMING_STEPS", PRIMING_STEPS):
        simulation = None
        try:
            simulation = _simulation(story, record)
            ended = simulation.run_until(
                lambda: all(node.done for node in simulation.nodes.values()),
                seconds=CALM_AFTER + PATIENCE,
            )
            why, who = "", ""
            if not ended:
                why = f"no end: {simulation.standstill()}"
                who = next(i for i, node in simulation.nodes.items() if not node.done)
        except BrokenPromiseError as broken:
            why, who = broken.why, broken.identity
        except Exception as broken:  # noqa: BLE001
            why, who = f"{type(broken).__name__}: {broken}", record.last
    return Outcome(story, record, simulation.timeline.now if simulation else 0.0, why, who)


def _simulation(story: Story, record: Record) -> Simulation:
    cluster, task = story.cluster(), Quadratic(story.d, noise=1.0)
    simulation = Simulation(
        cluster,
        task,
        seed=story.seed,
        faults=replace(
            CALM,
            loss=story.loss,
            duplication=story.duplication,
            straggle=story.straggle,
            queue=story.queue,
            until=CALM_AFTER,
            clock_rates=(0.7, 1.4) if story.clocks else (1.0, 1.0),
        ),
        liars=_liars(story, cluster, task),
        liars_first=story.liars_first,
        checkpoint_period=story.checkpoint_period,
        witness=record,
    )
    for mishap in story.mishaps:
        simulation.timeline.at(mishap.at, lambda m=mishap: m.happen(simulation))  # type: ignore[misc]
    return simulation


def _liars(story: Story, cluster: Cluster, task: Quadratic) -> Coalition | None:
    lying: Iterable[str] = (
        *(cluster.workers[: story.f_workers] if story.workers_say else ()),
        *(cluster.servers[: story.f_servers] if story.servers_say else ()),
    )
    if not lying:
        return None
    liars = coalition_of(
        cluster,
        tuple(lying),
        lambda: task,
        attack=story.workers_say,
        server_attack=story.servers_say,
        timing=story.timing,
        kind=HABITS[story.habit],
    )
    if isinstance(liars, Flood):
        liars.reach = 30
    return liars
