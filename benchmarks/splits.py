"""What the split of the training data costs under attack: a table of accuracies.

    python benchmarks/splits.py
    python benchmarks/splits.py --attack optimal --split iid --split shards --pre-step nnm

Whole clusters in memory, (n_w, f_w, n_ps, f_ps) = (7, 2, 5, 1), the task's own settings, f_w
workers lying, their messages always first; the mean over the seeds and the correct servers.
``vanilla`` is one trusted server that averages seven correct workers with data of the same split;
``mute`` liars say nothing, so that what is missing there are their data.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from byzsgd.attacks import make
from byzsgd.cluster import Cluster, Role
from byzsgd.simulation import Coalition, Simulation
from byzsgd.simulation.cluster import without_keys
from byzsgd.tasks import TASKS, Task, load_task

SPLITS: dict[str, dict[str, object]] = {
    "iid": {},
    "shards": {"split": "shards"},
    "dirichlet 10": {"split": "dirichlet", "alpha": 10.0},
    "dirichlet 1": {"split": "dirichlet", "alpha": 1.0},
    "by-label": {"split": "by-label"},
}
"""The columns: task_options by the name of a column."""

LEARNING_RATE, BATCH_SIZE = 0.5, 32
"""Faster and noisier than the digits' own settings, so that differences show."""

ATTACKS = ("mute", "sign-flip", "alie", "empire", "alie-adaptive", "optimal")
"""The rows, besides vanilla and a cluster in which nobody lies."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What all cells of a table have in common."""

    task: str
    f_workers: int
    """How many of the seven workers lie, and may."""
    pre_steps: tuple[str, ...]
    seeds: int

    def cell(self, options: dict[str, object], row: str) -> float:
        """Accuracy in percent, the mean over the seeds."""
        task = load_task(self.task, options, directory=Path())
        attack = None if row in ("vanilla", "nobody lies") else row
        found = [
            accuracy(self.cluster(options, seed, vanilla=row == "vanilla"), task, attack)
            for seed in range(1, self.seeds + 1)
        ]
        return sum(found) / len(found)

    def cluster(self, options: dict[str, object], seed: int, *, vanilla: bool) -> Cluster:
        """A cluster that learns the task with its own settings."""
        defaults = TASKS[self.task].defaults
        nodes = [
            {"id": f"s{number}", "role": "server", "address": f"10.0.0.{number}:5555"}
            for number in range(1 if vanilla else 5)
        ]
        nodes += [{"id": f"w{number}", "role": "worker"} for number in range(7)]
        return without_keys(
            {
                "nodes": nodes,
                "f_servers": 0 if vanilla else 1,
                "f_workers": 0 if vanilla else self.f_workers,
                "rule": "average" if vanilla else "mda",
                "pre_steps": [] if vanilla else list(self.pre_steps),
                "task": self.task,
                "task_options": options,
                "learning_rate": LEARNING_RATE,
                "worker_momentum": defaults.worker_momentum,
                "batch_size": BATCH_SIZE,
                "steps": defaults.steps,
                "seed": seed,
            }
        )


def accuracy(cluster: Cluster, task: Task, attack: str | None) -> float:
    """Accuracy in percent of a cluster at the end, the mean of its correct servers."""
    liars = None
    if attack:
        lying = cluster.workers[: cluster.f_workers]
        liars = Coalition(cluster, lying, worker_attack=make(attack, Role.WORKER))
    simulation = Simulation(cluster, task, seed=cluster.seed, liars=liars)
    simulation.run()
    accuracies = simulation.accuracies().values()
    return 100 * sum(accuracies) / len(accuracies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="digits")
    parser.add_argument("--attack", action="append", help=f"default: {', '.join(ATTACKS)}")
    parser.add_argument("--split", action="append", choices=SPLITS, help="default: all")
    parser.add_argument("--f-workers", type=int, default=2, help="of seven (default: 2)")
    parser.add_argument("--pre-step", action="append", default=[], help="before MDA: nnm, ...")
    parser.add_argument("--seeds", type=int, default=2, help="how many (default: 2)")
    words = parser.parse_args()
    torch.set_num_threads(1)  # More are slower for so small a model.
    splits = words.split or list(SPLITS)
    table = Table(
        task=words.task,
        f_workers=words.f_workers,
        pre_steps=tuple(words.pre_step),
        seeds=words.seeds,
    )
    print(f"| {words.task} | {' | '.join(splits)} |")
    print("| --- |" + " ---: |" * len(splits), flush=True)
    for row in ("vanilla", "nobody lies", *(words.attack or ATTACKS)):
        print(f"| {row} |", end="", flush=True)
        for split in splits:
            print(f" {table.cell(SPLITS[split], row):.1f} |", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
