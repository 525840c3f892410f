"""Throughput overhead of ByzSGD over the plain parameter server, both in our own code.

    sudo .venv/bin/python -m benchmarks.overhead --json run/bench/overhead.json
    .venv/bin/python -m benchmarks.overhead --only shared --full
    sudo .venv/bin/python -m benchmarks.overhead --only linked --d 1000000 --rounds 3
    .venv/bin/python -m benchmarks.overhead --only scale --plot docs/performance-scale.svg

Overhead is how many percent longer a step takes than one of the vanilla parameter server: one
server, plain averaging, nobody may lie. Systems take turns, and every figure is a median over
rounds of a ratio within one.

``shared``: all nodes on this machine, so that what they do adds up. Beside each figure stands what
the extra work must cost: the CPU time of a step, from vanilla's own gradients and from what one of
vanilla's vectors costs to send and to receive, times the vectors that the system sends.

``linked``: each node in a network namespace, behind a link of equal rate for all, both ways. A
server's link carries n_w + (n_ps - 1) / T vectors each way, vanilla's n_w: that ratio is the floor
where a link is busy both ways all the time, which no system here comes near.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmarks.aggregation import gaussian, ours
from benchmarks.fleet import VANILLA, Counters, Links, Pace, fleet
from benchmarks.rows import Row, markdown, write
from benchmarks.timed import KIND
from tests.network.namespaces import lacking

from byzsgd.protocol.synchronous import PRIMING_STEPS
from byzsgd_daemons.evaluate.plots import Line, Panel, draw

CORES = os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class System:
    """A cluster and what it learns."""

    n_w: int = 7
    f_w: int = 2
    n_ps: int = 5
    f_ps: int = 1
    variant: str = "asynchronous"
    period: int = 1
    vanilla: bool = False
    task: str = "quadratic"
    batch: int = 32
    d: int = 100_000
    """Coordinates, of the quadratic task."""
    keyless: bool = False

    @property
    def name(self) -> str:
        """What it is called in a table."""
        return "vanilla" if self.vanilla else f"{self.variant}, T = {self.period}"

    @property
    def shape(self) -> str:
        """How many nodes it has, and of what size."""
        what = f"d = {self.d:,}" if self.task == "quadratic" else f"{self.task}, batch {self.batch}"
        keys = ", without keys" if self.keyless else ""
        return f"({self.n_w}, {self.f_w}, {self.n_ps}, {self.f_ps}), {what}{keys}"

    @property
    def vectors(self) -> float:
        """Vectors that are sent in a step, each to one receiver."""
        if self.vanilla:
            return 2 * self.n_w
        gathers = self.n_ps * (self.n_ps - 1) / self.period
        models = float(self.n_ps)  # To each worker.
        if self.variant == "synchronous":
            models = (self.period - 1 + self.n_ps) / self.period
        return self.n_w * (models + self.n_ps) + gathers

    @property
    def priming(self) -> int:
        """Steps to begin with in which workers pull from all servers, to prime their filters."""
        return PRIMING_STEPS if self.variant == "synchronous" and not self.vanilla else 0

    @property
    def gradients(self) -> float:
        """Gradients that are computed in a step: the synchronous filters need two of a batch."""
        both = self.variant == "synchronous" and not self.vanilla
        return self.n_w * (1 + (self.period - 1) / self.period if both else 1)

    @property
    def medians(self) -> float:
        """Models that medians are taken of, in a step."""
        return (self.n_w + self.n_ps / self.period) * (self.n_ps - self.f_ps)

    @property
    def floor(self) -> float:
        """Percent by which its servers' links carry more than vanilla's, each way."""
        return 100 * (self.n_ps - 1) / self.period / self.n_w

    @property
    def in_turn(self) -> float:
        """The same of time, where links are busy one way at a time, but for gathers both ways.

        Models go out before gradients come in, so a step takes at least 2 n_w vectors' time, and
        vanilla's as well, as far as all workers get their models at the same time.
        """
        return self.floor / 2

    def plan(self) -> dict[str, Any]:
        """What ``fleet`` needs."""
        return {
            "workers": self.n_w,
            "f_workers": self.f_w,
            "servers": self.n_ps,
            "f_servers": self.f_ps,
            "variant": self.variant,
            "gather_period": self.period,
            "task": self.task,
            "batch_size": self.batch,
            **(VANILLA if self.vanilla else {}),
            "options": {"d": self.d} if self.task == "quadratic" else {},
            "module": "benchmarks.keyless" if self.keyless else "benchmarks.timed",
        }


def systems(base: System) -> list[System]:
    """Vanilla, and both variants as they are by default; the asynchronous one with T = 5 too."""
    return [
        replace(base, vanilla=True),
        replace(base, period=1),
        replace(base, period=5),
        replace(base, variant="synchronous", period=5),
    ]


@dataclass
class Measured:
    """Stretches of one system, one a round."""

    system: System
    paces: list[Pace] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    """CPU seconds of one worker's gradient, in each."""

    @property
    def step(self) -> float:
        """Seconds."""
        return median(pace.step for pace in self.paces)

    @property
    def cpu(self) -> float:
        """CPU seconds of a step."""
        return median(pace.cpu_step for pace in self.paces)

    def over(self, vanilla: "Measured", what: Callable[[Pace], float]) -> float:
        """Percent by which it takes more than vanilla: median over rounds of the ratio within."""
        pairs = zip(self.paces, vanilla.paces, strict=True)
        return 100 * (median(what(own) / what(its) for own, its in pairs) - 1)


