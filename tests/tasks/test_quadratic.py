"""The noisy quadratic: its gradient is what the mathematics says."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byzsgd.errors import TaskError
from byzsgd.tasks import Share, load_task
from byzsgd.tasks.quadratic import quadratic


def test_without_noise_the_gradient_is_the_way_from_the_target() -> None:
    """Theta - target, and the loss is half its square."""
    task = quadratic(3, noise=0.0)
    source = task.source(Share("w1", 0, 1, 1, 32))

    gradient, loss = source.gradient(task.target + np.float32([3, 0, -4]), 0)
    assert gradient == pytest.approx([3, 0, -4], abs=1e-6)
    assert loss == pytest.approx(12.5)


def test_noise_has_the_documented_deviation() -> None:
    """Noise / sqrt(B) in each coordinate, around the true gradient."""
    task = quadratic(40_000, noise=3.0)
    gradient, _ = task.source(Share("w1", 0, 1, 1, 4)).gradient(task.target, 0)

    assert float(gradient.mean()) == pytest.approx(0, abs=0.03)
    assert float(gradient.std()) == pytest.approx(3 / math.sqrt(4), rel=0.02)


def test_the_target_is_the_same_for_every_seed() -> None:
    """Where the loss is 0 and the accuracy 1; far away the accuracy is 0."""
    task = quadratic(10)

    assert task.accuracy(task.target) == 1
    assert task.accuracy(task.target + np.float32(0.25)) == pytest.approx(0.75)
    assert task.accuracy(task.target + np.float32(1e30)) == 0
    assert task.accuracy(np.full(10, np.nan, np.float32)) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"d": 0}, "task_options.d: found 0; must be an integer of at least 1"),
        ({"d": True}, "task_options.d: found True; must be an integer of at least 1"),
        ({"d": 2.0}, "task_options.d: found 2.0; must be an integer of at least 1"),
        ({"noise": -1}, "task_options.noise: found -1; must be a number of at least 0"),
        ({"noise": math.inf}, "task_options.noise: found inf; must be a number of at least 0"),
        ({"noise": math.nan}, "task_options.noise: found nan; must be a number of at least 0"),
        ({"noise": "1"}, "task_options.noise: found '1'; must be a number of at least 0"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], sentence: str) -> None:
    """With what was found and what would be right."""
    with pytest.raises(TaskError) as error:
        load_task("quadratic", options, directory=Path())

    assert str(error.value) == f"task quadratic: {sentence}"
