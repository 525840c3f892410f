"""The variance condition over a training: docs/theory.png, and when and why it fails.

    python benchmarks/variance.py --out docs/theory.png
    python benchmarks/variance.py --table              # settings, splits and remedies in numbers

Whole clusters in memory that learn the digits, one trusted server, nobody lies. Without an attack
the figures are those of a training; what liars make of a violated condition is in splits.py.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from byzsgd.cluster import Cluster
from byzsgd.protocol import variance
from byzsgd.protocol.variance import FADED, Condition, State
from byzsgd.simulation import Simulation
from byzsgd.simulation.cluster import without_keys
from byzsgd.tasks import TASKS, Task, load_task

TASK = "digits"

SHAPES = ((7, 1), (7, 2))
"""n_w and f_w of the panels."""

SETTINGS = ((0.0, 32), (0.0, 256), (0.9, 32), (0.9, 256))
"""beta and B of the curves."""

SPLITS: Mapping[str, Mapping[str, object]] = {
    "iid": {},
    "shards": {"split": "shards"},
    "dirichlet 1": {"split": "dirichlet", "alpha": 1.0},
    "by-label": {"split": "by-label"},
}


LEARNING_RATE = 0.5
"""Larger than the task's own, so that the gradient shrinks within a few hundred steps."""


@dataclass(kw_only=True)
class Run:
    """A training, watched by its server."""

    cluster: Cluster
    ratios: list[float] = field(default_factory=list)
    """Of each update: the condition over the last updates, left side over right side."""
    faded: int | None = None
    """The first step at which the gradient was shorter than a quarter of its largest."""
    violated: int | None = None
    """The first step of a violated condition."""
    said: str = ""
    """What the log said of it first, or the status at the end."""
    accuracy: float = 0.0
    """In percent, at the end."""

    @property
    def failed(self) -> int | None:
        """The first step, from the 20th on, at which the ratio was above 1."""
        late = range(variance.SPAN - 1, len(self.ratios))
        return next((step for step in late if self.ratios[step] > 1), None)


def run(
    shape: tuple[int, int], beta: float, batch: int, seed: int, options: Mapping[str, object]
) -> Run:
    """A training of the digits under one trusted server that tolerates f_w liars."""
    n_workers, f_workers = shape
    defaults = TASKS[TASK].defaults
    nodes = [{"id": "s", "role": "server", "address": "10.0.0.1:5555"}]
    nodes += [{"id": f"w{number:02}", "role": "worker"} for number in range(n_workers)]
    cluster = without_keys(
        {
            "nodes": nodes,
            "f_servers": 0,
            "f_workers": f_workers,
            "task": TASK,
            "task_options": dict(options),
            "learning_rate": LEARNING_RATE,
            "worker_momentum": beta,
            "batch_size": batch,
            "steps": defaults.steps,
            "seed": seed,
        }
    )
    simulation = Simulation(cluster, _task(tuple(options.items())), seed=seed)
    found = Run(cluster=cluster)
    for step, condition in _updates(simulation):
        assert condition.ratio is not None
        found.ratios.append(condition.ratio)
        if found.faded is None and condition.share < FADED:
            found.faded = step
        if found.violated is None and condition.state is State.VIOLATED:
            found.violated = step
            found.said = variance.sentence(condition, cluster)
    found.said = found.said or variance.sentence(condition, cluster)
    [accuracy] = simulation.accuracies().values()
    found.accuracy = 100 * accuracy
    return found


def _updates(simulation: Simulation) -> Iterator[tuple[int, Condition]]:
    """Every step of the server, with the condition after its update."""
    server = simulation.servers["s"]
    for step in range(simulation.cluster.steps):
        wanted = step + 1
        simulation.run_until(lambda wanted=wanted: server.progress.steps >= wanted, seconds=3600)
        yield step, server.progress.variance


@cache
def _task(options: tuple[tuple[str, object], ...]) -> Task:
    return load_task(TASK, dict(options), directory=Path())


def draw(path: Path, seed: int) -> None:
    """Draw the ratio over the steps: a panel for each shape, a curve for each setting."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(SHAPES), sharey=True)
    for axes, shape in zip(panels, SHAPES, strict=True):
        for beta, batch in SETTINGS:
            found = run(shape, beta, batch, seed, {})
            line = axes.plot(
                range(len(found.ratios)),
                found.ratios,
                color="tab:red" if beta == 0 else "tab:blue",
                linestyle="-" if batch == 32 else "--",
                label=f"momentum {beta:g}, batch {batch}",
            )
            if found.faded is not None:
                axes.plot(
                    [found.faded], [found.ratios[found.faded]], "o", color=line[0].get_color()
                )
        axes.axhline(1, color="black", linewidth=1)
        axes.set_title(f"{shape[0]} workers, of which {shape[1]} may lie", fontsize=10)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("variance condition, left side over right;\nabove 1 nothing is promised")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def rows() -> Iterator[tuple[str, tuple[int, int], float, int, Mapping[str, object]]]:
    """What the table compares: settings, then splits, under the name of the data."""
    for shape in ((4, 1), (7, 2), (7, 1)):
        for beta, batch in SETTINGS:
            yield "iid", shape, beta, batch, {}
    for beta, batch in ((0.0, 421), (0.9, 150), (0.98, 32)):  # What was proposed for (7, 2).
        yield "iid", (7, 2), beta, batch, {}
    for name, options in SPLITS.items():
        for batch in (32, 256):
            if name != "iid":
                yield name, (7, 2), 0.9, batch, options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="draw the plot")
    parser.add_argument("--table", action="store_true", help="print the table")
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(1)  # More are slower for so small a model.
    if words.out:
        draw(words.out, words.seed)
    if words.table:
        print("| n_w, f_w | data | beta | B | above 1 from step | faded from step | accuracy % |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        for data, shape, beta, batch, options in rows():
            found = run(shape, beta, batch, words.seed, options)
            print(
                f"| {shape[0]}, {shape[1]} | {data} | {beta:g} | {batch} | {found.failed or '-'} | "
                f"{found.faded or '-'} | {found.accuracy:.1f} |   {found.said}",
                flush=True,
            )


if __name__ == "__main__":
    main()
