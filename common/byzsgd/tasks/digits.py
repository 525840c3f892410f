"""The task ``digits``: scikit-learn's 1,797 handwritten digits of 8x8 pixels, and a small MLP."""

from torch import nn

from byzsgd.tasks.classification import Pixels, classification
from byzsgd.tasks.images import Images, from_package
from byzsgd.tasks.shards import Split
from byzsgd.tasks.torch_task import TorchTask

N_TRAIN = 1437
"""Images to train on; the other 360 are held out."""


MEAN, DEVIATION = 4.9, 6.0
"""Of all pixels, from 0 to 16. Without them a step of 0.5 is at the edge of what is stable, and
liars who hide in the noise cost several points; with them, liars push it there now and then, and a
step of 0.3 is safe."""


def digits(
    split: str = "iid",
    alpha: float | None = None,
    runs: int | None = None,
    split_seed: int | None = None,
) -> TorchTask:
    """The task: 4,810 parameters, some 98 % after 300 steps.

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
    """A perceptron with one hidden layer, 64-64-10, for pixels from 0 to 16."""
    return nn.Sequential(
        Pixels(MEAN, DEVIATION, 64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def read() -> tuple[Images, Images]:
    """Training and test set, from scikit-learn's files.

    Raises:
        TaskError: If scikit-learn is not installed.
    """
    return from_package("sklearn", "datasets/data/digits.csv.gz").split(N_TRAIN)
