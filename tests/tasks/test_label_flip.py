"""Tasks whose training data are wrong, for liars."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from byzsgd.errors import TaskError
from byzsgd.tasks import FlippableTask, Share, Task, load_task
from byzsgd.tasks.quadratic import Quadratic
from byzsgd.tasks.torch_task import TorchTask

SHARE = Share("w1", 0, 4, seed=1, batch_size=6)


def linear(
    labels: list[int], test_labels: list[int], dtype: torch.dtype = torch.int64
) -> TorchTask:
    """One input and one class a label."""
    return TorchTask(
        model=lambda: nn.Linear(2, 4),
        data=lambda share: (torch.ones(len(labels), 2), torch.tensor(labels, dtype=dtype)),
        loss=nn.functional.cross_entropy,
        test_data=lambda: (torch.ones(len(test_labels), 2), torch.tensor(test_labels, dtype=dtype)),
    )


def test_labels_from_the_other_end() -> None:
    """Label y becomes classes - 1 - y; how many classes there are, all data say."""
    wrong, right = linear([0, 0], [3, 1]).label_flipped(), linear([3, 3], [3, 1])
    model = right.initial(1)
    one, _ = wrong.source(SHARE).gradient(model, 0)
    other, _ = right.source(SHARE).gradient(model, 0)

    assert wrong.class_counts(SHARE) == {3: 2}
    np.testing.assert_array_equal(one, other)


def test_a_class_that_the_test_data_lack() -> None:
    """Training may know more classes, and labels that the loss is to ignore stay as they are."""
    flipped = linear([0, 3, -100], [1, 2]).label_flipped()

    assert flipped.class_counts(SHARE) == {-100: 1, 0: 1, 3: 1}


def test_what_stays() -> None:
    """Model and test data are those of the task; flipped twice, so are the labels."""
    task = linear([0, 2], [3, 1])
    flipped = task.label_flipped()
    model = task.initial(1)

    np.testing.assert_array_equal(flipped.initial(1), model)
    assert flipped.accuracy(model) == task.accuracy(model)
    assert flipped.label_flipped().class_counts(SHARE) == task.class_counts(SHARE)


def test_numbers_are_no_labels() -> None:
    """Targets that are no integers cannot be flipped."""
    with pytest.raises(TaskError, match="its targets are float32; only integer labels"):
        linear([0, 1], [1, 0], torch.float32).label_flipped()


def test_the_opposite_target() -> None:
    """The flipped quadratic looks for the opposite point, spread and noise as before."""
    task = Quadratic(5, 1.0, 0.5)
    wrong = task.label_flipped()
    at = task.initial(1)
    one, _ = task.source(SHARE).gradient(at, 3)
    other, _ = wrong.source(SHARE).gradient(at, 3)

    np.testing.assert_allclose(other - one, 2 * task.target, atol=1e-5)


@pytest.mark.parametrize("name", ["digits", "quadratic"])
def test_loaded_tasks(name: str) -> None:
    """A task that was loaded by its name can be flipped, and is a task again."""
    task = load_task(name, {}, directory=Path())
    assert isinstance(task, FlippableTask)
    flipped = task.label_flipped()

    assert isinstance(flipped, Task)
    model = task.initial(1)
    right, _ = task.source(SHARE).gradient(model, 0)
    wrong, _ = flipped.source(SHARE).gradient(model, 0)
    assert (right != wrong).any()


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    """A user's task without such a method is named with what it lacks."""
    (tmp_path / "own.py").write_text(
        "class Own:\n    def initial(self, seed): ...\n    source = accuracy = state = initial\n"
    )
    task = load_task("own.py:Own", {}, directory=tmp_path)
    assert isinstance(task, FlippableTask)

    with pytest.raises(TaskError, match=r"own.py:Own: has no method label_flipped"):
        task.label_flipped()
