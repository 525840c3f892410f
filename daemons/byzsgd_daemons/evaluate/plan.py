"""What the evaluation runs, as data: runs in groups, made from the tables of attacks and rules.

A run is wholly described by its plan and its drill, so that equal runs of several groups are one,
and a record of results tells which are there.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from byzsgd import __version__, attacks
from byzsgd.aggregation import RULES
from byzsgd.cluster import GATHER_PERIOD, Role, Variant
from byzsgd.errors import ConfigError
from byzsgd.tasks import TASKS, Defaults
from byzsgd_daemons.init import UNKNOWN_TASK, Plan
from byzsgd_daemons.local import EVALUATIONS, Drill

LOUD = ("sign-flip", "equivocate")
"""What lying workers and lying servers do where an attack is to be seen: the demo's."""

STEALTHY = ("alie-adaptive", "equivocate")
"""The same, where it is to hide."""

ADAPTIVE = frozenset({"alie-adaptive", "optimal"})
"""Attacks of workers that search for their strongest lie: optimal against the rule in use,
alie-adaptive against MDA, whatever the rule."""

NUMBERS: Mapping[str, Sequence[Mapping[str, float]]] = {
    "alie": ({"z": 1.0},),
    "empire": ({"eps": 0.1}, {"eps": 10.0}),
}
"""Numbers other than the defaults that published attacks are tried with."""

TASK = "digits"
"""What most groups learn."""

HEADLINE_TASK = "mnist"
"""What the headline plots show. A training of fashion-mnist takes two cores half an hour."""

THROUGHPUT_TASKS = ("digits", "mnist", "fashion-mnist")
"""Tasks of more and more parameters: what a message costs depends on them."""

SHORT_STEPS = 150
"""Steps of runs in which only messages and seconds are counted."""

DENSE_EVALUATIONS = 150
"""Evaluations of a run that shall tell at which step an accuracy was reached."""

KRUM_WORKERS, KRUM_F = 9, 2
"""The smallest cluster in which Krum withstands two: it needs q_w = n_w - f_w >= 2 f_w + 3."""

BASELINE_RULES = frozenset({"average", "krum", "multi_krum", "coordinate_median"}) | {
    *("trimmed_mean", "geometric_median", "mda")
}
"""Rules that are compared: MDA, and the best known others."""

BASELINE_ATTACKS = frozenset({"sign-flip", "random", "zero"}) | {
    *("alie", "empire", "mimic", "optimal")
}
"""What they are compared under: loud attacks, and each kind of those that hide."""

AVERAGED = "average"
"""The rule of the vanilla server, and of servers that average models."""

USUAL = Plan()
"""The cluster of most runs: five servers, seven workers."""

VANILLA = "vanilla"
ASYNCHRONOUS = Variant.ASYNCHRONOUS.value
SYNCHRONOUS = Variant.SYNCHRONOUS.value
VARIANTS = (ASYNCHRONOUS, SYNCHRONOUS)
SYSTEMS = (VANILLA, *VARIANTS)

