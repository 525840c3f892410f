"""Which classes each worker of a cluster draws from, as a table, and how far that is from even."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from byzsgd.cluster import Cluster
from byzsgd.errors import TaskError
from byzsgd.tasks import LabelledTask, Share, load_task
from byzsgd.tasks.shards import total_variation

CLASSES_SHOWN = 20
"""Classes that a table has a column for; with more of them it shows how many a worker has."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassCounts:
    """How many examples of each class each worker draws from."""

    workers: Sequence[str]
    """Identities, sorted."""
    classes: Sequence[int]
    """All classes that some worker has, sorted."""
    counts: NDArray[np.int64]
    """``(n_w, classes)``, in these orders."""


def class_counts(cluster: Cluster, folder: Path) -> ClassCounts:
    """The class counts of a cluster's workers, from its task.

    Args:
        cluster: The cluster file's content.
        folder: The cluster file's folder, which a task's path is relative to.

    Raises:
        TaskError: If the task cannot be used, or knows no classes, or if a worker has no examples.
    """
    task = load_task(cluster.task, cluster.task_options, directory=folder)
    assert isinstance(task, LabelledTask), "what load_task returns can always be asked"
    found = [
        task.class_counts(Share(worker, index, cluster.n_workers, cluster.seed, cluster.batch_size))
        for index, worker in enumerate(cluster.workers)
    ]
    for worker, of_worker in zip(cluster.workers, found, strict=True):
        if not sum(of_worker.values()):
            raise TaskError(f"task {cluster.task}: {worker} has no examples")
    classes = sorted({label for of_worker in found for label in of_worker})
    counts = [[of_worker.get(label, 0) for label in classes] for of_worker in found]
    return ClassCounts(cluster.workers, classes, np.array(counts, np.int64))


def table(found: ClassCounts) -> Table:
    """One row a worker: its examples, of each class where there are few, and its distance."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    shown = found.classes if len(found.classes) <= CLASSES_SHOWN else ()
    grid.add_column("worker", no_wrap=True)
    for name in ("examples", *(map(str, shown) if shown else ("classes",)), "from all"):
        grid.add_column(name, justify="right", no_wrap=True)
    distances = total_variation(found.counts)
    for worker, counts, away in zip(found.workers, found.counts, distances, strict=True):
        classes = map(str, counts) if shown else [str(np.count_nonzero(counts))]
        grid.add_row(worker, str(counts.sum()), *classes, f"{away:.2f}")
    return grid


def sentences(found: ClassCounts) -> list[str]:
    """What the table means, for a person."""
    distances = total_variation(found.counts)
    said = [
        "from all: total variation distance between a worker's mix of classes and that of all "
        f"workers together; mean {distances.mean():.2f}, largest {distances.max():.2f}"
    ]
    if (found.counts == found.counts[0]).all():
        said.append("all workers have as many examples of every class: nothing here is uneven")
    else:
        said.append(
            "workers have different data: a rule may leave out correct workers, and liars hide "
            "among the differences; neither batch_size nor worker_momentum removes them"
        )
    return said
