"""Any torch module as a task: what training changes in it is one flat float32 vector.

The vector holds every trainable parameter once, in the order of ``named_parameters``, and then the
buffers that training changes: running averages, such as BatchNorm's. Frozen parameters and all
other floating buffers stay on the node, so they must be the same on every node: built by
``model()``, independent of the seed, and never changed by training. Integer buffers stay as well,
and may count what they like.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from byzsgd.cluster import nearest
from byzsgd.errors import TaskError
from byzsgd.tasks.task import GradientSource, Share
from byzsgd.vectors import Vector

Examples: TypeAlias = tuple[Tensor, Tensor]
"""Inputs and targets, of the same length along their first dimension."""

EVALUATION_BATCH = 1000
"""Examples that are evaluated at once."""

AVERAGES = ("running_mean", "running_var")
"""What torch's normalising layers call the buffers that training changes."""

TRAINABLE = (torch.float32, torch.float16, torch.bfloat16)
"""Types whose every number is one of float32, so that a vector holds it."""

REFERENCE_SEED = 2**60
"""Seed of the module that all others are compared with; no cluster's seed is as large."""


def argmax_matches(outputs: Tensor, targets: Tensor) -> float:
    """The fraction of examples whose largest output is that of their class.

    Args:
        outputs: ``(n, classes)``.
        targets: ``(n,)`` integers.
    """
    return float((outputs.argmax(dim=1) == targets).float().mean())