WITHOUT_DMC = "without DMC"
MODELS_AVERAGED = "models averaged"
NO_MOMENTUM = "beta = 0"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training, from beginning to end; without slots, for its key is kept."""

    plan: Plan
    """The cluster."""
    drill: Drill = field(default_factory=Drill)
    """Who lies, and how."""
    server_quorum: int | None = None
    """q_ps, where it is not the largest possible."""
    worker_quorum: int | None = None
    """q_w, where it is not the largest possible."""
    every: int | None = None
    """Steps between two evaluations; None: about 25 evaluations."""
    models_averaged: bool = False
    """Whether models are averaged instead of taking their median; in memory only."""
    drift: bool = False
    """Whether drift is looked at in every step; in memory only."""
    in_memory: bool = False
    """Whether it runs in one thread and virtual time, instead of in daemons."""

    def steps(self) -> int:
        """Learning steps."""
        return defaults(self.plan.task).steps if self.plan.steps is None else self.plan.steps

    def gather_period(self) -> int:
        """T."""
        return self.plan.gather_period or GATHER_PERIOD[Variant(self.plan.variant)]

    def evaluated(self) -> list[int]:
        """The steps whose model is evaluated, as daemons evaluate it."""
        steps = self.steps()
        every = self.every or max(steps // EVALUATIONS, 1)
        return sorted({*range(0, steps, every), steps})

    def description(self) -> dict[str, Any]:
        """All that differs from the defaults, as plain JSON values."""
        described = _differences(self)
        described["plan"] = _differences(self.plan)
        described["drill"] = _differences(self.drill)
        return described

    @staticmethod
    def described(description: Mapping[str, Any]) -> "Run":
        """The run of a description.

        Raises:
            ConfigError: If it describes none.
        """
        try:
            rest = dict(description)
            plan = {key: _tuple(value) for key, value in rest.pop("plan").items()}
            return Run(plan=Plan(**plan), drill=Drill(**rest.pop("drill")), **rest)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this describes no run: {error}") from None

    def with_quorums(self, text: str) -> str:
        """The text of a cluster file, with the quorums that this run asks for."""
        quorums = {"server_quorum": self.server_quorum, "worker_quorum": self.worker_quorum}
        return "".join(f"{key} = {q}\n" for key, q in quorums.items() if q is not None) + text

    @cached_property
    def key(self) -> str:
        """A digest of the whole description, of all defaults in it, and of the suite's version."""
        said = [self.description(), self.drill.record(), asdict(defaults(self.plan.task))]
        text = json.dumps([__version__, *said], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _differences(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults."""
    found = {}
    for each in fields(value):
        default: object = each.default
        if each.default_factory is not MISSING:
            default = each.default_factory()
        here = getattr(value, each.name)
        if here != default:
            found[each.name] = dict(here) if isinstance(here, Mapping) else here
    return found


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def defaults(task: str) -> Defaults:
    """The settings that suit a task."""
    return TASKS[task].defaults if task in TASKS else UNKNOWN_TASK


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What all runs of an evaluation share."""

    task: str | None = None
    """What every group learns; None: what suits the group."""
    steps: int | None = None
    """Learning steps of every run; None: what suits task and group."""
    seeds: int = 1
    """How often everything runs, each time with another seed."""
    in_memory: bool = False
    """Whether everything runs in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """A run, and its place in the report."""

    group: str
    system: str
    """What learns: a variant, the vanilla server, or a baseline."""
    setting: str = ""
    """What is varied, such as ``T = 5``."""
    run: Run

    def under(self) -> tuple[str, str]:
        """What lying workers and lying servers do; empty where none lies."""
        drill = self.run.drill
        numbers = " ".join(f"{name} {number:g}" for name, number in sorted(drill.options.items()))
        return f"{drill.attack or ''} {numbers}".strip(), drill.server_attack or ""

    def name(self) -> str:
        """What runs, in words."""
        worker, server = self.under()
        words = [f"{self.system}", *([self.setting] if self.setting else [])]
        words.append(" + ".join(filter(None, (worker, server))) or "nobody lies")
        if self.run.plan.seed > 1:
            words.append(f"seed {self.run.plan.seed}")
        return ", ".join(words)


Lies = tuple[str | None, str | None]
"""What lying workers and lying servers do."""

NOBODY: Lies = (None, None)


class _Maker:
    """Makes the experiments of one group, at one seed."""

    def __init__(self, group: str, scale: Scale, seed: int, task: str) -> None:
        self.group = group
        self.scale = scale
        self.seed = seed
        self.task = scale.task or task

    def steps(self, most: int | None = None) -> int:
        """Learning steps of a run; at most so many where the user gave no number."""
        if self.scale.steps is not None:
            return self.scale.steps
        steps = defaults(self.task).steps
        return min(steps, most) if most else steps

    def __call__(
        self,
        system: str,
        lies: Lies = NOBODY,
        *,
        setting: str = "",
        numbers: Mapping[str, float] | None = None,
        most_steps: int | None = None,
        plan: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Experiment:
        """A run of a system under attack, with changes to its plan and more fields of its run."""
        attack, server_attack = lies
        drill = Drill(attack=attack, server_attack=server_attack, options=numbers or {})
        changes: dict[str, Any] = {"task": self.task, "seed": self.seed} | dict(plan or {})
        changes["steps"] = self.steps(most_steps)
        if system == VANILLA:
            changes |= {"servers": 1, "f_servers": 0, "f_workers": 0, "rule": AVERAGED}
            # As many liars as byzsgd tolerates: every system faces the same attack.
            liars = _most_liars(changes)[1] if attack else None
            drill = replace(drill, server_attack=None, n_workers=liars)
        elif system == SYNCHRONOUS:
            changes["variant"] = system
        more.setdefault("in_memory", self.scale.in_memory)
        own = _largest_quorums(changes)
        more = {key: value for key, value in more.items() if own.get(key) != value}
        return Experiment(
            group=self.group,
            system=system,
            setting=setting,
            run=Run(plan=Plan(**_without_defaults(changes, self.task)), drill=drill, **more),
        )


def _without_defaults(changes: dict[str, Any], task: str) -> dict[str, Any]:
    """The changes that change something: a sweep's middle is the same run as everybody's."""
    own = defaults(task)
    variant = Variant(changes.get("variant", ASYNCHRONOUS))
    same = {
        "steps": own.steps,
        "batch_size": own.batch_size,
        "worker_momentum": own.worker_momentum,
        "gather_period": GATHER_PERIOD[variant],
    }
    same["f_servers"], same["f_workers"] = _most_liars(changes)
    return {key: value for key, value in changes.items() if same.get(key) != value}


def _most_liars(changes: Mapping[str, Any]) -> tuple[int, int]:
    """How many servers and workers may lie where a plan says nothing."""
    servers, workers = changes.get("servers", USUAL.servers), changes.get("workers", USUAL.workers)
    return (servers - 2) // 3, (workers - 1) // 3


def _largest_quorums(changes: Mapping[str, Any]) -> dict[str, int]:
    """The quorums of a plan where a run says nothing: all that cannot lie."""
    f_servers, f_workers = _most_liars(changes)
    servers, workers = changes.get("servers", USUAL.servers), changes.get("workers", USUAL.workers)
    return {
        "server_quorum": servers - changes.get("f_servers", f_servers),
        "worker_quorum": workers - changes.get("f_workers", f_workers),
    }


def _headline(make: _Maker) -> Iterator[Experiment]:
    for lies in (NOBODY, LOUD, STEALTHY):
        for system in SYSTEMS:
            yield make(system, lies)


def _matrix(make: _Maker) -> Iterator[Experiment]:
    yield make(VANILLA)
    for variant in VARIANTS:
        for attack in (None, *attacks.names(Role.WORKER)):
            for server_attack in (None, *attacks.names(Role.SERVER)):
                yield make(variant, (attack, server_attack))


def _workers(make: _Maker) -> Iterator[Experiment]:
    yield make(VANILLA)
    for attack in attacks.names(Role.WORKER):
        for numbers in ({}, *NUMBERS.get(attack, ())):
            for system in SYSTEMS:
                yield make(system, (attack, None), numbers=numbers)


def _servers(make: _Maker) -> Iterator[Experiment]:
    yield make(VANILLA)
    for variant in VARIANTS:
        for server_attack in attacks.names(Role.SERVER):
            yield make(variant, (None, server_attack))


def _sweeps(make: _Maker) -> Iterator[Experiment]:
    """Each of f, q, T, batch size and momentum varied, with and without an attack."""
    for lies in (NOBODY, STEALTHY):
        plan: dict[str, Any]
        for f in (0, 1, 2):
            liars = lies if f else (None, lies[1])
            yield make(ASYNCHRONOUS, liars, setting=f"f_w = {f}", plan={"f_workers": f})
        for f, servers in ((0, 8), (1, 8), (2, 8)):
            liars = lies if f else (lies[0], None)
            plan = {"servers": servers, "f_servers": f}
            yield make(ASYNCHRONOUS, liars, setting=f"f_ps = {f} of {servers}", plan=plan)
        for quorum in (3, 4, 5, 6):
            plan = {"f_workers": 1}
            setting = f"q_w = {quorum}, f_w = 1"
            yield make(ASYNCHRONOUS, lies, setting=setting, plan=plan, worker_quorum=quorum)
        for quorum in (4, 5, 6, 7):
            plan = {"servers": 8, "f_servers": 1}
            setting = f"q_ps = {quorum} of 8, f_ps = 1"
            yield make(ASYNCHRONOUS, lies, setting=setting, plan=plan, server_quorum=quorum)
        for variant in VARIANTS:
            for period in (1, 2, 5, 10, 20):
                yield make(variant, lies, setting=f"T = {period}", plan={"gather_period": period})
        for batch in (8, 16, 32, 64, 128):
            yield make(ASYNCHRONOUS, lies, setting=f"batch = {batch}", plan={"batch_size": batch})
        for beta in (0.0, 0.5, 0.9, 0.95, 0.99):
            plan = {"worker_momentum": beta}
            yield make(ASYNCHRONOUS, lies, setting=f"beta = {beta:g}", plan=plan)


def _drift(make: _Maker) -> Iterator[Experiment]:
    """In memory: only there is every server's model of every step seen."""
    never = {"gather_period": make.steps() + 1}
    for lies in (NOBODY, STEALTHY):
        for period in (1, 10):
            plan = {"gather_period": period}
            yield make(ASYNCHRONOUS, lies, setting=f"T = {period}", plan=plan, **_IN_MEMORY)
        yield make(ASYNCHRONOUS, lies, setting=WITHOUT_DMC, plan=never, **_IN_MEMORY)
        plan = {"gather_period": 10}
        yield make(SYNCHRONOUS, lies, setting="T = 10", plan=plan, **_IN_MEMORY)


_IN_MEMORY: Mapping[str, Any] = {"in_memory": True, "drift": True}


def _overhead(make: _Maker) -> Iterator[Experiment]:
    """Steps to an accuracy, from dense evaluations; seconds a step, from runs with only two."""
    every = max(make.steps() // DENSE_EVALUATIONS, 1)
    adaptive = [(attack, None) for attack in attacks.names(Role.WORKER) if attack in ADAPTIVE]
    for system in SYSTEMS:
        yield make(system, setting=CONVERGENCE, every=every)
    for lies in (LOUD, STEALTHY, *adaptive):
        for variant in VARIANTS:
            yield make(variant, lies, setting=CONVERGENCE, every=every)
    if make.scale.in_memory:
        return  # Virtual time says nothing about throughput.
    for task in [make.scale.task] if make.scale.task else THROUGHPUT_TASKS:
        maker = _Maker(make.group, make.scale, make.seed, task)
        steps = maker.steps(SHORT_STEPS)
        for system in SYSTEMS:
            yield maker(system, setting=THROUGHPUT, most_steps=SHORT_STEPS, every=steps)


CONVERGENCE = "convergence"
THROUGHPUT = "throughput"


def _messages(make: _Maker) -> Iterator[Experiment]:
    steps = make.steps(SHORT_STEPS)
    for system, period in ((VANILLA, 1), (ASYNCHRONOUS, 1), (ASYNCHRONOUS, 5), (SYNCHRONOUS, 5)):
        plan = {} if period == GATHER_PERIOD[_variant(system)] else {"gather_period": period}
        setting = "" if system == VANILLA else f"T = {period}"
        yield make(system, setting=setting, plan=plan, most_steps=SHORT_STEPS, every=steps)


def _variant(system: str) -> Variant:
    return Variant(system) if system in VARIANTS else Variant.ASYNCHRONOUS


def _baselines(make: _Maker) -> Iterator[Experiment]:
    """In memory: rules instead of MDA, with and without momentum; models averaged."""
    workers: dict[str, Any] = {"workers": KRUM_WORKERS, "f_workers": KRUM_F}
    rules = [name for name in sorted(RULES) if name in BASELINE_RULES]
    tried = [name for name in attacks.names(Role.WORKER) if name in BASELINE_ATTACKS]
    momenta: tuple[dict[str, Any], ...] = ({}, {"worker_momentum": 0.0})
    for momentum in momenta:
        setting = NO_MOMENTUM if momentum else ""
        plan = {"workers": KRUM_WORKERS, **momentum}
        yield make(VANILLA, setting=setting, plan=plan, in_memory=True)
        for attack in (None, *tried):
            for rule in rules:
                made = make(
                    ASYNCHRONOUS,
                    (attack, None),
                    setting=setting,
                    plan={**workers, **momentum, "rule": rule},
                    in_memory=True,
                )
                yield replace(made, system=rule)
    for server_attack in (None, *attacks.names(Role.SERVER)):
        lies = (None, server_attack)
        yield make(ASYNCHRONOUS, lies, in_memory=True)
        made = make(ASYNCHRONOUS, lies, in_memory=True, models_averaged=True)
        yield replace(made, system=MODELS_AVERAGED)


GROUPS: Mapping[str, tuple[str, Callable[[_Maker], Iterator[Experiment]]]] = {
    "headline": (HEADLINE_TASK, _headline),
    "matrix": (TASK, _matrix),
    "workers": (TASK, _workers),
    "servers": (TASK, _servers),
    "sweeps": (TASK, _sweeps),
    "drift": (TASK, _drift),
    "overhead": (TASK, _overhead),
    "messages": (TASK, _messages),
    "baselines": (TASK, _baselines),
}
"""Every group by name, with the task that suits it."""


def experiments(scale: Scale, groups: Sequence[str] = ()) -> list[Experiment]:
    """All experiments of some groups, or of all, in the order of the report.

    Args:
        scale: What they share.
        groups: Names of ``GROUPS``; none for all.
    """
    return [
        experiment
        for group, (task, make) in GROUPS.items()
        if not groups or group in groups
        for seed in range(1, scale.seeds + 1)
        for experiment in make(_Maker(group, scale, seed, task))
    ]


def runs(chosen: Sequence[Experiment]) -> dict[str, Experiment]:
    """What there is to run, by key: equal runs once."""
    found: dict[str, Experiment] = {}
    for experiment in chosen:
        found.setdefault(experiment.run.key, experiment)
    return found
