"""Any torch module as a flat vector, and a clear sentence for each that cannot be one."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from byzsgd.errors import TaskError
from byzsgd.tasks import Share
from byzsgd.tasks.torch_task import TorchTask, argmax_matches, describe_device
from byzsgd.vectors import Vector

INPUTS = torch.arange(12.0).reshape(6, 2) / 10
TARGETS = torch.tensor([0, 1, 2, 0, 1, 2])
SHARE = Share("w1", 0, 1, seed=1, batch_size=4)


def examples(*_: Share) -> tuple[Tensor, Tensor]:
    return INPUTS, TARGETS


def task_of(model: Any = lambda: nn.Linear(2, 3), **changes: Any) -> TorchTask:
    """A task that is right but for what the test changes."""
    parts: dict[str, Any] = {
        "data": examples,
        "loss": nn.functional.cross_entropy,
        "test_data": examples,
    }
    return TorchTask(model=model, **parts | changes)


def use(task: TorchTask) -> None:
    """Everything that a node ever asks of a task."""
    initial = task.initial(1)
    task.source(SHARE).gradient(initial, 0)
    task.accuracy(initial)
    task.state(initial)


# What is right


def test_the_vector_holds_the_parameters_in_their_order() -> None:
    """Each one flattened, in the order of named_parameters, seeded by the seed."""
    torch.manual_seed(5)
    module = nn.Linear(2, 3)

    expected = np.concatenate([module.weight.detach().numpy().ravel(), module.bias.detach()])
    assert task_of().initial(5).tolist() == expected.tolist()


def test_the_gradient_is_the_mean_over_the_mini_batch() -> None:
    """It is torch's own gradient on the rows that seed, worker and step draw."""
    task = task_of()
    model = task.initial(1)
    gradient, loss = task.source(SHARE).gradient(model, 3)

    rows = np.random.default_rng([1, 0, 3]).integers(0, 6, 4)
    module = nn.Linear(2, 3)
    module.load_state_dict({k: torch.tensor(v) for k, v in task.state(model).items()})
    expected = nn.functional.cross_entropy(module(INPUTS[rows]), TARGETS[rows])
    expected.backward()  # type: ignore[no-untyped-call]
    weight, bias = module.weight.grad, module.bias.grad
    assert weight is not None
    assert bias is not None
    assert gradient == pytest.approx(np.concatenate([weight.numpy().ravel(), bias.numpy()]))
    assert loss == pytest.approx(expected.item())


def test_a_state_loads_into_the_module_and_computes_the_same() -> None:
    """Frozen parameters and buffers are in it."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 3)
            self.inner.bias.requires_grad_(False)
            nn.init.ones_(self.inner.bias)
            self.register_buffer("scale", torch.tensor([2.0]))

        def forward(self, inputs: Tensor) -> Tensor:
            scaled: Tensor = self.inner(inputs) * self.scale
            return scaled

    task = task_of(Scaled)
    vector = np.float32([1, 2, 3, 4, 5, 6])
    state = task.state(vector)
    assert set(state) == {"inner.weight", "inner.bias", "scale"}
    module = Scaled()
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})

    assert module(torch.tensor([[1.0, 10.0]])).tolist() == [[44.0, 88.0, 132.0]]
    assert len(task.initial(1)) == 6


def test_shared_parameters_count_once() -> None:
    """A tied weight is one part of the vector, and moves in both places."""

    def tied() -> nn.Module:
        one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        other.weight = one.weight
        return nn.Sequential(one, other)

    task = task_of(tied, data=lambda _: (INPUTS, TARGETS % 2), test_data=lambda: (INPUTS, TARGETS))
    vector = np.float32([0, 1, 2, 3])
    state = task.state(vector)

    assert len(task.initial(1)) == 4
    assert state["0.weight"].tolist() == state["1.weight"].tolist() == [[0, 1], [2, 3]]
    use(task)


def test_a_parameter_that_the_loss_does_not_reach_has_no_gradient() -> None:
    """Its coordinates are 0."""

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 3), nn.Linear(2, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.used(inputs)
            return outputs

    task = task_of(Idle)
    gradient, _ = task.source(SHARE).gradient(task.initial(1), 0)

    assert gradient[:9].any()
    assert not gradient[9:].any()


def test_dropout_is_drawn_anew_for_every_step_and_none_when_evaluated() -> None:
    """Equal steps drop the same, other steps other ones, and an accuracy drops nothing."""

    def dropping() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 64), nn.Dropout(0.5), nn.Linear(64, 3))

    whole = TARGETS[:1], INPUTS[:1]
    task = task_of(dropping, data=lambda _: (whole[1], whole[0]))
    model = task.initial(1)
    source = task.source(SHARE)
    first, again, other = (source.gradient(model, step)[0] for step in (0, 0, 1))

    # There is one example, so that batches differ in what is dropped alone.
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({task.accuracy(model) for _ in range(5)}) == 1


def test_the_users_own_chance_is_left_as_it_was() -> None:
    """Whoever calls a task finds torch's generator where it stood."""
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    use(task_of())

    assert torch.rand(2).tolist() == expected


