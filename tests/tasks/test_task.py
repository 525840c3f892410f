"""How a task is loaded, and that a user's own code fails in one clear line."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from byzsgd.errors import TaskError
from byzsgd.tasks import Share, Task, load_task
from byzsgd.tasks.task import MovableTask

SHARE = Share("w1", 0, 1, seed=1, batch_size=4)

TASK = """
import numpy as np

class Source:
    def gradient(self, vector, step):
        return {gradient}, {loss}

class Mine:
    def __init__(self, size=3):
        self.size = size
    def initial(self, seed):
        return {initial}
    def source(self, share):
        return Source()
    def accuracy(self, vector):
        return {accuracy}
    def state(self, vector):
        return {{"theta": vector}}

def mine(size: int = 3) -> Mine:
    return Mine(size)
"""
"""A task that is right but for the expressions that a test puts in."""

RIGHT = {
    "gradient": "vector + np.float32(1)",
    "loss": "0.5",
    "initial": "np.zeros(self.size, np.float32)",
    "accuracy": "0.5",
}


def write(folder: Path, **expressions: str) -> None:
    (folder / "own.py").write_text(TASK.format(**RIGHT | expressions))


def load(folder: Path, name: str = "own.py:mine", **options: Any) -> Task:
    return load_task(name, options, directory=folder)


def problem(folder: Path, name: str = "own.py:mine", *, device: str = "cpu", **options: Any) -> str:
    with pytest.raises(TaskError) as error:
        load_task(name, options, directory=folder, device=device)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# By which names


@pytest.mark.parametrize("name", ["digits", "quadratic", "byzsgd.tasks.quadratic:quadratic"])
def test_a_task_is_loaded_by_name_or_by_module(name: str, tmp_path: Path) -> None:
    """A shipped one's name, or any package.module:factory."""
    assert isinstance(load(tmp_path, name), Task)


def test_a_task_is_loaded_from_a_file_beside_the_cluster_file(tmp_path: Path) -> None:
    """A path is relative to that folder, wherever the process was started."""
    (tmp_path / "deeper").mkdir()
    write(tmp_path / "deeper")
    task = load(tmp_path, "deeper/own.py:mine")

    model = task.initial(1)
    assert model.tolist() == [0, 0, 0]
    gradient, loss = task.source(SHARE).gradient(model, 0)
    assert gradient.tolist() == [1, 1, 1]
    assert loss == task.accuracy(model) == 0.5
    assert task.state(model).keys() == {"theta"}


def test_a_file_may_import_its_neighbours_and_use_dataclasses(tmp_path: Path) -> None:
    """And a neighbour hides no module of the same name that was there before."""
    write(tmp_path, initial="np.full(self.size, VALUE.number, np.float32)")
    text = (tmp_path / "own.py").read_text()
    (tmp_path / "own.py").write_text("from byzsgd_test_neighbour import VALUE\n" + text)
    (tmp_path / "byzsgd_test_neighbour.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Value:\n"
        "    number: float\n"
        "VALUE = Value(2.0)\n"
    )
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')\n")

    assert load(tmp_path).initial(1).tolist() == [2, 2, 2]


def test_options_are_the_factorys_arguments(tmp_path: Path) -> None:
    """As they stand in the cluster file."""
    write(tmp_path)

    assert len(load(tmp_path, size=7).initial(1)) == 7


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    """Each folder's own code is run."""
    for name, size in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        write(tmp_path / name, initial=f"np.zeros({size}, np.float32)")

    one, other = load(tmp_path / "a"), load(tmp_path / "b")
    assert (len(one.initial(1)), len(other.initial(1))) == (1, 2)


