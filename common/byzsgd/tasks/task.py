"""The contract of a task, the table of shipped tasks, and the loader of a user's own.

A task MUST

1. give equal results for equal arguments: a worker that restarts has nothing but the cluster file,
   and every server must start from the same model;
2. return a newly allocated vector from every call: its caller may write into it;
3. hand on a gradient that is not finite as it is: refusing it is the protocol's affair.

``load_task`` returns tasks that keep the form of the contract: whatever a user's code raises or
returns amiss becomes a ``TaskError`` of one line.
"""

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from byzsgd.cluster import nearest
from byzsgd.errors import TaskError
from byzsgd.vectors import Vector, is_finite, is_vector


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker is told about its part of a task."""

    identity: str
    """The worker's identity."""
    index: int
    """Its position among the sorted identities of the workers, from 0."""
    n_workers: int
    """n_w: how many workers there are."""
    seed: int
    """The cluster's seed."""
    batch_size: int
    """Examples in a mini-batch."""


class GradientSource(Protocol):
    """What a worker computes gradients with."""

    def gradient(self, vector: Vector, step: int) -> tuple[Vector, float]:
        """A new gradient on the mini-batch of a step, and the loss there.

        Depends on the task, the share, and these arguments alone.

        Args:
            vector: ``(d,)`` float32, where the gradient is taken; never changed.
            step: Learning step t, which decides the mini-batch.

        Returns:
            The gradient, ``(d,)`` float32, newly allocated; and the mean loss of the mini-batch.
            Where the task has buffers, the last coordinates are their new values.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """A model to train and the data to train it on."""

    def initial(self, seed: int) -> Vector:
        """theta_0, ``(d,)`` float32, newly allocated: the same for the same seed."""
        ...

    def source(self, share: Share) -> GradientSource:
        """The gradients of one worker."""
        ...

    def accuracy(self, vector: Vector) -> float:
        """How well a model does on data held out from training: a fraction in [0, 1]."""
        ...

    def state(self, vector: Vector) -> dict[str, NDArray[Any]]:
        """A model as named arrays, to be stored: what ``load_state_dict`` takes, for torch."""
        ...


@runtime_checkable
class MovableTask(Task, Protocol):
    """A task that can compute on another device."""

    def to(self, device: str) -> Task:
        """The same task, computed on ``cpu``, ``cuda`` or ``mps``."""
        ...


@runtime_checkable
class BufferedTask(Task, Protocol):
    """A task whose vectors end in buffers: what training changes and no gradient does.

    Such as the running averages of BatchNorm. Servers take the median of their new values.
    """

    def n_buffers(self) -> int:
        """How many coordinates at the end of every vector are buffers."""
        ...


def buffers_of(task: Task) -> int:
    """How many coordinates at the end of a task's vectors are buffers, and no parameters."""
    return task.n_buffers() if isinstance(task, BufferedTask) else 0


@runtime_checkable
class FlippableTask(Task, Protocol):
    """A task whose labels can be flipped, for drills with liars who learn from wrong data."""

    def label_flipped(self) -> Task:
        """The same task with wrong training data: label y becomes ``classes - 1 - y``."""
        ...


@runtime_checkable
class LabelledTask(Task, Protocol):
    """A task that can tell which classes each worker draws from."""

    def class_counts(self, share: Share) -> Mapping[int, int]:
        """By class, how many examples of it a worker draws its mini-batches from."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """Settings that suit a shipped task, for a new cluster file."""

    learning_rate: float
    """eta."""
    worker_momentum: float
    """beta in m = beta m + (1 - beta) g."""
    batch_size: int
    """Examples in a mini-batch."""
    steps: int
    """Learning steps after which there is little left to learn."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A task that comes with the suite."""

    factory: str
    """``module:function`` that makes the task."""
    defaults: Defaults


TASKS: Mapping[str, Shipped] = {
    "digits": Shipped(
        "byzsgd.tasks.digits:digits",
        Defaults(learning_rate=0.3, worker_momentum=0.9, batch_size=64, steps=300),
    ),
    "mnist": Shipped(
        "byzsgd.tasks.mnist:mnist",
        Defaults(learning_rate=0.1, worker_momentum=0.95, batch_size=64, steps=250),
    ),
    "fashion-mnist": Shipped(
        "byzsgd.tasks.fashion_mnist:fashion_mnist",
        Defaults(learning_rate=0.1, worker_momentum=0.95, batch_size=64, steps=1000),
    ),
    "quadratic": Shipped(
        "byzsgd.tasks.quadratic:quadratic",
        Defaults(learning_rate=0.1, worker_momentum=0.9, batch_size=32, steps=100),
    ),
}
"""The shipped tasks by name."""


def load_task(
    name: str, options: Mapping[str, Any], *, directory: Path, device: str = "cpu"
) -> Task:
    """The task that a cluster file names.

    Args:
        name: A name of ``TASKS``, ``package.module:factory`` or ``path/file.py:factory``.
        options: Keyword arguments of the factory.
        directory: The cluster file's folder, which a path is relative to.
        device: Where gradients are computed: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        TaskError: If there is no such task, if its code raises, or if what its factory returns is
            no task. Its methods raise nothing else either.
    """
    with _blame(name):
        factory = _factory(name, directory)
        signature = inspect.signature(factory)
        try:
            signature.bind(**options)
        except TypeError as error:
            takes = signature.replace(return_annotation=inspect.Signature.empty)
            raise TaskError(f"task_options: {error}; its factory takes {takes}") from error
        task = factory(**options)
        if not isinstance(task, Task):
            raise TaskError(
                f"its factory returned {_kind(task)}; must be a TorchTask, or an object with the "
                "methods initial, source, accuracy and state"
            )
        if device != "cpu":
            if not isinstance(task, MovableTask):
                raise TaskError(f"computes on the CPU alone, not on {device!r}")
            task = task.to(device)
        return _Guarded(name, task)