def test_accuracy_is_the_mean_over_all_examples() -> None:
    """Also where the last part of the test data is smaller than the others."""
    inputs = torch.zeros(1500, 2)
    targets = torch.cat([torch.zeros(1000), torch.ones(500)]).long()
    task = task_of(test_data=lambda: (inputs, targets))
    always_0 = np.float32([0] * 6 + [1, 0, 0])

    assert task.accuracy(always_0) == pytest.approx(1000 / 1500)
    assert argmax_matches(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([1, 1])) == 0.5


def test_test_data_are_read_once_and_only_when_needed() -> None:
    """A server's initial model is built on machines without the data set."""
    calls = []

    def read() -> tuple[Tensor, Tensor]:
        calls.append(1)
        return examples()

    task = task_of(data=read, test_data=read)
    model = task.initial(1)
    task.state(model)
    assert calls == []
    task.accuracy(model)
    task.accuracy(model)
    assert calls == [1]


def test_a_model_of_another_length_is_refused() -> None:
    """With both lengths."""
    task = task_of()
    short = np.zeros(8, np.float32)

    for ask in (task.accuracy, task.state, lambda v: task.source(SHARE).gradient(v, 0)):
        with pytest.raises(TaskError, match=r"^the model has 9 parameters, but the vector 8$"):
            ask(short)


def test_to_moves_a_task_and_leaves_it_as_it_was() -> None:
    """Another object, with the same results."""
    task = task_of()
    moved = task.to("cpu")

    assert moved is not task
    assert np.array_equal(moved.initial(1), task.initial(1))


# Devices


def test_a_device_that_is_not_there_is_named_with_the_reason() -> None:
    """What torch says of it, in one line."""
    missing = next(
        kind
        for kind, there in (
            ("mps", torch.backends.mps.is_available()),
            ("cuda:99", torch.cuda.device_count() > 99),
        )
        if not there
    )
    with pytest.raises(TaskError) as error:
        task_of(device=missing)

    assert re.fullmatch(
        rf"device '{missing}' is not available to torch {re.escape(torch.__version__)}: .+",
        str(error.value),
    )