def measure(
    chosen: Sequence[System],
    *,
    rounds: int,
    seconds: float,
    warm: int = 20,
    poll: float = 0.02,
    **how: Any,
) -> list[Measured]:
    """Run each system for a while, in turn, as often as there are rounds.

    Args:
        chosen: The systems, vanilla first.
        rounds: How often each has its turn.
        seconds: Least length of a stretch.
        warm: Steps before it.
        poll: Seconds between two looks at its ends.
        how: What else ``fleet`` needs.
    """
    found = [Measured(system) for system in chosen]
    for _ in range(rounds):
        for each in found:
            with fleet(**each.system.plan(), **how) as running:
                running.wait_for(warm + each.system.priming)
                before = running.counters()
                each.paces.append(running.pace(seconds, each.system.period, poll))
                each.gradients.append(_gradient(before, running.counters()))
    return found


def _gradient(before: Counters, after: Counters) -> float:
    """CPU seconds of a gradient, between two looks at all counters."""
    seconds, count = (
        after[name, KIND] - before[name, KIND]
        for name in ("byzsgd_node_work_seconds_sum", "byzsgd_node_work_seconds_count")
    )
    return seconds / count


# All nodes on one machine

SHARED_SECONDS = 3.0


def shared(arguments: argparse.Namespace) -> list[Row]:
    """Overhead where all nodes share this machine's cores."""
    rows: list[Row] = []
    for base in _shared_bases(arguments):
        large = base.d > 1_000_000
        found = measure(
            [each for each in systems(base) if arguments.full or each != replace(base, period=5)],
            rounds=arguments.rounds,
            seconds=4 * SHARED_SECONDS if large else SHARED_SECONDS,
            warm=3 if large else 20,
            pull_after=max(1.0, base.d / 1e6),
        )
        rows += _shared_rows(base, found)
    return rows


def _shared_bases(arguments: argparse.Namespace) -> Iterator[System]:
    default = System(d=arguments.d or 100_000)
    yield default
    if not arguments.full:
        return
    yield replace(default, keyless=True)
    for d in (10_000, 1_000_000):
        yield replace(default, d=d)
    yield replace(default, f_w=0, n_ps=2, f_ps=0)
    yield replace(default, f_w=2, n_ps=8, f_ps=2)
    for batch in (32, 64, 128, 256):
        yield replace(default, task="mnist", batch=batch)
    yield replace(default, d=25_000_000, n_w=4, f_w=1)


