"""theta_0 and T from the task, computed in a process of its own: a server needs no torch.

Building a model takes torch; serving it does not. So a server starts a short-lived process that
builds the initial model and writes it down, and keeps the result in its state folder.
"""

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from byzsgd import __version__
from byzsgd.cluster import Cluster
from byzsgd.errors import ByzsgdError, TaskError
from byzsgd.tasks import load_task
from byzsgd.tasks.smoothness import gather_period
from byzsgd.vectors import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Initial:
    """What a server needs to know of a task."""

    vector: Vector
    """theta_0, ``(d,)`` float32."""
    gather_period: int
    """T: the cluster file's, or the estimate where that says "auto"."""


def build(cluster: Cluster, folder: Path) -> Initial:
    """Theta_0 and T, computed here: loads the task, and torch with it.

    Args:
        cluster: The cluster file's content.
        folder: The cluster file's folder, which a task's path is relative to.

    Raises:
        TaskError: If the task cannot be used.
    """
    task = load_task(cluster.task, cluster.task_options, directory=folder)
    period = cluster.gather_period
    if period == "auto":
        period = gather_period(
            task,
            seed=cluster.seed,
            learning_rate=cluster.learning_rate,
            batch_size=cluster.batch_size,
        )
    return Initial(task.initial(cluster.seed), period)


def write(initial: Initial, path: Path) -> None:
    """Write an initial model to a file."""
    metadata = {"gather_period": str(initial.gather_period)}
    save_file({"vector": initial.vector}, path, metadata=metadata)


def read(path: Path) -> Initial:
    """Read an initial model from a file that ``write`` wrote."""
    with safe_open(path, framework="numpy") as file:
        return Initial(file.get_tensor("vector"), int(file.metadata()["gather_period"]))


def cache_file(cluster: Cluster, folder: Path, state: Path) -> Path | None:
    """Where the initial model of a task may be kept; None where its code may change unseen."""
    path, _, factory = cluster.task.partition(":")
    if not factory:
        code = __version__.encode()
    elif path.endswith(".py") and (folder / path).is_file():
        code = (folder / path).read_bytes()
    else:
        return None
    keys = ("task", "task_options", "seed", "gather_period", "learning_rate", "batch_size")
    digest = hashlib.blake2b(code + cluster.digest(*keys), digest_size=8)
    return state / f"initial-{digest.hexdigest()}.safetensors"


def initial_model(cluster_file: Path, cluster: Cluster, state: Path | None) -> Initial:
    """Theta_0 and T without importing torch: from the state folder, or from another process.

    Raises:
        TaskError: If the task cannot be used; the text is the other process's.
    """
    folder = cluster_file.resolve().parent
    kept = None if state is None else cache_file(cluster, folder, state)
    if kept is not None and kept.is_file():
        try:
            return read(kept)
        except (SafetensorError, OSError, KeyError, ValueError):
            kept.unlink()  # Damaged: it is built again.
    with tempfile.TemporaryDirectory(prefix="byzsgd-") as scratch:
        out = Path(scratch) / "initial.safetensors"
        command = [sys.executable, "-m", "byzsgd_daemons.cli", "initial-model"]
        command += ["--cluster", str(cluster_file), "--out", str(out)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 2:
            raise TaskError(done.stderr.strip().removeprefix("byzsgd: "))
        if done.returncode:
            raise ByzsgdError(f"the initial model was not built: {done.stderr.strip()[-500:]}")
        initial = read(out)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial")
            write(initial, partial)
            partial.replace(kept)
        return initial
