"""byzsgd and the vanilla parameter server under the same attack, one after the other.

Same daemons, task, budget and liars; the vanilla cluster has one server that everybody trusts, and
averages what its workers send. What a reader takes home: two accuracies, a plot, a table, a model.
"""

import asyncio
import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from byzsgd.cluster import Cluster
from byzsgd.tasks import load_task
from byzsgd_daemons import fetch, init
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import Drill, Point, Training, free_addresses, train
from byzsgd_daemons.nursery import Nursery
from byzsgd_daemons.show import screen

STALL_SECONDS = 10.0
"""A vanilla cluster that makes no step for so long never will."""

VANILLA_RULE = "average"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Both trainings of a demo."""

    cluster: Cluster
    drill: Drill
    byzsgd: Training
    vanilla: Training

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {
            "task": self.cluster.task,
            "steps": self.cluster.steps,
            "attack": self.drill.attack,
            "attack_options": dict(self.drill.options),
            "server_attack": self.drill.server_attack,
            "n_servers": self.cluster.n_servers,
            "f_servers": self.cluster.f_servers,
            "n_workers": self.cluster.n_workers,
            "f_workers": self.cluster.f_workers,
            "lying": sorted(self.byzsgd.lying),
            "byzsgd": figures(self.byzsgd),
            "vanilla": figures(self.vanilla),
        }


def figures(training: Training) -> dict[str, Any]:
    """The figures of one training as plain JSON values."""
    last = training.points[-1] if training.points else None
    return {
        "accuracy": last.accuracy if last else None,
        "accuracy_worst": last.accuracy_worst if last else None,
        "step": last.step if last else 0,
        "seconds": round(last.seconds, 3) if last else None,
        "steps_per_second": round(training.steps_per_second(), 2),
        "drift_max": max((point.drift for point in training.points), default=None),
        "stalled": training.stalled or None,
    }


def run(
    plan: init.Plan, drill: Drill, console: Console, *, scratch: Path, device: str = "cpu"
) -> Result:
    """Train twice and show both.

    Args:
        plan: The byzsgd cluster.
        drill: Who lies, and how.
        console: Where to show it.
        scratch: Folder for cluster files, keys and logs.
        device: Where workers compute.

    Raises:
        ByzsgdError: If the plan cannot be run.
    """
    file = init.create(scratch / "byzsgd", plan, free_addresses(plan))
    cluster = read_cluster(file)
    attacked = replace(
        drill,
        n_workers=cluster.f_workers if drill.n_workers is None else drill.n_workers,
        n_servers=0,
        server_attack=None,
    )
    with Nursery() as nursery:  # It does its imports once, for both.
        with screen(f"byzsgd: {init.scaled(cluster)}; {under(drill)}", console) as view:
            byzsgd = asyncio.run(
                train(
                    file,
                    drill,
                    view,
                    logs=scratch / "byzsgd" / "logs",
                    device=device,
                    nursery=nursery,
                )
            )
        trusting = replace(plan, servers=1, f_servers=0, f_workers=0, rule=VANILLA_RULE)
        file = init.create(scratch / "vanilla", trusting, free_addresses(trusting))
        title = f"vanilla: one trusted server that averages all {plan.workers} workers; "
        with screen(title + under(attacked), console) as view:
            vanilla = asyncio.run(
                train(
                    file,
                    attacked,
                    view,
                    logs=scratch / "vanilla" / "logs",
                    device=device,
                    stall_seconds=STALL_SECONDS,
                    nursery=nursery,
                )
            )
    return Result(cluster=cluster, drill=drill, byzsgd=byzsgd, vanilla=vanilla)


def under(drill: Drill) -> str:
    """What a cluster is under, in words."""
    words = []
    if drill.attack:
        words.append(f"lying workers: {drill.attack}")
    if drill.server_attack:
        words.append(f"lying servers: {drill.server_attack}")
    return ", ".join(words) or "nobody lies"


def write(result: Result, folder: Path) -> list[Path]:
    """Write what a demo leaves behind into a folder, and return the files.

    Raises:
        ByzsgdError: If the model cannot be written.
        OSError: If another file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if result.byzsgd.vector is not None:
        cluster = result.cluster
        task = load_task(cluster.task, cluster.task_options, directory=folder)
        written.append(folder / "model.safetensors")
        fetch.write(task, result.byzsgd.vector, written[-1], step=result.byzsgd.points[-1].step)
    trainings = {"byzsgd": result.byzsgd, "vanilla": result.vanilla}
    written.append(folder / "demo.csv")
    write_csv(trainings, written[-1])
    if plot(trainings, folder / "demo.png", title=_title(result)):
        written.append(folder / "demo.png")
    return written


def write_csv(trainings: Mapping[str, Training], path: Path) -> None:
    """Write a line for each point of each training."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["training", *Point.__dataclass_fields__])
        writer.writeheader()
        for name, training in trainings.items():
            for point in training.points:
                writer.writerow({"training": name, **asdict(point)})


def plot(trainings: Mapping[str, Training], path: Path, *, title: str) -> bool:
    """Draw accuracy and drift over steps; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title, fontsize=10)
    for (name, training), color in zip(trainings.items(), ("tab:blue", "tab:red"), strict=True):
        steps = [point.step for point in training.points]
        accuracy = [100 * point.accuracy for point in training.points]
        end = _bad_end(training).partition(":")[0]
        above.plot(steps, accuracy, color=color, marker=".", label=f"{name} {end}".strip())
        if end and steps:
            # What is left of it: the last model that could be used.
            above.plot([steps[-1]], accuracy[-1:], color=color, marker="x", markersize=9)
        if training.cluster.n_servers > 1:
            drift = [point.drift for point in training.points]
            below.plot(steps, drift, color=color, marker=".", label=name)
    above.set_ylabel("accuracy on held-out data, %")
    above.set_ylim(0, 100)
    above.legend(loc="center right", fontsize=9)
    below.set_ylabel("drift (L2) between\ncorrect servers")
    below.set_xlabel("step")
    below.set_ylim(bottom=0)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    return True


def _title(result: Result) -> str:
    return f"{result.cluster.task}: {init.scaled(result.cluster)}\n{under(result.drill)}"


def table(result: Result) -> str:
    """Both trainings side by side, for a person."""
    rows = [("", "accuracy", "worst server", "steps", "steps/s", "largest drift")]
    for name, training in (("byzsgd", result.byzsgd), ("vanilla", result.vanilla)):
        found = figures(training)
        rows.append(
            (
                name,
                _percent(found["accuracy"]),
                _percent(found["accuracy_worst"]),
                f"{found['step']} of {training.cluster.steps}",
                f"{found['steps_per_second']:.1f}",
                f"{found['drift_max']:.2g}" if training.cluster.n_servers > 1 else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True))
        for row in rows
    ]
    if end := _bad_end(result.vanilla):
        lines.append(f"vanilla {end}")
    return "\n".join(lines)


def _bad_end(training: Training) -> str:
    """Why a training never came to its last step, or nothing if it did."""
    if training.stalled and training.diverged():
        return f"diverged after step {training.points[-1].step}"
    return training.stalled


def write_json(result: Result, path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(result.summary(), indent=1) + "\n")


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"
