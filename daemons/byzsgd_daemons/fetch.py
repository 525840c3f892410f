"""Leave with the model: M of q_ps servers' answers for one step, no single server believed."""

import asyncio
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file

from byzsgd.cluster import Cluster, Role
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd.tasks import Task, load_task
from byzsgd.vectors import Vector
from byzsgd_daemons.config import Settings, member, read_cluster, secret_key
from byzsgd_daemons.operator import Answers, Operator


def operator_of(cluster: Cluster, settings: Settings) -> tuple[str, str]:
    """Identity and secret key of an operator.

    Raises:
        ConfigError: If the node is no operator, or its key cannot be used.
    """
    node = member(cluster, settings, Role.OPERATOR)
    return node.id, secret_key(node, settings)


def fetch(settings: Settings, out: Path, *, step: int, seconds: float) -> tuple[Answers, float]:
    """Write the trained model to a file, as safetensors that ``load_state_dict`` takes.

    Args:
        settings: The cluster file, and the operator's id and key.
        out: The file; it appears whole or not at all.
        step: The step to ask for; a later one is taken where the servers have passed it.
        seconds: How long to try.

    Returns:
        The answers that the model is the median of, and its accuracy on the task's test data.

    Raises:
        ByzsgdError: If files are wrong, too few servers answer, or the file cannot be written.
    """
    cluster = read_cluster(settings.cluster)
    identity, secret = operator_of(cluster, settings)
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.absolute().parent} to write it to")
    task = load_task(cluster.task, cluster.task_options, directory=settings.folder)
    d = len(task.initial(cluster.seed))

    async def ask() -> Answers:
        async with Operator(cluster, identity, secret, d) as operator:
            return await operator.models(step, seconds=seconds)

    answers = asyncio.run(ask())
    vector = answers.median()
    write(task, vector, out, step=answers.step)
    return answers, task.accuracy(vector)


def write(task: Task, vector: Vector, out: Path, *, step: int) -> None:
    """Write a model to a file, as the task's named arrays.

    Args:
        task: What the model is of.
        vector: ``(d,)`` float32.
        out: The file; it appears whole or not at all.
        step: Noted in the file's metadata.

    Raises:
        ByzsgdError: If the file cannot be written.
    """
    partial = out.with_name(f"{out.name}.partial")
    try:
        save_file(task.state(vector), partial, metadata={"step": str(step)})
        partial.replace(out)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink()
        raise ByzsgdError(f"{out}: cannot be written: {error}") from None
