"""A task of your own: write ``task = "my_task.py:disc"`` into the cluster file beside this file."""

import torch
from torch import Tensor, nn

from byzsgd.tasks.torch_task import TorchTask


def points(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points of a square, and whether each lies in the disc within it: the same on every node."""
    inputs = 2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) - 1
    return inputs, (inputs.norm(dim=1) < 0.8).long()


def disc(hidden: int = 16) -> TorchTask:
    """The task; ``hidden`` can be set in the cluster file, under ``[task_options]``."""
    return TorchTask(
        model=lambda: nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2)),
        data=lambda _share: points(2000, seed=0),  # All of it, for every worker.
        loss=nn.functional.cross_entropy,
        test_data=lambda: points(500, seed=1),
    )