class TorchTask:
    """A task made of a torch module, its data and its loss.

    Example::

        def my_task(hidden: int = 64) -> TorchTask:
            return TorchTask(
                model=lambda: nn.Sequential(nn.Linear(20, hidden), nn.Tanh(), nn.Linear(hidden, 3)),
                data=lambda share: (train_inputs, train_targets),
                loss=nn.functional.cross_entropy,
                test_data=lambda: (test_inputs, test_targets),
            )
    """

    def __init__(
        self,
        *,
        model: Callable[[], nn.Module],
        data: Callable[[Share], Examples],
        loss: Callable[[Any, Tensor], Tensor],
        test_data: Callable[[], Examples],
        accuracy: Callable[[Any, Tensor], float] = argmax_matches,
        buffers: Collection[str] = (),
        device: str = "cpu",
    ) -> None:
        """Describe what is to be learned; nothing is called yet.

        Args:
            model: Builds the module, on the CPU. Torch's generator is seeded before.
            data: A worker's training examples. Best the WHOLE training set for every worker, each
                of which draws its own mini-batches from it: robust rules assume that workers
                differ by chance alone, and disjoint parts of a small set cost accuracy under
                attack. ``byzsgd.tasks.shards.Split`` makes parts.
            loss: Of outputs and targets: a scalar, the mean over the examples.
            test_data: Examples held out from training.
            accuracy: Of outputs and targets: a fraction in [0, 1], averaged over the test data.
            buffers: Names of buffers that training changes, as in ``named_buffers``; those of
                ``AVERAGES`` are known without.
            device: Where gradients and accuracies are computed: ``cpu``, ``cuda`` or ``mps``.

        Raises:
            TaskError: If one of these is no function, or if there is no such device.
        """
        functions = {"model": model, "data": data, "loss": loss, "test_data": test_data}
        for name, function in {**functions, "accuracy": accuracy}.items():
            if not callable(function):
                raise TaskError(f"{name}: must be a function, not a {type(function).__name__}")
        if isinstance(model, nn.Module):
            raise TaskError("model: must be a function that builds the module, not the module")
        self._model = model
        self._data = data
        self._loss = loss
        self._test_data = test_data
        self._accuracy = accuracy
        self._buffers = buffers
        self._device = _device(device)

    def to(self, device: str) -> "TorchTask":
        """The same task on another device.

        Raises:
            TaskError: If there is no such device.
        """
        return self._with(self._data, device)

    def _with(self, data: Callable[[Share], Examples], device: str) -> "TorchTask":
        return TorchTask(
            model=self._model,
            data=data,
            loss=self._loss,
            test_data=self._test_data,
            accuracy=self._accuracy,
            buffers=self._buffers,
            device=device,
        )

    def label_flipped(self) -> "TorchTask":
        """The same task with wrong training data: label y becomes ``classes - 1 - y``.

        The largest label of training and test data says how many classes there are. Negative ones,
        which losses are told to ignore, stay as they are.

        Raises:
            TaskError: If the targets are no integers.
        """
        _, known = self._test_examples
        if known.is_floating_point() or known.is_complex():
            kind = str(known.dtype).removeprefix("torch.")
            raise TaskError(
                f"test_data: its targets are {kind}; only integer labels can be flipped"
            )

        def data(share: Share) -> Examples:
            inputs, targets = _checked("data", self._data(share))
            if targets.dtype == torch.bool:
                return inputs, ~targets
            largest = max(int(known.max()), int(targets.max()))
            return inputs, torch.where(targets < 0, targets, largest - targets)

        return self._with(data, str(self._device))

    def n_buffers(self) -> int:
        """How many coordinates at the end of every vector are buffers.

        Raises:
            TaskError: If the module cannot be trained this way.
        """
        return self._flat(REFERENCE_SEED).n_buffers

    def initial(self, seed: int) -> Vector:
        """theta_0: trainable parameters and buffers of a new module, ``(d,)`` float32.

        Raises:
            TaskError: If the module cannot be trained this way.
        """
        return self._flat(seed).vector()

    def source(self, share: Share) -> GradientSource:
        """The gradients of one worker.

        Raises:
            TaskError: If the module or the data cannot be trained with.
        """
        examples = _checked("data", self._data(share))
        return _Source(self._flat(share.seed), examples, self._loss, share, self._device)

    def class_counts(self, share: Share) -> dict[int, int]:
        """By class, how many examples of it a worker draws its mini-batches from.

        Raises:
            TaskError: If the targets are no class labels.
        """
        _, targets = _checked("data", self._data(share))
        if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
            kind = str(targets.dtype).removeprefix("torch.")
            raise TaskError(
                f"data: its targets are {kind} of shape {tuple(targets.shape)}; classes can be "
                "counted of one integer an example"
            )
        labels, counts = torch.unique(targets, return_counts=True)
        return {int(label): int(count) for label, count in zip(labels, counts, strict=True)}

    def accuracy(self, vector: Vector) -> float:
        """The accuracy of a model on the test data.

        Raises:
            TaskError: If the vector is not as long as the model, or the test data are unusable.
        """
        flat = self._flat(REFERENCE_SEED)
        flat.load(vector, self._device)
        flat.module.eval()
        inputs, targets = self._test_examples
        total = 0.0
        with torch.no_grad():
            for low in range(0, len(inputs), EVALUATION_BATCH):
                rows = slice(low, low + EVALUATION_BATCH)
                outputs = flat.module(inputs[rows].to(self._device))
                some = targets[rows].to(self._device)
                total += float(self._accuracy(outputs, some)) * len(some)
        return total / len(inputs)

    def state(self, vector: Vector) -> dict[str, NDArray[Any]]:
        """A model as the arrays of the module's ``state_dict``, frozen ones and buffers included.

        NumPy has no bfloat16: what is of that type comes as float32, which loses nothing.

        Raises:
            TaskError: If the vector is not as long as the model.
        """
        flat = self._flat(REFERENCE_SEED)
        flat.load(vector, torch.device("cpu"))
        return {name: _array(tensor) for name, tensor in flat.module.state_dict().items()}

    @cached_property
    def _test_examples(self) -> Examples:
        return _checked("test_data", self._test_data())

    @cached_property
    def _layout(self) -> dict[str, object]:
        """What every build must have in common, learned from two builds with one seed."""
        one, other = self._built(REFERENCE_SEED), self._built(REFERENCE_SEED)
        if one is other:
            raise TaskError("model: must build a new module in every call, not return one it has")
        first, flat = _Flat(one, self._buffers), _Flat(other, self._buffers)
        layout = first.layout()
        _check_layout(flat, layout)
        if not np.array_equal(first.vector(), flat.vector()):
            raise TaskError(
                "model: two calls with one seed gave different parameters; chance must come from "
                "torch's own generator"
            )
        return layout

    def _flat(self, seed: int) -> "_Flat":
        flat = _Flat(self._built(seed), self._buffers)
        _check_layout(flat, self._layout)
        return flat

    def _built(self, seed: int) -> nn.Module:
        with _seeded(seed, torch.device("cpu")):
            module = self._model()
        if not isinstance(module, nn.Module):
            raise TaskError(f"model: returned a {type(module).__name__}; must be a torch.nn.Module")
        return module