# What is not there


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "digit",
            "unknown name; did you mean digits? (a task of your own: package.module:factory or "
            "path/file.py:factory)",
        ),
        (
            "xyz",
            "unknown name; known: digits, fashion-mnist, mnist, quadratic (a task of your own: "
            "package.module:factory or path/file.py:factory)",
        ),
        ("no_such_package:x", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("own.py:min", "own.py has no factory 'min'; did you mean mine?"),
        ("own.py:", "own.py has no factory ''; known: mine"),
        ("own.py:np", "own.py has no factory 'np'; known: mine"),
        ("byzsgd.tasks.quadratic:x", "byzsgd.tasks.quadratic has no factory 'x'; known: quadratic"),
        ("byzsgd.errors:x", "byzsgd.errors has no factory 'x'; known: none"),
    ],
)
def test_an_unknown_name_names_the_nearest(name: str, sentence: str, tmp_path: Path) -> None:
    """One line: the task, what is missing, and what there is."""
    write(tmp_path)

    assert problem(tmp_path, name) == f"task {name}: {sentence}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the folder that it was looked for in."""
    assert problem(tmp_path, "x.py:f") == f"task x.py:f: {tmp_path}/x.py: no such file"


def test_an_unknown_option_shows_what_the_factory_takes(tmp_path: Path) -> None:
    """So that the cluster file can be mended without reading code."""
    write(tmp_path)

    assert problem(tmp_path, width=1) == (
        "task own.py:mine: task_options: got an unexpected keyword argument 'width'; its factory "
        "takes (size: int = 3)"
    )


# What a user's code does wrong


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def f(): return 1 / 0", "ZeroDivisionError: division by zero ({path}:1)"),
        ("def f():\n    raise ValueError('a\\nb')", "ValueError: a ({path}:2)"),
        ("def f(): raise KeyError", "KeyError ({path}:1)"),
        ("1 / 0\ndef f(): pass", "ZeroDivisionError: division by zero ({path}:1)"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere' ({path}:1)"),
        ("def f(:", "SyntaxError: invalid syntax (wrong.py, line 1)"),
        ("import json\ndef f(): return json.loads('x')",
         "JSONDecodeError: Expecting value: line 1 column 1 (char 0) ({path}:2)"),
        ("def f(): pass", "its factory returned nothing; must be a TorchTask, or an object with "
         "the methods initial, source, accuracy and state"),
        ("def f(): return 3", "its factory returned a int; must be a TorchTask, or an object with "
         "the methods initial, source, accuracy and state"),
    ],
)  # fmt: skip
def test_what_a_factory_does_wrong_is_one_line_with_its_place(
    code: str, sentence: str, tmp_path: Path
) -> None:
    """The kind of failure, its first line, and the last line of the user's own code."""
    path = tmp_path / "wrong.py"
    path.write_text(code)

    assert problem(tmp_path, "wrong.py:f") == f"task wrong.py:f: {sentence.format(path=path)}"


NOT_FLAT = "must be a flat array of float32"


@pytest.mark.parametrize(
    ("initial", "sentence"),
    [
        ("None", f"initial returned nothing; {NOT_FLAT}"),
        ("[1.0, 2.0]", f"initial returned a list; {NOT_FLAT}"),
        ("np.zeros(3)", f"initial returned an array of float64 and shape (3,); {NOT_FLAT}"),
        (
            "np.zeros((1, 3), np.float32)",
            f"initial returned an array of float32 and shape (1, 3); {NOT_FLAT}",
        ),
        (
            "np.zeros(0, np.float32)",
            f"initial returned an array of float32 and shape (0,); {NOT_FLAT}",
        ),
        ("__import__('torch').zeros(3)", f"initial returned a Tensor; {NOT_FLAT}"),
        (
            "np.float32([1, np.nan])",
            "initial returned a model with NaN or infinite coordinates",
        ),
    ],
)
def test_an_initial_model_is_a_finite_vector(initial: str, sentence: str, tmp_path: Path) -> None:
    """What else it is, the message says."""
    write(tmp_path, initial=initial)
    task = load(tmp_path)

    with pytest.raises(TaskError) as error:
        task.initial(1)
    assert str(error.value) == f"task own.py:mine: {sentence}"


