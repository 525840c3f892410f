"""theta_0 and T from the task, computed in a process of its own: a server needs no torch.

Building a model takes torch; serving it does not. So a server starts a short-lived process that
builds the initial model and writes it down, and keeps the result in its state folder.
"""

import hashlib
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialized

from byzsgd import __version__
from byzsgd.cluster import Cluster, Variant
from byzsgd.errors import ByzsgdError, ConfigError, TaskError
from byzsgd.files import PUBLIC, write_whole
from byzsgd.tasks import Task, buffers_of, load_task
from byzsgd.tasks.smoothness import gather_period
from byzsgd.vectors import Vector, is_vector
from byzsgd_daemons.config import Settings

DAMAGED = (SafetensorError, OSError, KeyError, ValueError)
"""What reading a file raises that holds no initial model."""

NEEDS_TORCH = "No module named 'torch'"
NO_TORCH = "; where it is, let byzsgd initial-model write the file for --initial"


@dataclass(frozen=True, slots=True, eq=False)
class Initial:
    """What a server needs to know of a task."""

    vector: Vector
    """theta_0, ``(d,)`` float32."""
    gather_period: int
    """T: the cluster file's, or the estimate where that says "auto"."""
    buffers: int = 0
    """So many coordinates at the end of every vector are buffers, not parameters."""


def build(cluster: Cluster, folder: Path) -> Initial:
    """Theta_0 and T, computed here: loads the task, and torch with it.

    Args:
        cluster: The cluster file's content.
        folder: The cluster file's folder, which a task's path is relative to.

    Raises:
        TaskError: If the task cannot be used.
    """
    return of_task(load_task(cluster.task, cluster.task_options, directory=folder), cluster)


def of_task(task: Task, cluster: Cluster) -> Initial:
    """Theta_0 and T of the cluster's task, for who has loaded it already.

    Raises:
        TaskError: If the task cannot be used.
    """
    found = Initial(task.initial(cluster.seed), period_of(task, cluster), buffers_of(task))
    check_buffers(found.buffers, len(found.vector), cluster)
    return found


def check_buffers(buffers: int, d: int, cluster: Cluster) -> None:
    """Make sure that vectors of d coordinates can end in so many buffers, in this variant.

    Raises:
        TaskError: If they cannot.
    """
    if not 0 <= buffers < max(d, 1):
        raise TaskError(f"task {cluster.task}: {buffers} of {d} coordinates cannot be buffers")
    if buffers and cluster.variant is Variant.SYNCHRONOUS:
        raise TaskError(
            f"task {cluster.task}: training changes {buffers} coordinates of its buffers "
            '(BatchNorm), which variant = "synchronous" does not carry: take "asynchronous", or '
            "torch.nn.GroupNorm"
        )


def period_of(task: Task, cluster: Cluster) -> int:
    """T: the cluster file's, or the estimate where that says "auto".

    Raises:
        TaskError: If the task cannot be used.
    """
    if cluster.gather_period != "auto":
        return cluster.gather_period
    return gather_period(
        task,
        seed=cluster.seed,
        learning_rate=cluster.learning_rate,
        batch_size=cluster.batch_size,
    )


def write(initial: Initial, path: Path, *, public: bool = False) -> None:
    """Write an initial model to a file, whole or not at all.

    Args:
        initial: The model and T.
        path: The file.
        public: Whether others may read the file, and write in its folder.

    Raises:
        OSError: If the disk refuses.
    """
    metadata = {
        "gather_period": str(initial.gather_period),
        "checksum": _checksum(initial),
    }
    if initial.buffers:
        metadata["buffers"] = str(initial.buffers)
    content = serialized({"vector": initial.vector}, metadata=metadata)
    if public:
        write_whole(path, content, mode=PUBLIC, partial=f"{path.name}.partial")
    else:
        write_whole(path, content)


def read(path: Path) -> Initial:
    """Read an initial model from a file that ``write`` wrote.

    Raises:
        OSError, SafetensorError, KeyError, ValueError: If the file holds none, or a damaged one.
    """
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        vector = file.get_tensor("vector")
    buffers = int(metadata.get("buffers", "0"))
    initial = Initial(vector, int(metadata["gather_period"]), buffers)
    if not is_vector(vector, vector.size) or metadata["checksum"] != _checksum(initial):
        raise ValueError("it is damaged")
    return initial


def _checksum(initial: Initial) -> str:
    numbers = [initial.gather_period, *filter(None, [initial.buffers])]
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=16)
    digest.update(initial.vector.data)
    return digest.hexdigest()


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


def initial_model(settings: Settings, cluster: Cluster) -> Initial:
    """Theta_0 and T without importing torch: from a file, or from another process.

    Args:
        settings: Where theta_0 may lie, and the cluster file.
        cluster: That file's content.

    Raises:
        TaskError: If the task cannot be used; the text may be the other process's.
        ConfigError: If a given file holds no initial model, or the state folder cannot be made.
    """
    found = _initial_model(settings, cluster)
    check_buffers(found.buffers, len(found.vector), cluster)
    return found


def _initial_model(settings: Settings, cluster: Cluster) -> Initial:
    if settings.initial is not None:
        try:
            return read(settings.initial)
        except DAMAGED as error:
            raise ConfigError(
                f"--initial {settings.initial}: holds no initial model: {error}"
            ) from None
    kept = settings.state and cache_file(cluster, settings.folder, settings.state)
    if kept is not None and kept.is_file():
        with suppress(*DAMAGED):
            return read(kept)
    initial = _built_elsewhere(settings)
    if kept is not None:
        _keep(initial, kept)
    return initial


def _built_elsewhere(settings: Settings) -> Initial:
    """What ``build`` returns in another process, which may import torch."""
    with tempfile.TemporaryDirectory(prefix="byzsgd-") as scratch:
        out = Path(scratch) / "initial.safetensors"
        command = [sys.executable, "-m", "byzsgd_daemons.cli", "initial-model"]
        command += ["--cluster", str(settings.cluster), "--out", str(out)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 2:
            # Libraries may have warned of this and that before.
            lines = [line for line in done.stderr.splitlines() if line.startswith("byzsgd: ")]
            text = "\n".join(line.removeprefix("byzsgd: ") for line in lines)
            raise TaskError(text + NO_TORCH if NEEDS_TORCH in text else text)
        if done.returncode:
            raise ByzsgdError(f"the initial model was not built: {done.stderr.strip()[-500:]}")
        return read(out)


def _keep(initial: Initial, path: Path) -> None:
    """Spare the next start the work, if the disk takes it."""
    try:
        write(initial, path)
    except OSError as error:
        if path.parent.is_dir():
            return  # The disk is full, say; whoever saves checkpoints there says so.
        raise ConfigError(f"--state {path.parent}: cannot be written to: {error}") from None
