"""What workers would send, computed by the liars: batches are a function of public numbers."""

from collections.abc import Callable, Collection, Mapping

from byzsgd.cluster import Cluster
from byzsgd.errors import TaskError
from byzsgd.protocol import ComputeGradient
from byzsgd.protocol.work import compute_gradient
from byzsgd.tasks import FlippableTask, Share, Task, buffers_of
from byzsgd.vectors import Vector

Oracle = Callable[[int, Vector], Mapping[str, Vector]]
"""What some workers would send at a step and model, by identity."""


class Gradients:
    """What some workers would send at a step and model, if they followed the protocol."""

    def __init__(self, task: Task, cluster: Cluster, workers: Collection[str]) -> None:
        self._beta = cluster.worker_momentum
        self._buffers = buffers_of(task)
        self._momenta: dict[str, Vector] = {}
        self._sources = {
            worker: task.source(
                Share(
                    identity=worker,
                    index=index,
                    n_workers=cluster.n_workers,
                    seed=cluster.seed,
                    batch_size=cluster.batch_size,
                )
            )
            for index, worker in enumerate(cluster.workers)
            if worker in workers
        }

    def __call__(self, step: int, model: Vector) -> Mapping[str, Vector]:
        """Their gradients by identity, momentum included: to be asked step by step."""
        for worker, source in self._sources.items():
            momentum = self._momenta.get(worker)
            effect = ComputeGradient(step, model, momentum, self._beta, self._buffers)
            self._momenta[worker] = compute_gradient(effect, source.gradient).vector
        return dict(self._momenta)


def flipped_gradients(
    task: Task, cluster: Cluster, liars: Collection[str]
) -> Callable[[int, Vector], Vector]:
    """What the first worker among some liars would send at a step and model, its labels flipped.

    Raises:
        TaskError: If the labels of the task cannot be flipped.
    """
    if not isinstance(task, FlippableTask):
        raise TaskError(f"task {cluster.task}: has no method label_flipped, which label-flip needs")
    first = next(worker for worker in cluster.workers if worker in liars)
    gradients = Gradients(task.label_flipped(), cluster, [first])

    def gradient(step: int, model: Vector) -> Vector:
        (vector,) = gradients(step, model).values()
        return vector

    return gradient
