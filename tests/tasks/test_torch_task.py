"""Any torch module as a flat vector, and a clear sentence for each that cannot be one."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from byzsgd.errors import TaskError
from byzsgd.tasks import Share
from byzsgd.tasks.torch_task import TorchTask, argmax_matches
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
     "model: parameter 'weight' is float64; must be float32"),
    ("lazy", {"model": lambda: nn.LazyLinear(3)},
     "model: the shape of 'weight' is open; lazy modules are not taken"),
    ("BatchNorm", {"model": lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))},
     "model: 1 is a BatchNorm1d, whose running averages no gradient carries; use "
     "torch.nn.GroupNorm"),
    ("BatchNorm alone", {"model": lambda: nn.BatchNorm1d(3)},
     "model: module is a BatchNorm1d, whose running averages no gradient carries; use "
     "torch.nn.GroupNorm"),
    ("own averages", {"model": Averaging},
     "model: training changed the buffer 'average', which no gradient carries; buffers must be "
     "constant (instead of BatchNorm use torch.nn.GroupNorm)"),
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

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 3)
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            outputs: Tensor = self.inner(inputs)
            return outputs

    use(task_of(Counting))


def test_each_result_is_the_callers_own() -> None:
    """A vector that is changed after a call changes nothing of what was computed from it."""
    task = task_of()
    model: Vector = task.initial(1)
    state = task.state(model)
    kept = {name: array.copy() for name, array in state.items()}
    model.fill(9)

    assert all(np.array_equal(state[name], kept[name]) for name in kept)
