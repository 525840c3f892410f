"""Each example is what a user copies: it learns while others lie, and leaves as a torch model."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from byzsgd.cluster import Cluster
from byzsgd.errors import TaskError
from byzsgd.protocol import Worker
from byzsgd.simulation import Simulation, coalition_of
from byzsgd.tasks import Share, Task, buffers_of, load_task
from byzsgd_daemons import fetch

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Example:
    """An example, how it is trained here, and what that must come to."""

    task: str
    steps: int
    learning_rate: float
    batch_size: int
    reaches: float
    """An accuracy that it reaches with room, and that whoever averages the lies misses by far."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Task:
        return load_task(self.task, self.options, directory=EXAMPLES)


DIGITS = Example("digits_batchnorm.py:digits", 60, 0.1, 64, 0.9)
CHARACTERS = Example("characters.py:characters", 60, 1.0, 16, 0.25)
TABLE = Example("table.py:table", 120, 0.5, 64, 0.8, {"path": "machines.csv", "target": "state"})
ALL = (DIGITS, CHARACTERS, TABLE)


@pytest.fixture(scope="module", params=ALL, ids=lambda example: example.task.partition(".")[0])
def example(request: pytest.FixtureRequest) -> Example:
    return request.param


@pytest.fixture(scope="module")
def task(example: Example) -> Task:
    return example.load()


@pytest.fixture(scope="module")
def train(cluster: Callable[..., Cluster], example: Example, task: Task) -> Callable[..., Any]:
    """Trains with a cluster of which a third lies; what comes out is its simulation."""

    def train(servers: int, f_servers: int, f_workers: int, **changes: Any) -> Simulation:
        members = cluster(
            *(servers, 4, f_servers, f_workers),
            task=example.task,
            task_options=dict(example.options),
            steps=example.steps,
            learning_rate=example.learning_rate,
            worker_momentum=0.9,
            batch_size=example.batch_size,
            **changes,
        )
        liars = coalition_of(
            members,
            [*members.workers[:1], *members.servers[:f_servers]],
            lambda: task,
            attack="sign-flip",
            server_attack="equivocate" if f_servers else None,
            buffers=buffers_of(task),
        )
        simulation = Simulation(
            members, task, seed=1, liars=liars, checked=members.rule != "average"
        )
        simulation.run_until(
            lambda: all(server.done for server in simulation.servers.values()), seconds=600
        )
        return simulation

    return train


@pytest.fixture(scope="module")
def attacked(train: Callable[..., Simulation]) -> Simulation:
    return train(5, 1, 1)


def test_an_example_is_learned_while_others_lie(
    attacked: Simulation, example: Example, task: Task
) -> None:
    """One of 4 workers and one of 5 servers lie: every correct server's model is a good one."""
    assert all(server.done for server in attacked.servers.values())
    assert task.accuracy(task.initial(1)) < example.reaches
    assert min(attacked.accuracies().values()) > example.reaches


def test_whoever_averages_the_lies_learns_nothing(
    train: Callable[..., Simulation], example: Example
) -> None:
    """So the test above can fail: one trusted server, the same liar among the workers."""
    vanilla = train(1, 0, 0, rule="average")

    assert max(vanilla.accuracies().values()) < example.reaches


def test_half_the_bytes_will_do(train: Callable[..., Simulation], example: Example) -> None:
    """Parameters are rounded to bfloat16 between servers and workers; averages are not."""
    assert min(train(5, 1, 1, wire_type="bfloat16").accuracies().values()) > example.reaches


def test_losses_fall(attacked: Simulation, task: Task) -> None:
    """As correct workers saw them, to less than seven tenths."""
    first = task.source(Share("w2", 1, 4, 1, 64)).gradient(task.initial(1), 0)[1]
    workers = [node for node in attacked.nodes.values() if isinstance(node, Worker)]
    last = [worker.progress.loss for worker in workers]

    assert len(last) == 3
    assert all(loss is not None and loss < 0.7 * first for loss in last)


def test_the_model_leaves_as_one_of_torch(
    attacked: Simulation, example: Example, task: Task, tmp_path: Path
) -> None:
    """Strictly into the module that its user builds, averages included; no pickle on the way."""
    vector = next(iter(attacked.servers.values())).vector
    fetch.write(task, vector, tmp_path / "model.safetensors", step=example.steps)

    module = built(example)
    module.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    found = [*module.parameters(), *(b for n, b in module.named_buffers() if "running" in n)]
    assert np.array_equal(nn.utils.parameters_to_vector(found).detach().numpy(), vector)