def _shared_rows(base: System, found: list[Measured]) -> Iterator[Row]:
    vanilla, *others = found
    table = f"Overhead, all nodes on {CORES} cores: (n_w, f_w, n_ps, f_ps) = {base.shape}"
    yield Row(
        table, "vanilla's step", 1e3 * vanilla.step, "ms", note=f"CPU {1e3 * vanilla.cpu:.3g} ms"
    )
    gradient = median(vanilla.gradients)
    each = (vanilla.cpu - base.n_w * gradient) / vanilla.system.vectors
    for other in others:
        must = other.system.gradients * gradient + other.system.vectors * each
        yield Row(
            table,
            f"{other.system.name}: time of a step",
            other.over(vanilla, lambda pace: pace.step),
            "% more",
            note=f"CPU {other.over(vanilla, lambda pace: pace.cpu_step):.0f} % more, and it must "
            f"be {100 * (must / vanilla.cpu - 1):.0f}: {other.system.vectors:.0f} vectors for "
            f"{vanilla.system.vectors:.0f}",
        )


# Each node behind a link

LINK_MBIT = 100
LINKED_D = 200_000
LINKED_STEPS = 10
TARGETS = {"asynchronous, T = 1": 67, "asynchronous, T = 5": 21, "synchronous, T = 5": 15}


def linked(arguments: argparse.Namespace) -> list[Row]:
    """Overhead where the network binds."""
    if reason := lacking():
        sys.stderr.write(f"no overhead behind links: {reason}\n")
        return []
    rows: list[Row] = []
    bases = [System(d=arguments.d or LINKED_D)]
    if arguments.full:
        bases += [
            replace(bases[0], f_w=0, n_ps=2, f_ps=0),
            replace(bases[0], f_w=1, n_ps=8, f_ps=2),
        ]
    for base in bases:
        links = Links(arguments.mbit, round(arguments.mbit * arguments.worker_links))
        # Vanilla's link is busy one way at a time: models out, then gradients in.
        step = 2 * base.n_w * 32 * base.d / (1e6 * links.server)
        found = measure(
            systems(base),
            rounds=arguments.rounds,
            seconds=LINKED_STEPS * step,
            warm=2,
            poll=max(0.02, step / 40),
            links=links,
            pull_after=max(1.0, 4 * step),
            round_timeout=max(2.0, 4 * step),
        )
        rows += _linked_rows(base, links, found)
    return rows


def _linked_rows(base: System, links: Links, found: list[Measured]) -> Iterator[Row]:
    vanilla, *others = found
    table = (
        f"Overhead, each node behind {links.server} Mbit/s "
        f"(workers {links.worker}): (n_w, f_w, n_ps, f_ps) = {base.shape}"
    )
    yield Row(table, "vanilla's step", 1e3 * vanilla.step, "ms", note=_use(vanilla, links))
    for other in others:
        floor = other.system.floor
        target = TARGETS.get(other.system.name) if base.n_ps == 5 and base.n_w == 7 else None
        yield Row(
            table,
            other.system.name,
            other.over(vanilla, lambda pace: pace.step),
            "% more",
            f"<= {target}" if target else "",
            f"a server's link carries {floor:.0f} % more, {other.system.in_turn:.0f} where it is "
            f"busy one way at a time; {_use(other, links)}",
        )


def _use(found: Measured, links: Links) -> str:
    """How busy links and cores were."""
    pace = found.paces[-1]

    def busy(counts: dict[str, int], role: str) -> str:
        each = [
            8 * count / (1e6 * links.of(node) * pace.seconds)
            for node, count in counts.items()
            if node.startswith(role)
        ]
        return f"{100 * sum(each) / len(each):.0f}"

    return (
        f"servers' links busy {busy(pace.sent, 's')} % out, {busy(pace.received, 's')} % in, "
        f"workers' {busy(pace.sent, 'w')} % and {busy(pace.received, 'w')} %; "
        f"{pace.cpu / pace.seconds:.2g} of {CORES} cores"
    )