@pytest.mark.parametrize(
    ("device", "hint"),
    [("cuda-0", "did you mean cuda?"), ("gpu", "did you mean cpu?"), ("tpux", "cpu")],
)
def test_an_unknown_device_names_the_nearest(device: str, hint: str) -> None:
    """Or all of them."""
    with pytest.raises(TaskError, match=rf"^device {device!r}: .*{re.escape(hint)}"):
        task_of(device=device)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two GPUs that this machine does not have: what is sent there stays on the CPU, and is noted.

    Where torch sees GPUs of its own, these stand in for them all the same.
    """
    sent: list[str] = []
    empty, tensor = torch.empty, torch.tensor
    move, move_module = Tensor.to, nn.Module.to

    def here(place: Any) -> Any:
        if isinstance(place, str | torch.device) and torch.device(place).type == "cuda":
            if (torch.device(place).index or 0) > 1:
                raise RuntimeError("CUDA error: invalid device ordinal\nmore words")
            sent.append(str(place))
            return "cpu"
        return place

    def empties(*size: Any, device: Any = None, **more: Any) -> Any:
        found, asked = empty(*size, device=here(device), **more), torch.device(device or "cpu")
        return found if asked.type == "cpu" else SimpleNamespace(device=asked)

    def tensors(*values: Any, device: Any = None, **more: Any) -> Tensor:
        return tensor(*values, device=here(device), **more)

    monkeypatch.setattr(torch, "empty", empties)
    monkeypatch.setattr(torch, "tensor", tensors)
    monkeypatch.setattr(Tensor, "to", lambda self, place, *more: move(self, here(place), *more))
    monkeypatch.setattr(nn.Module, "to", lambda self, place: move_module(self, here(place)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = SimpleNamespace(name="NVIDIA Pretended", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    return sent


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gradient_is_computed_on_the_device_that_was_asked_for(
    device: str, pretended: list[str]
) -> None:
    """Module, vector, inputs and targets go there, and what comes back is on the CPU."""
    task = task_of(normalised)
    model = task.initial(1)
    expected, _ = task.source(SHARE).gradient(model, 0)
    assert pretended == []

    moved = task.to(device)
    source = moved.source(SHARE)
    pretended.clear()
    gradient, _ = source.gradient(model, 0)
    assert pretended == [device] * 4
    assert gradient == pytest.approx(expected)
    moved.accuracy(model)
    assert set(pretended) == {device}


def test_a_first_model_is_the_same_whatever_the_device(pretended: list[str]) -> None:
    """It is built on the CPU: servers have no GPU, and must begin where workers think they do."""
    task = task_of()

    assert task.to("cuda").initial(1).tobytes() == task.initial(1).tobytes()


def test_a_gpu_that_is_not_there_is_refused(pretended: list[str]) -> None:
    """There is no fallback: a worker that computed elsewhere unasked would be one that is late."""
    with pytest.raises(TaskError) as error:
        task_of(device="cuda:2")
    assert str(error.value) == (
        f"device 'cuda:2' is not available to torch {torch.__version__}: CUDA error: invalid "
        "device ordinal"
    )


def test_devices_in_words(pretended: list[str]) -> None:
    """Which one, and what it is; of the CPU, whether there would be another."""
    assert describe_device("cuda:1") == "cuda:1: NVIDIA Pretended, 80 GB"
    assert describe_device("cpu") == (
        f"cpu; torch {torch.__version__} sees 2 GPU(s) here: --device cuda"
    )
    with pytest.raises(TaskError, match="is not available to torch"):
        describe_device("cuda:2")


def test_a_machine_without_a_gpu_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody has to wonder why it is slow."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    assert describe_device("cpu") == f"cpu; torch {torch.__version__} sees no GPU here"


# What cannot be a task


class Averaging(nn.Module):
    """Keeps a running average of its own make, as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.register_buffer("average", torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        self.average = 0.9 * self.average + 0.1 * inputs.mean(dim=0)
        outputs: Tensor = self.inner(inputs - self.average)
        return outputs


class Counting(nn.Module):
    """Counts its calls in a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        outputs: Tensor = self.inner(inputs)
        return outputs


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def of_doubled_averages() -> nn.Module:
    module = normalised()
    module[1].running_mean = module[1].running_mean.double()  # type: ignore[index,union-attr,operator]
    return module


def of_shared_memory() -> nn.Module:
    one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    other.weight = nn.Parameter(one.weight.data)
    return nn.Sequential(one, other)


def frozen() -> nn.Module:
    return nn.Linear(2, 3).requires_grad_(False)


def with_random_buffer() -> nn.Module:
    module = nn.Linear(2, 3)
    module.register_buffer("noise", torch.tensor(np.random.default_rng().random(3)))
    return module


def of_changing_size(sizes: list[int]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        sizes[0] += 1
        return nn.Linear(2, sizes[0])

    return build


def of_own_chance() -> nn.Module:
    module = nn.Linear(2, 3)
    with torch.no_grad():
        module.bias.copy_(torch.tensor(np.random.default_rng().random(3)))
    return module


ONE = nn.Linear(2, 3)

NEW_PARTS: list[tuple[str, dict[str, Any], str]] = [
    ("model is a module", {"model": ONE}, "model: must be a function that builds the module, not "
     "the module"),
    ("model is a number", {"model": 3}, "model: must be a function, not a int"),
    ("data is tensors", {"data": examples()}, "data: must be a function, not a tuple"),
    ("loss is a text", {"loss": "mse"}, "loss: must be a function, not a str"),
    ("no test data", {"test_data": None}, "test_data: must be a function, not a NoneType"),
    ("accuracy is a number", {"accuracy": 1}, "accuracy: must be a function, not a int"),
]  # fmt: skip

IN_USE: list[tuple[str, dict[str, Any], str]] = [
    ("no module", {"model": lambda: 3}, "model: returned a int; must be a torch.nn.Module"),
    ("one module", {"model": lambda: ONE},
     "model: must build a new module in every call, not return one it has"),
    ("nothing to train", {"model": frozen}, "model: has no trainable parameters"),
    ("no parameters", {"model": nn.ReLU}, "model: has no trainable parameters"),
    ("float64", {"model": lambda: nn.Linear(2, 3).double()},
     "model: parameter 'weight' is float64; must be float32, float16 or bfloat16"),
    ("lazy", {"model": lambda: nn.LazyLinear(3)},
     "model: the shape of 'weight' is open; lazy modules are not taken"),
    ("lazy averages", {"model": lambda: nn.Sequential(nn.Linear(2, 3), nn.LazyBatchNorm1d())},
     "model: the shape of '1.weight' is open; lazy modules are not taken"),
    ("counting BatchNorm", {"model": lambda: nn.Sequential(nn.BatchNorm1d(3, momentum=None))},
     "model: 0 is a BatchNorm1d with momentum=None, which counts the batches of one node; give it "
     "a number, such as 0.1"),
    ("averages of float64", {"model": lambda: of_doubled_averages()},
     "model: buffer '1.running_mean' is float64; must be float32, float16 or bfloat16"),
    ("own averages", {"model": Averaging},
     "model: training changed the buffer 'average'; if that is as it should be, say so: "
     "TorchTask(..., buffers=['average'])"),
    ("no such buffer", {"model": Averaging, "buffers": ["averages"]},
     "buffers: the module has no buffer 'averages'; did you mean average?"),
    ("a counter is none", {"model": Counting, "buffers": ["calls"]},
     "model: buffer 'calls' is int64; must be float32, float16 or bfloat16"),
    ("tied by memory", {"model": lambda: of_shared_memory()},
     "model: '0.weight' and '1.weight' are two parameters that share their memory; to tie weights "
     "assign the parameter itself: b.weight = a.weight"),
    ("random buffer", {"model": with_random_buffer},
     "model: two calls built different modules, see 'noise'; shapes, frozen parameters and "
     "buffers must not depend on chance"),
    ("changing size", {"model": of_changing_size([2])},
     "model: two calls built different modules, see 'bias'; shapes, frozen parameters and "
     "buffers must not depend on chance"),
    ("own chance", {"model": of_own_chance},
     "model: two calls with one seed gave different parameters; chance must come from torch's "
     "own generator"),
    ("data is none", {"data": lambda _: None},
     "data: must return two tensors of examples, inputs and targets"),
    ("data is arrays", {"data": lambda _: (np.zeros(3), np.zeros(3))},
     "data: must return two tensors of examples, inputs and targets"),
    ("data is three", {"data": lambda _: (INPUTS, TARGETS, TARGETS)},
     "data: must return two tensors of examples, inputs and targets"),
    ("data is scalars", {"data": lambda _: (torch.tensor(1.0), torch.tensor(1))},
     "data: must return two tensors of examples, inputs and targets"),
    ("lengths", {"data": lambda _: (INPUTS, TARGETS[:5])}, "data: 6 inputs, but 5 targets"),
    ("no examples", {"data": lambda _: (INPUTS[:0], TARGETS[:0])}, "data: holds no examples"),
    ("test lengths", {"test_data": lambda: (INPUTS[:1], TARGETS)},
     "test_data: 1 inputs, but 6 targets"),
    ("loss returns a number", {"loss": lambda outputs, targets: 0.5},
     "loss: returned a float; must be a scalar tensor, such as a mean"),
    ("loss of each", {"loss": lambda outputs, targets: outputs.sum(dim=1)},
     "loss: returned a tensor of shape (4,); must be a scalar tensor, such as a mean"),
    ("loss of nothing", {"loss": lambda outputs, targets: torch.tensor(1.0)},
     "loss: returned a number that does not depend on the model; must be a scalar tensor, such "
     "as a mean"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "sentence"), [pytest.param(*c[1:], id=c[0]) for c in NEW_PARTS])
def test_what_is_no_function_is_refused_at_once(parts: dict[str, Any], sentence: str) -> None:
    """Before anything is called."""
    with pytest.raises(TaskError) as error:
        task_of(**parts)
    assert str(error.value) == sentence


@pytest.mark.parametrize(("parts", "sentence"), [pytest.param(*c[1:], id=c[0]) for c in IN_USE])
def test_what_cannot_be_trained_is_refused(parts: dict[str, Any], sentence: str) -> None:
    """The sentence names the part, what is wrong, and what would be right."""
    with pytest.raises(TaskError) as error:
        use(task_of(**parts))
    assert str(error.value) == sentence


# Buffers that training changes


def test_running_averages_are_the_end_of_the_vector() -> None:
    """Parameters first; a new module's averages are zeros and ones."""
    task = task_of(normalised)

    assert task.n_buffers() == 6
    assert task.initial(1)[-6:].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(task.initial(1)) == 9 + 6 + 6
    assert task_of().n_buffers() == 0


def test_a_gradient_ends_in_what_its_batch_makes_of_the_averages() -> None:
    """Those of the model that it was given, moved as torch moves them, whatever came before."""
    task = task_of(normalised)
    model = task.initial(1)
    model[-6:] = 5
    source = task.source(SHARE)
    source.gradient(task.initial(2), 0)
    gradient, _ = source.gradient(model, 3)

    module = normalised()
    module.load_state_dict({k: torch.tensor(v) for k, v in task.state(model).items()})
    module(INPUTS[np.random.default_rng([1, 0, 3]).integers(0, 6, 4)])
    averages = dict(module.named_buffers())
    expected = [*averages["1.running_mean"].tolist(), *averages["1.running_var"].tolist()]
    assert gradient[-6:] == pytest.approx(expected)
    assert not np.array_equal(gradient[-6:], model[-6:])
    assert source.gradient(model, 3)[0].tobytes() == gradient.tobytes()


def test_averages_are_evaluated_with_and_leave_with_the_model() -> None:
    """Where they are wrong, so is the model; a state has them, and loads strictly."""
    task = task_of(normalised, test_data=lambda: (INPUTS, torch.zeros(6).long()))
    right = task.initial(1)
    right[:6], right[9:12] = 0, 1  # Whatever goes in, out comes the bias.
    right[12:15] = [1, 0, 0]
    right[15:18] = [-9, 0, 9]
    wrong = right.copy()
    wrong[15:18] = [9, 0, -9]

    assert (task.accuracy(right), task.accuracy(wrong)) == (1, 0)
    module = normalised()
    state = {k: torch.tensor(v) for k, v in task.state(right).items()}
    module.load_state_dict(state, strict=True)
    assert module[1].running_mean.tolist() == [-9, 0, 9]  # type: ignore[index,union-attr]
    assert module.eval()(INPUTS).argmax(dim=1).tolist() == [0] * 6


def test_averages_of_ones_own_are_named() -> None:
    """Then they travel like BatchNorm's, and a task that is moved or flipped knows them, too."""
    task = task_of(Averaging, buffers=["average"])
    use(task)
    gradient, _ = task.source(SHARE).gradient(task.initial(1), 0)

    assert [each.n_buffers() for each in (task, task.to("cpu"), task.label_flipped())] == [2, 2, 2]
    assert gradient[-2:].all()
    assert task.state(np.float32([0] * 9 + [7, 8]))["average"].tolist() == [7, 8]


def test_a_batchnorm_that_is_shared_has_one_set_of_averages() -> None:
    """As it has one set of parameters."""

    def twice() -> nn.Module:
        norm = nn.BatchNorm1d(2)
        return nn.Sequential(norm, nn.Linear(2, 2), norm)

    task = task_of(twice, data=lambda _: (INPUTS, TARGETS % 2), test_data=lambda: (INPUTS, TARGETS))

    use(task)
    assert task.n_buffers() == 4


# Parameters of all kinds


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_parameters_are_trained_as_float32(kind: torch.dtype) -> None:
    """Servers keep more digits than the module computes with; small steps are not lost."""

    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), _Cast(kind), nn.Linear(4, 3).to(kind))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.float(), targets)

    task = task_of(half, loss=loss)
    model = task.initial(1)
    nudged = model + np.float32(1e-6)
    gradient, _ = task.source(SHARE).gradient(nudged, 0)

    assert gradient.dtype == np.float32
    assert gradient[:12].any()
    assert gradient[12:].any()
    found = task.state(model)["2.weight"]
    assert found.dtype == (np.float16 if kind == torch.float16 else np.float32)
    assert found.ravel().tolist() == model[12:24].tolist()