def built(example: Example) -> nn.Module:
    """The module of an example, as its user would build it without byzsgd's help."""
    file = module_of(example.task.partition(":")[0])
    if example is DIGITS:
        return file.network(8)  # type: ignore[no-any-return]
    if example is CHARACTERS:
        return file.Transformer(32, 32, 2)  # type: ignore[no-any-return]
    return file.Perceptron(torch.zeros(2, 4), 3, 32)  # type: ignore[no-any-return]


def module_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name[:-3]}", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The table


def problem(folder: Path, text: str | bytes, target: str = "kind") -> str:
    """What is said of a CSV file."""
    path = folder / "own.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TaskError) as error:
        module_of("table.py").read(path, target)
    return str(error.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,kind\n1,x\n\nn/a,y\n", ", line 4, column 'a': 'n/a' is no number"),
        ("a,kind\n1,x\n,y\n", ", line 3, column 'a': '' is no number"),
        ("a,kind\n1,x\nnan,y\n", ", line 3, column 'a': 'nan' is no number"),
        ("a,kind\n1,x\n1e39,y\n", ", line 3, column 'a': '1e39' is no number"),
        ('a,kind\n1,"x\ny"\n2;y\n', ", line 4: 1 cells, but the header has 2"),
        ("a,kind\n1,x,3\n", ", line 2: 3 cells, but the header has 2"),
        ("a,b\n1,2\n", ", line 1: must name each column once, and 'kind' among them; found a, b"),
        ("a,a,kind\n1,2,x\n",
         ", line 1: must name each column once, and 'kind' among them; found a, a, kind"),
        ("", ", line 1: must name each column once, and 'kind' among them; found nothing"),
        ("a,kind\n1,x\n2,x\n3,x\n4,x\n5,x\n", ": 5 rows of 1 classes are too few"),
        (b"a,kind\n\xff,x\n", ": cannot be read: 'utf-8' codec can't decode byte 0xff in position "
         "7: invalid start byte"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_table_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    """File, line and column; lines are those of an editor."""
    assert problem(tmp_path, text) == sentence


def test_a_table_that_is_not_there_is_named() -> None:
    """With its path, which is one from the task's folder."""
    with pytest.raises(TaskError) as error:
        load_task("table.py:table", {"path": "x.csv", "target": "y"}, directory=EXAMPLES)
    assert str(error.value) == (
        f"task table.py:table: {EXAMPLES / 'x.csv'}: cannot be read: [Errno 2] No such file or "
        f"directory: '{EXAMPLES / 'x.csv'}'"
    )


def test_a_table_is_standardised_by_what_is_trained_on(tmp_path: Path) -> None:
    """Rows that are held out have no say; a column that never changes is no division by zero."""
    text = "big,same,kind\n" + "".join(f"{1000 + i},7,{'xy'[i % 2]}\n" for i in range(20))
    (tmp_path / "own.csv").write_text(text.replace("1000,", "9e9,"))
    (tmp_path / "table.py").write_text((EXAMPLES / "table.py").read_text())
    task = load_task("table.py:table", {"path": "own.csv", "target": "kind"}, directory=tmp_path)
    state = task.state(task.initial(1))

    trained = [1000 + i for i in range(20) if i % 5]
    assert state["mean"] == pytest.approx([np.mean(trained), 7])
    assert state["deviation"] == pytest.approx([np.std(trained, ddof=1), 1], rel=1e-4)


def test_a_table_can_be_dealt_out() -> None:
    """Then every worker has a part of its own, and together they have all."""
    options = {**TABLE.options, "split": "shards"}
    task = load_task(TABLE.task, options, directory=EXAMPLES)
    counts = [
        sum(task.class_counts(Share(f"w{i}", i, 4, 1, 8)).values())  # type: ignore[attr-defined]
        for i in range(4)
    ]

    assert counts == [100, 100, 100, 100]
    source = task.source(Share("w0", 0, 4, 1, 8))
    assert np.isfinite(source.gradient(task.initial(1), 0)[1])