class _Flat:
    """A module whose trainable parameters and averages are read and set as one vector."""

    def __init__(self, module: nn.Module, named: Collection[str]) -> None:
        self.module = module
        for name, part in module.named_modules():
            counts = getattr(part, "momentum", 0) is None
            if counts and getattr(part, "running_mean", None) is not None:
                raise TaskError(
                    f"model: {name or 'module'} is a {type(part).__name__} with momentum=None, "
                    "which counts the batches of one node; give it a number, such as 0.1"
                )
        parameters = dict(module.named_parameters())  # Shared ones appear once.
        buffers = dict(module.named_buffers())
        for name, tensor in {**parameters, **buffers}.items():
            if nn.parameter.is_lazy(tensor):
                raise TaskError(f"model: the shape of {name!r} is open; lazy modules are not taken")
        self.trainable = {name: p for name, p in parameters.items() if p.requires_grad}
        self._frozen = {name: p for name, p in parameters.items() if not p.requires_grad}
        if unknown := sorted(set(named) - buffers.keys()):
            hint = nearest(unknown[0], buffers)
            raise TaskError(f"buffers: the module has no buffer {unknown[0]!r}; {hint}")
        averages = {n: b for n, b in buffers.items() if n in named or _is_average(n)}
        self.averages = {name: buffer.shape for name, buffer in averages.items()}
        """Names and shapes of the buffers that training changes."""
        for kind, tensors in (("parameter", self.trainable), ("buffer", averages)):
            for name, tensor in tensors.items():
                if tensor.dtype not in TRAINABLE:
                    found = str(tensor.dtype).removeprefix("torch.")
                    raise TaskError(
                        f"model: {kind} {name!r} is {found}; must be float32, float16 or bfloat16"
                    )
        _check_ties(parameters)
        sizes = [parameter.numel() for parameter in self.trainable.values()]
        if sum(sizes) == 0:
            raise TaskError("model: has no trainable parameters")
        self.n_buffers = sum(shape.numel() for shape in self.averages.values())
        self._sizes = [*sizes, *(shape.numel() for shape in self.averages.values())]
        self.d = sum(self._sizes)

    def layout(self) -> dict[str, object]:
        """What must be equal in every build: trainable shapes, and the values of all else."""
        tensors = {**self._frozen, **dict(self.module.named_buffers())}
        constants = {n: _fingerprint(t) for n, t in tensors.items() if n not in self.averages}
        changing = {name: parameter.shape for name, parameter in self.trainable.items()}
        shapes = {name: tuple(shape) for name, shape in (changing | self.averages).items()}
        return {**shapes, **constants}

    def vector(self) -> Vector:
        return _flattened([*self.trainable.values(), *self.buffers()])

    def buffers(self) -> list[Tensor]:
        """The buffers that training changes, as they are now."""
        if not self.averages:
            return []
        found = dict(self.module.named_buffers())
        return [found[name] for name in self.averages]

    def load(self, vector: Vector, device: torch.device) -> None:
        """Move the module to a device and set what training changes from a copy of a vector."""
        if len(vector) != self.d:
            raise TaskError(f"the model has {self.d} parameters, but the vector {len(vector)}")
        self.module.to(device)
        # As views, where that is their type: one copy in all.
        flat = torch.tensor(vector, dtype=torch.float32, device=device)
        pieces = iter(torch.split(flat, self._sizes))
        for parameter in self.trainable.values():
            parameter.data = next(pieces).view(parameter.shape).to(parameter.dtype)
        for buffer, (name, shape) in zip(self.buffers(), self.averages.items(), strict=True):
            owner, _, own_name = name.rpartition(".")
            value = next(pieces).view(shape).to(buffer.dtype)
            setattr(self.module.get_submodule(owner), own_name, value)


