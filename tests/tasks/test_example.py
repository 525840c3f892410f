"""The example of a task of one's own keeps what it promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from byzsgd.tasks import Share, Task, load_task

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def disc() -> Task:
    return load_task("my_task.py:disc", {}, directory=EXAMPLES)


def test_the_example_learns(disc: Task) -> None:
    """A few hundred steps of plain SGD tell the disc from what surrounds it."""
    model = disc.initial(1)
    source = disc.source(Share("w1", 0, 1, seed=1, batch_size=32))
    for step in range(400):
        model = model - np.float32(0.5) * source.gradient(model, step)[0]

    assert disc.accuracy(disc.initial(1)) < 0.8
    assert disc.accuracy(model) > 0.9


def test_its_state_loads_into_its_module(disc: Task) -> None:
    """Who leaves with the model calls load_state_dict, strictly, and has the same model."""
    model = disc.initial(1)
    module = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    state = {name: torch.from_numpy(array) for name, array in disc.state(model).items()}
    module.load_state_dict(state, strict=True)

    parameters = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    assert np.array_equal(parameters, model)


def test_its_option_is_taken() -> None:
    """``hidden`` changes the size of the network."""
    wide = load_task("my_task.py:disc", {"hidden": 5}, directory=EXAMPLES)

    assert len(wide.initial(1)) == (2 + 1) * 5 + (5 + 1) * 2
