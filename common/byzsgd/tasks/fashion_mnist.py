"""The task ``fashion-mnist``: 70,000 images of clothes, 28x28 pixels, and a CNN of 1.75 M."""

from pathlib import Path

from torch import nn

from byzsgd.errors import TaskError
from byzsgd.tasks.classification import Pixels, classification, convolutional
from byzsgd.tasks.images import Images, from_idx
from byzsgd.tasks.shards import Split
from byzsgd.tasks.torch_task import TorchTask

FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts the four IDX files."""

MEAN, DEVIATION = 73.0, 90.0
"""Of all pixels, from 0 to 255."""


def fashion_mnist(
    folder: str = FOLDER,
    split: str = "iid",
    alpha: float | None = None,
    runs: int | None = None,
    split_seed: int | None = None,
) -> TorchTask:
    """The task: 1,750,188 parameters, some 87 % after 1,000 steps.

    Args:
        folder: Where the four IDX files lie, gzipped or not. MNIST's own files do as well.
        split: Which examples each worker draws from: a name of ``shards.SPLITS``.
        alpha: Of ``dirichlet``: the smaller, the more uneven.
        runs: Of ``by-label``: runs of equal labels a worker.
        split_seed: Seed of the split; the cluster's where there is none.

    Raises:
        TaskError: If there is no such split.
    """
    how = Split(split, alpha, runs, split_seed)
    return classification(network, lambda: read(Path(folder)), how)


def network() -> nn.Module:
    """The CNN, for pixels from 0 to 255."""
    return convolutional(Pixels(MEAN, DEVIATION, 1, 28, 28), channels=32, hidden=550)


def read(folder: Path) -> tuple[Images, Images]:
    """Training and test set, from IDX files.

    Raises:
        TaskError: If a file is missing or damaged.
    """
    if not folder.is_dir():
        raise TaskError(
            f"the data set is missing, no folder {folder}: apt-get install dataset-fashion-mnist, "
            "or set task_options.folder"
        )
    return from_idx(folder, "train"), from_idx(folder, "t10k")