class _Source:
    """Gradients of one worker: its own mini-batch, and its own dropout, for every step."""

    def __init__(
        self,
        flat: _Flat,
        examples: Examples,
        loss: Callable[[Any, Tensor], Tensor],
        share: Share,
        device: torch.device,
    ) -> None:
        self._flat = flat
        self._inputs, self._targets = examples
        self._loss = loss
        self._share = share
        self._device = device
        self._constants = {
            name: buffer.clone()
            for name, buffer in flat.module.named_buffers()
            if buffer.is_floating_point() and name not in flat.averages
        }
        flat.module.train()

    def gradient(self, vector: Vector, step: int) -> tuple[Vector, float]:
        chance = np.random.default_rng([self._share.seed, self._share.index, step])
        rows = torch.from_numpy(chance.integers(0, len(self._inputs), self._share.batch_size))
        self._flat.load(vector, self._device)
        with _seeded(int(chance.integers(2**63)), self._device):
            outputs = self._flat.module(self._inputs[rows].to(self._device))
            loss = self._loss(outputs, self._targets[rows].to(self._device))
            if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.requires_grad:
                raise TaskError(f"loss: {_fault(loss)}; must be a scalar tensor, such as a mean")
            gradients = torch.autograd.grad(
                loss, list(self._flat.trainable.values()), materialize_grads=True
            )
        self._check_buffers()
        return _flattened([*gradients, *self._flat.buffers()]), loss.item()

    def _check_buffers(self) -> None:
        """Refuse running averages of a user's own make, which no name gives away."""
        if self._constants:
            buffers = dict(self._flat.module.named_buffers())
            for name, before in self._constants.items():
                if not torch.equal(buffers[name].cpu(), before):
                    raise TaskError(
                        f"model: training changed the buffer {name!r}; if that is as it should be, "
                        f"say so: TorchTask(..., buffers=[{name!r}])"
                    )


def _check_layout(flat: _Flat, layout: dict[str, object]) -> None:
    own = flat.layout()
    for name in sorted(own.keys() | layout.keys()):
        if own.get(name) != layout.get(name):
            raise TaskError(
                f"model: two calls built different modules, see {name!r}; shapes, frozen "
                "parameters and buffers must not depend on chance"
            )


def _flattened(tensors: Iterable[Tensor]) -> Vector:
    """Tensors one after the other in a new ``(d,)`` float32 array: copied once."""
    # Of some embeddings gradients are sparse.
    dense = [each.to_dense() if each.is_sparse else each for each in tensors]
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in dense])
    vector: Vector = flat.cpu().numpy()
    return vector


def _is_average(name: str) -> bool:
    return name.rpartition(".")[2] in AVERAGES


def _check_ties(parameters: dict[str, nn.Parameter]) -> None:
    """Refuse two parameters in one place: set as two, they would not be one any more."""
    places: dict[int, str] = {}
    for name, parameter in parameters.items():
        place = parameter.data_ptr()
        if parameter.numel() and places.setdefault(place, name) != name:
            raise TaskError(
                f"model: {places[place]!r} and {name!r} are two parameters that share their "
                "memory; to tie weights assign the parameter itself: b.weight = a.weight"
            )


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _fingerprint(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return tensor.dtype, tuple(tensor.shape), hashlib.blake2b(raw, digest_size=16).digest()


def _fault(loss: object) -> str:
    if not isinstance(loss, Tensor):
        return f"returned a {type(loss).__name__}"
    if loss.ndim != 0:
        return f"returned a tensor of shape {tuple(loss.shape)}"
    return "returned a number that does not depend on the model"


def _checked(name: str, examples: object) -> Examples:
    """Examples as a user's function returned them, if they can be learned from."""
    match examples:
        case (Tensor() as inputs, Tensor() as targets) if inputs.ndim and targets.ndim:
            if len(inputs) != len(targets):
                raise TaskError(f"{name}: {len(inputs)} inputs, but {len(targets)} targets")
            if len(inputs) == 0:
                raise TaskError(f"{name}: holds no examples")
            return inputs, targets
        case _:
            raise TaskError(f"{name}: must return two tensors of examples, inputs and targets")


def _device(name: str) -> torch.device:
    kinds = ("cpu", "cuda", "mps")
    if name.partition(":")[0] not in kinds:
        raise TaskError(f"device {name!r}: {nearest(name, kinds)}")
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise TaskError(
            f"device {name!r} is not available to torch {torch.__version__}: {reason}"
        ) from error


def describe_device(name: str) -> str:
    """What a device is, for a person.

    Raises:
        TaskError: If there is no such device.
    """
    device = _device(name)
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return f"{device}: {found.name}, {found.total_memory / 2**30:.0f} GB"
    if device.type == "cpu":
        gpus = torch.cuda.device_count()
        rest = f"sees {gpus} GPU(s) here: --device cuda" if gpus else "sees no GPU here"
        return f"cpu; torch {torch.__version__} {rest}"
    return str(device)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's generators for a while; the CPU's is put back as it was.

    On a GPU, algorithms of cuDNN that give other bits every time are shut out as well.
    """
    with torch.random.fork_rng([]):
        if device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # Far cheaper than asking every device.
            yield
        else:
            torch.manual_seed(seed)
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
                yield