# How cost grows

SIZES = (1_000, 30_000, 100_000, 300_000, 1_000_000)
SIZES_LARGE = (5_000_000, 25_000_000)
SERVERS = (2, 5, 8, 11)
WORKERS = (4, 7, 13, 19)
BEYOND = ((31, 10, 14, 4, 25_000_000), (100, 33, 32, 10, 25_000_000))
"""What this machine does not hold: n_w, f_w, n_ps, f_ps, d."""

RULES_D = 1_000_000
"""Coordinates that rules are timed with, at most; their cost is proportional beyond."""

SCALE = "CPU time of a step, asynchronous with T = 1, all daemons together"

USUAL = System(d=100_000)
"""What shapes differ from in one thing at a time."""


def scale(arguments: argparse.Namespace) -> list[Row]:
    """How the CPU time of a step grows with n_w, n_ps and d, and a model of it."""
    shapes = [
        *(replace(USUAL, d=d) for d in SIZES + (SIZES_LARGE if arguments.full else ())),
        *(replace(USUAL, n_ps=n, f_ps=(n - 2) // 3) for n in SERVERS),
        *(replace(USUAL, n_w=n, f_w=(n - 1) // 3) for n in WORKERS),
        replace(USUAL, n_w=19, f_w=6, d=1_000_000),
    ]
    costs: dict[System, float] = {}
    for shape in dict.fromkeys(shapes):
        large = shape.d > 1_000_000
        (found,) = measure(
            [shape],
            rounds=1,
            seconds=SHARED_SECONDS * (8 if large else 1),
            warm=2 if large else 5,
            pull_after=max(2.0, shape.d / 5e5),
        )
        costs[shape] = found.cpu
        sys.stderr.write(f"{shape.shape}: {1e3 * found.cpu:.3g} ms\n")
    return modelled(costs, arguments.plot)


def modelled(costs: dict[System, float], plot: Path | None) -> list[Row]:
    """Rows of what was measured beside a model of it, and of what the model says beyond it.

    Args:
        costs: CPU seconds of a step.
        plot: Where to draw both.
    """
    rules = {shape: rules_of(shape) for shape in costs}
    prices = fit({shape: cost - rules[shape] for shape, cost in costs.items()}, costs)
    models = {shape: rules[shape] + _price(shape, prices) for shape in costs}
    rows = [
        Row(SCALE, f"(n_w, f_w, n_ps, f_ps) = {shape.shape}", 1e3 * cost, "ms",
            note=f"by the model {1e3 * models[shape]:.3g}, of it rules {1e3 * rules[shape]:.3g}")
        for shape, cost in costs.items()
    ]  # fmt: skip
    rows += [
        Row(SCALE, f"model: {name}", 1e9 * price, "ns")
        for name, price in zip(FEATURES, prices, strict=True)
    ]
    for n_w, f_w, n_ps, f_ps, d in BEYOND:
        shape = replace(USUAL, n_w=n_w, f_w=f_w, n_ps=n_ps, f_ps=f_ps, d=d)
        own = rules_of(shape)
        rows.append(
            Row(
                SCALE,
                f"modelled: (n_w, f_w, n_ps, f_ps) = {shape.shape}",
                own + _price(shape, prices),
                "s",
                note=f"of it rules {own:.3g}; {shape.vectors:.0f} vectors; a server's link "
                f"carries {4e-9 * d * (n_w + n_ps - 1):.2g} GB each way",
            )
        )
    if plot:
        _plot(costs, models, plot)
    return rows


def rules_of(shape: System) -> float:
    """CPU seconds that aggregation takes in a step, in all nodes: timed alone, on one thread."""
    d = min(shape.d, RULES_D)
    q_w, q_ps = shape.n_w - shape.f_w, shape.n_ps - shape.f_ps
    return (
        shape.n_ps * _rule_seconds("mda", q_w, shape.f_w, d)
        + shape.medians / q_ps * _rule_seconds("coordinate_median", q_ps, shape.f_ps, d)
    ) * (shape.d / d)


@cache
def _rule_seconds(rule: str, q: int, f: int, d: int) -> float:
    """CPU seconds that a rule takes for q vectors; median of five."""
    return median(ours(rule, gaussian(q, d), f)() for _ in range(5)) / 1e3


FEATURES: dict[str, Callable[[System], float]] = {
    "a node's step": lambda s: s.n_ps + s.n_w,
    "a vector sent and received": lambda s: s.vectors,
    "a coordinate of it": lambda s: s.vectors * s.d,
    "a coordinate of a gradient": lambda s: s.n_w * s.d,
}
"""What the rest of a step's cost is a sum of: how many of each there are."""


def fit(costs: dict[System, float], of: dict[System, float]) -> list[float]:
    """The price of each feature in seconds, none negative.

    Args:
        costs: Seconds to be explained.
        of: Seconds of which the errors are fractions; the sum of their squares is least.
    """
    weights = np.array([1 / of[shape] for shape in costs])
    counts = np.array([[count(shape) for count in FEATURES.values()] for shape in costs])
    counts *= weights[:, None]
    wanted = weights * list(costs.values())
    used = list(range(len(FEATURES)))
    while True:
        found, *_ = np.linalg.lstsq(counts[:, used], wanted, rcond=None)
        if not len(found) or min(found) >= 0:
            break
        used.pop(int(np.argmin(found * counts[:, used].mean(axis=0))))
    prices = dict(zip(used, found, strict=True))
    return [float(prices.get(index, 0.0)) for index in range(len(FEATURES))]


def _price(shape: System, prices: Sequence[float]) -> float:
    counts = (count(shape) for count in FEATURES.values())
    return sum(price * count for price, count in zip(prices, counts, strict=True))


def _plot(costs: dict[System, float], models: dict[System, float], path: Path) -> None:
    panels = []
    for title, x in (("coordinates", "d"), ("servers", "n_ps"), ("workers", "n_w")):
        usual: dict[str, Any] = {x: getattr(USUAL, x), "f_w": USUAL.f_w, "f_ps": USUAL.f_ps}
        along = {float(getattr(s, x)): s for s in costs if replace(s, **usual) == USUAL}
        measured = [(at, 1e3 * costs[along[at]]) for at in sorted(along)]
        modelled = [(at, 1e3 * models[along[at]]) for at in sorted(along)]
        lines = [
            Line(label="measured", style=1, points=measured),
            Line(label="model", style=2, points=modelled),
        ]
        panels.append(
            Panel(title=title, lines=lines, x=x, y="CPU ms a step", log_x=x == "d", log_y=True)
        )
    drawn = draw(panels)
    if drawn is None:
        raise SystemExit("plots need matplotlib: the extra demo")
    path.write_text(drawn, encoding="utf-8")


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "shared": shared,
    "linked": linked,
    "scale": scale,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--only", choices=PARTS, help="default: shared and linked")
    parser.add_argument("--full", action="store_true", help="every setting: an hour")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--d", type=int, help="coordinates of the model")
    parser.add_argument("--mbit", type=int, default=LINK_MBIT, help="of each server's link")
    parser.add_argument("--worker-links", type=float, default=1.0, help="rate, times a server's")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="how cost grows")
    arguments = parser.parse_args()
    rows = []
    for name in [arguments.only] if arguments.only else ("shared", "linked"):
        rows += PARTS[name](arguments)
    sys.stdout.write(markdown(rows) + f"\n{CORES} cores, load {os.getloadavg()[0]:.1f}\n")
    if arguments.json:
        write(rows, arguments.json)


if __name__ == "__main__":
    main()