def _factory(name: str, directory: Path) -> Callable[..., object]:
    place, colon, attribute = (TASKS[name].factory if name in TASKS else name).partition(":")
    if not colon:
        own = "package.module:factory or path/file.py:factory"
        raise TaskError(f"unknown name; {nearest(name, TASKS)} (a task of your own: {own})")
    if place.endswith(".py"):
        module = _module_of_file(directory / place)
    else:
        module = importlib.import_module(place)
    factory: object = getattr(module, attribute, None)
    if not callable(factory):
        functions = inspect.getmembers(module, inspect.isfunction)
        own_functions = [
            each for each, function in functions if function.__module__ == module.__name__
        ]
        raise TaskError(
            f"{place} has no factory {attribute!r}; {nearest(attribute, own_functions)}"
        )
    return factory


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"{path}: no such file")
    name = f"byzsgd_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look their own module up.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # For the file's neighbours; last, so that they hide nothing.
    spec.loader.exec_module(module)
    return module


class _Guarded:
    """A task that raises nothing but ``TaskError`` and returns what the contract says."""

    def __init__(self, name: str, task: Task) -> None:
        self._name = name
        self._task = task

    def initial(self, seed: int) -> Vector:
        with _blame(self._name):
            vector = self._task.initial(seed)
            size = vector.size if isinstance(vector, np.ndarray) else 0
            if size == 0 or not is_vector(vector, size):
                raise TaskError(
                    f"initial returned {_kind(vector)}; must be a flat array of float32"
                )
            if not is_finite(vector):
                raise TaskError("initial returned a model with NaN or infinite coordinates")
            return vector

    def source(self, share: Share) -> GradientSource:
        with _blame(self._name):
            return _GuardedSource(self._name, self._task.source(share))

    def label_flipped(self) -> Task:
        with _blame(self._name):
            if not isinstance(self._task, FlippableTask):
                raise TaskError("has no method label_flipped, which attack label-flip needs")
            return _Guarded(self._name, self._task.label_flipped())

    def class_counts(self, share: Share) -> Mapping[int, int]:
        with _blame(self._name):
            if not isinstance(self._task, LabelledTask):
                raise TaskError("has no method class_counts: its classes cannot be counted")
            counts: object = self._task.class_counts(share)
            if not isinstance(counts, Mapping) or not counts:
                raise TaskError(f"class_counts returned {_kind(counts)}; {_COUNTS}")
            for label, count in counts.items():
                if not isinstance(label, Integral) or not isinstance(count, Integral) or count < 0:
                    raise TaskError(f"class_counts returned {label!r}: {count!r}; {_COUNTS}")
            return {int(label): int(count) for label, count in counts.items()}

    def n_buffers(self) -> int:
        with _blame(self._name):
            found: object = buffers_of(self._task)
            if type(found) is not int or found < 0:
                raise TaskError(f"n_buffers returned {found!r}; must be a number of coordinates")
            return found

    def accuracy(self, vector: Vector) -> float:
        with _blame(self._name):
            return float(self._task.accuracy(vector))

    def state(self, vector: Vector) -> dict[str, NDArray[Any]]:
        with _blame(self._name):
            return self._task.state(vector)


_COUNTS = "must be a mapping of classes to numbers of examples, both integers"


class _GuardedSource:
    def __init__(self, name: str, source: GradientSource) -> None:
        self._name = name
        self._source = source

    def gradient(self, vector: Vector, step: int) -> tuple[Vector, float]:
        with _blame(self._name):
            gradient, loss = self._source.gradient(vector, step)
            if not is_vector(gradient, len(vector)):
                raise TaskError(
                    f"the gradient is {_kind(gradient)}; must be a flat array of float32 of the "
                    f"{len(vector)} coordinates that the model has"
                )
            return gradient, float(loss)


def _kind(value: object) -> str:
    """What a value is, in a few words for a person."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"


@contextmanager
def _blame(name: str) -> Iterator[None]:
    """Makes a ``TaskError`` of one line out of whatever a task raises."""
    try:
        yield
    except TaskError as error:
        raise TaskError(f"task {name}: {error}") from error
    except Exception as failure:
        text = next(iter(str(failure).splitlines()), "")
        what = f"{type(failure).__name__}: {text}" if text else type(failure).__name__
        raise TaskError(f"task {name}: {what}{_place(failure)}") from failure


_LIBRARIES = (
    *(sysconfig.get_path(kind) for kind in ("stdlib", "platlib", "purelib")),
    str(Path(__file__).parents[1]),
    "<",
)
"""Where code lies that a user did not write: Python's, installed packages, and this suite's."""


def _place(failure: Exception) -> str:
    """The last line of a user's own code on the way to a failure, if there is one."""
    own = [
        f" ({frame.f_code.co_filename}:{line})"
        for frame, line in traceback.walk_tb(failure.__traceback__)
        if not frame.f_code.co_filename.startswith(_LIBRARIES)
    ]
    return own[-1] if own else ""
