"""What every task owes its callers, checked for each that is shipped."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from byzsgd.tasks import TASKS, Share, Task, load_task
from byzsgd.vectors import is_finite, is_vector

PARAMETERS = {"digits": 4_810, "mnist": 102_964, "fashion-mnist": 1_750_188, "quadratic": 100}
"""d, as each task's documentation says it."""

ACCURACIES: Mapping[str, tuple[int, float]] = {
    "digits": (100, 0.93),
    "mnist": (40, 0.7),
    "quadratic": (60, 0.9),
}
"""Plain SGD steps with the task's own defaults, and the accuracy that they reach with room."""

every_task = pytest.mark.parametrize("name", TASKS)


def share(index: int = 0, *, seed: int = 1, batch_size: int = 8) -> Share:
    return Share(f"w{index}", index, 4, seed, batch_size)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the files of ``fashion-mnist``, but of few images and of noise."""
    folder = tmp_path_factory.mktemp("clothes")
    chance = np.random.default_rng(1)
    for part, n in (("train", 60), ("t10k", 20)):
        size = n.to_bytes(4, "big")
        side = (28).to_bytes(4, "big")
        pixels, labels = chance.bytes(n * 28 * 28), bytes(index % 10 for index in range(n))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            b"\0\0\x08\3" + size + side + side + pixels
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1" + size + labels)
    return str(folder)


@pytest.fixture(scope="module")
def load(clothes: str) -> Callable[[str], Task]:
    """Loads a shipped task anew."""

    def load(name: str) -> Task:
        options = {"folder": clothes} if name == "fashion-mnist" else {}
        return load_task(name, options, directory=Path())

    return load


@pytest.fixture(scope="module")
def tasks(load: Callable[[str], Task]) -> Mapping[str, Task]:
    """The shipped tasks by name, loaded once: their data take time to read."""
    return {name: load(name) for name in TASKS}


@every_task
def test_a_task_has_as_many_parameters_as_it_says(name: str, tasks: Mapping[str, Task]) -> None:
    """theta_0 is a finite float32 vector of the documented length."""
    initial = tasks[name].initial(1)

    assert is_vector(initial, PARAMETERS[name])
    assert is_finite(initial)


@every_task
def test_equal_seeds_give_equal_models_and_others_do_not(
    name: str, tasks: Mapping[str, Task], load: Callable[[str], Task]
) -> None:
    """Every server must start from the same model, also one that loads the task anew."""
    initial = tasks[name].initial(1)

    assert initial.tobytes() == tasks[name].initial(1).tobytes() == load(name).initial(1).tobytes()
    assert not np.array_equal(initial, tasks[name].initial(2))


@every_task
def test_results_are_newly_allocated(name: str, tasks: Mapping[str, Task]) -> None:
    """Their caller may write into models, gradients and states without changing the task."""
    task = tasks[name]
    initial = task.initial(1)
    kept = initial.copy()
    source = task.source(share())
    gradient, _ = source.gradient(initial, 0)
    again, _ = source.gradient(initial, 0)
    state = task.state(initial)
    assert not np.shares_memory(gradient, again)

    first = gradient.copy()
    for array in (initial, gradient, *state.values()):
        array.fill(7)
    assert np.array_equal(task.initial(1), kept)
    assert np.array_equal(source.gradient(kept, 0)[0], first)


@every_task
def test_a_gradient_leaves_its_argument_alone(name: str, tasks: Mapping[str, Task]) -> None:
    """Also one that cannot be written to, as models that came through the network are."""
    initial = tasks[name].initial(1)
    kept = initial.copy()
    initial.flags.writeable = False
    source = tasks[name].source(share())

    source.gradient(initial, 0)
    tasks[name].accuracy(initial)
    tasks[name].state(initial)
    assert np.array_equal(initial, kept)


@every_task
def test_a_gradient_depends_on_its_arguments_alone(
    name: str, tasks: Mapping[str, Task], load: Callable[[str], Task]
) -> None:
    """A worker that restarts at step 5 computes what one computes that was there from the start."""
    task = tasks[name]
    start, model = task.initial(1), task.initial(2)
    old, new = task.source(share()), load(name).source(share())
    for step in range(3):
        old.gradient(start, step)

    (gradient, loss), (again, same_loss) = old.gradient(model, 5), new.gradient(model, 5)
    assert is_vector(gradient, len(model))
    assert gradient.tobytes() == again.tobytes()
    assert loss == same_loss
    assert np.isfinite(loss)


@every_task
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((share(), 0), (share(), 1)),
        ((share(), 0), (share(1), 0)),
        ((share(), 0), (share(seed=2), 0)),
    ],
    ids=["step", "worker", "seed"],
)
def test_mini_batches_differ(
    name: str, tasks: Mapping[str, Task], one: tuple[Share, int], other: tuple[Share, int]
) -> None:
    """From step to step, from worker to worker, from seed to seed: at the same model."""
    model = tasks[name].initial(1)
    first, second = (
        tasks[name].source(whose).gradient(model, step)[0] for whose, step in (one, other)
    )

    assert not np.array_equal(first, second)


@every_task
def test_a_gradient_that_is_not_finite_is_handed_on(name: str, tasks: Mapping[str, Task]) -> None:
    """A model of NaN is no reason to raise: refusing is the protocol's affair."""
    model = np.full(PARAMETERS[name], np.nan, np.float32)

    gradient, loss = tasks[name].source(share()).gradient(model, 0)
    assert is_vector(gradient, len(model))
    assert not is_finite(gradient)
    assert np.isnan(loss)
    assert 0 <= tasks[name].accuracy(model) <= 1


@every_task
def test_a_state_holds_the_whole_model(name: str, tasks: Mapping[str, Task]) -> None:
    """Named arrays, whose float32 coordinates are the vector's, in its order."""
    model = tasks[name].initial(3)
    state = tasks[name].state(model)

    assert np.array_equal(np.concatenate([array.ravel() for array in state.values()]), model)


@pytest.mark.parametrize("name", ACCURACIES)
def test_a_task_can_be_learned_with_its_defaults(name: str, tasks: Mapping[str, Task]) -> None:
    """Plain SGD, one worker: the defaults suit the task."""
    task, defaults = tasks[name], TASKS[name].defaults
    steps, reached = ACCURACIES[name]
    model = task.initial(1)
    source = task.source(share(batch_size=defaults.batch_size))
    before = task.accuracy(model)
    for step in range(steps):
        model = model - np.float32(defaults.learning_rate) * source.gradient(model, step)[0]

    assert before < 0.3
    assert reached < task.accuracy(model) <= 1


def test_the_table_says_where_each_task_comes_from() -> None:
    """Every name has a factory that is there, and defaults that a cluster file may hold."""
    for shipped in TASKS.values():
        module, _, factory = shipped.factory.partition(":")
        assert callable(getattr(importlib.import_module(module), factory))
        assert shipped.defaults.learning_rate > 0
        assert 0 <= shipped.defaults.worker_momentum < 1
        assert shipped.defaults.batch_size > 0
        assert shipped.defaults.steps > 0
