"""Handwritten digits, and a convolutional network with BatchNorm: an image model to start from.

byzsgd local --task examples/digits_batchnorm.py:digits --steps 200 --learning-rate 0.1 \
    --attack sign-flip --server-attack equivocate
"""

import torch
from torch import Tensor, nn

from byzsgd.tasks.digits import read
from byzsgd.tasks.torch_task import TorchTask


def network(channels: int) -> nn.Module:
    """For images ``(n, 1, 8, 8)``; its running averages travel with the gradients."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * 4 * 4, 10),
    )


def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test set, each inputs and targets: your own data come here."""
    train, test = (
        (
            torch.from_numpy(part.pixels).float().reshape(-1, 1, 8, 8) / 16,
            torch.from_numpy(part.labels),
        )
        for part in read()
    )
    return train, test


def digits(channels: int = 8) -> TorchTask:
    """The task; ``channels`` can be set in the cluster file, under ``[task_options]``."""
    return TorchTask(
        model=lambda: network(channels),
        data=lambda _share: images()[0],  # All of it, for every worker.
        loss=nn.functional.cross_entropy,
        test_data=lambda: images()[1],
    )