class _Cast(nn.Module):
    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self._kind = kind

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.to(self._kind)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.int8])
def test_frozen_parameters_are_of_any_type(kind: torch.dtype) -> None:
    """They never travel; a state has them, with all their digits."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 3)
            self.scale = nn.Parameter(torch.tensor([3.0, 5.0]).to(kind), requires_grad=False)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.inner((inputs * self.scale).float())
            return outputs

    task = task_of(Scaled)
    use(task)

    assert len(task.initial(1)) == 9
    assert task.state(task.initial(1))["scale"].tolist() == [3, 5]


def test_strides_do_not_matter() -> None:
    """A parameter that lies otherwise in memory has the same vector and the same gradient."""

    def plain() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten())

    def strided() -> nn.Module:
        module = plain().to(memory_format=torch.channels_last)
        module.register_buffer("wide", torch.ones(1).expand(4))
        assert not next(module.parameters()).is_contiguous()
        return module

    pictures = torch.arange(48.0).reshape(6, 2, 2, 2) / 50
    one, other = (
        task_of(model, data=lambda _: (pictures, TARGETS), test_data=lambda: (pictures, TARGETS))
        for model in (plain, strided)
    )
    model = one.initial(1)

    assert other.initial(1).tobytes() == model.tobytes()
    gradients = [task.source(SHARE).gradient(model, 0)[0] for task in (one, other)]
    assert gradients[0] == pytest.approx(gradients[1])
    assert np.array_equal(one.state(model)["0.weight"], other.state(model)["0.weight"])
    use(other)


def test_scalars_and_sparse_gradients_are_taken() -> None:
    """A parameter without dimensions is one coordinate; a sparse gradient is zero elsewhere."""

    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 3, sparse=True)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.table(inputs) * self.scale
            return outputs

    rows = torch.tensor([1, 1, 1, 2, 2, 2])
    task = task_of(Looked, data=lambda _: (rows, TARGETS), test_data=lambda: (rows, TARGETS))
    gradient, _ = task.source(SHARE).gradient(task.initial(1), 0)

    assert len(gradient) == 16
    scale, table = gradient[0], gradient[1:].reshape(5, 3)
    assert scale != 0
    assert table[1:3].any()
    assert not table[[0, 3, 4]].any()


# Normalisation without averages


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.GroupNorm(1, 3),
        lambda: nn.LayerNorm(3),
        lambda: nn.BatchNorm1d(3, track_running_stats=False),
    ],
    ids=["GroupNorm", "LayerNorm", "BatchNorm without averages"],
)
def test_normalisation_without_averages_is_taken(layer: Callable[[], nn.Module]) -> None:
    """The remedy that the refusal names works."""
    use(task_of(lambda: nn.Sequential(nn.Linear(2, 3), layer())))


def test_a_counter_in_the_module_stays_on_the_node() -> None:
    """An integer buffer that training changes is none of the model's business."""
    use(task_of(Counting))


def test_each_result_is_the_callers_own() -> None:
    """A vector that is changed after a call changes nothing of what was computed from it."""
    task = task_of()
    model: Vector = task.initial(1)
    state = task.state(model)
    kept = {name: array.copy() for name, array in state.items()}
    model.fill(9)

    assert all(np.array_equal(state[name], kept[name]) for name in kept)