@pytest.mark.parametrize(
    ("gradient", "found"),
    [
        ("None", "nothing"),
        ("vector[:2]", "an array of float32 and shape (2,)"),
        ("vector.astype(float)", "an array of float64 and shape (3,)"),
        ("np.zeros((3, 1), np.float32)", "an array of float32 and shape (3, 1)"),
    ],
)
def test_a_gradient_is_a_vector_of_the_models_length(
    gradient: str, found: str, tmp_path: Path
) -> None:
    """A model that changes its size in training is named with both sizes."""
    write(tmp_path, gradient=gradient)
    task = load(tmp_path)

    with pytest.raises(TaskError) as error:
        task.source(SHARE).gradient(task.initial(1), 0)
    assert str(error.value) == (
        f"task own.py:mine: the gradient is {found}; must be a flat array of float32 of the 3 "
        "coordinates that the model has"
    )


CALLS: Mapping[str, Callable[[Task], object]] = {
    "initial": lambda task: task.initial(1),
    "gradient": lambda task: task.source(SHARE).gradient(np.zeros(3, np.float32), 0),
    "loss": lambda task: task.source(SHARE).gradient(np.zeros(3, np.float32), 0),
    "accuracy": lambda task: task.accuracy(np.zeros(3, np.float32)),
}


@pytest.mark.parametrize("part", CALLS)
def test_whatever_a_method_raises_is_a_task_error(part: str, tmp_path: Path) -> None:
    """With the line of the user's file."""
    write(tmp_path, **{part: "{}['x']"})
    task = load(tmp_path)

    with pytest.raises(TaskError) as error:
        CALLS[part](task)
    expected = rf"task own\.py:mine: KeyError: 'x' \({re.escape(str(tmp_path))}/own\.py:\d+\)"
    assert re.fullmatch(expected, str(error.value))


@pytest.mark.parametrize(("part", "value"), [("loss", "'high'"), ("accuracy", "None")])
def test_losses_and_accuracies_are_numbers(part: str, value: str, tmp_path: Path) -> None:
    """What is none raises nothing but TaskError either."""
    write(tmp_path, **{part: value})
    task = load(tmp_path)

    with pytest.raises(TaskError, match=r"^task own\.py:mine: \w+Error: "):
        CALLS[part](task)


# Devices


def test_a_task_without_devices_says_so(tmp_path: Path) -> None:
    """One in NumPy computes on the CPU alone."""
    assert problem(tmp_path, "quadratic", device="cuda") == (
        "task quadratic: computes on the CPU alone, not on 'cuda'"
    )


def test_a_missing_device_is_named(tmp_path: Path) -> None:
    """With what torch says of it."""
    missing = "mps" if not torch.backends.mps.is_available() else "cuda:99"

    assert problem(tmp_path, "digits", device=missing).startswith(
        f"task digits: device '{missing}' is not available to torch "
    )


def test_an_unknown_device_names_the_nearest(tmp_path: Path) -> None:
    """Before anything is moved."""
    assert problem(tmp_path, "digits", device="cudda") == (
        "task digits: device 'cudda': did you mean cuda?"
    )


def test_a_task_that_can_move_is_moved(tmp_path: Path) -> None:
    """By its method ``to``, with the device's name."""
    write(tmp_path)
    text = (tmp_path / "own.py").read_text().replace("size: int = 3) -> Mine", "size: int = 3)")
    (tmp_path / "own.py").write_text(
        text + "class Movable(Mine):\n    def to(self, device):\n        return Mine(len(device))\n"
        "def movable(): return Movable()\n"
    )

    task = load_task("own.py:movable", {}, directory=tmp_path, device="mps")
    assert len(task.initial(1)) == len("mps")
    assert not isinstance(load(tmp_path), MovableTask)


def test_asking_for_tasks_imports_no_torch() -> None:
    """Whoever asks for defaults, or trains the quadratic, starts without it."""
    code = (
        "import sys; from pathlib import Path; from byzsgd.tasks import TASKS, load_task\n"
        "load_task('quadratic', {}, directory=Path()).initial(1)\n"
        "assert 'torch' not in sys.modules and 'byzsgd.tasks.quadratic' in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
