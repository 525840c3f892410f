"""The table of classes: what each worker of a cluster draws from, and what that means."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from byzsgd.cluster import Cluster
from byzsgd.errors import TaskError
from byzsgd_daemons import cli
from byzsgd_daemons.data import CLASSES_SHOWN, ClassCounts, class_counts, sentences, table


def printed(found: ClassCounts) -> list[list[str]]:
    """The cells of the table, as a terminal shows them."""
    console = Console(width=250)
    with console.capture() as capture:
        console.print(table(found))
    return [line.split() for line in capture.get().splitlines()]


def of(*rows: list[int]) -> ClassCounts:
    counts = np.array(rows, np.int64)
    workers = [f"w{index}" for index in range(len(rows))]
    return ClassCounts(workers, range(counts.shape[1]), counts)


@pytest.fixture
def digits(cluster: Callable[..., Cluster]) -> Callable[[Mapping[str, Any]], ClassCounts]:
    """The class counts of a cluster that learns the digits with these task_options."""
    return lambda options: class_counts(cluster(task="digits", task_options=options), Path())


def test_a_row_a_worker_and_a_column_a_class() -> None:
    """With the number of examples and the distance from the mix of all workers."""
    assert printed(of([4, 0], [2, 2], [0, 4])) == [
        ["worker", "examples", "0", "1", "from", "all"],
        ["w0", "4", "4", "0", "0.50"],
        ["w1", "4", "2", "2", "0.00"],
        ["w2", "4", "0", "4", "0.50"],
    ]


def test_many_classes_are_counted() -> None:
    """A terminal has no room for a column each."""
    few, many = [1] * CLASSES_SHOWN, [1] * CLASSES_SHOWN + [0, 2]

    assert len(printed(of(few, few))[0]) == CLASSES_SHOWN + 4
    assert printed(of(many, many))[1] == ["w0", "22", "21", "0.00"]


def test_workers_that_draw_from_the_same(digits: Any) -> None:
    """By default everybody has everything, and that is said."""
    found = digits({})

    assert found.workers == ("w1", "w2", "w3", "w4")
    assert (found.counts == found.counts[0]).all()
    assert "mean 0.00, largest 0.00" in sentences(found)[0]
    assert "nothing here is uneven" in sentences(found)[1]


@pytest.mark.parametrize("split", ["shards", "dirichlet", "by-label"])
def test_workers_that_differ(digits: Any, split: str) -> None:
    """Their examples add up to those of everybody together; what may come of it is said."""
    found = digits({"split": split})

    assert found.counts.sum(axis=0).tolist() == digits({}).counts[0].tolist()
    assert sentences(found)[1].startswith("workers have different data: a rule may leave out")


def test_a_task_without_labels_says_so(cluster: Callable[..., Cluster]) -> None:
    """The quadratic has none, nor has a task whose author counts nothing."""
    with pytest.raises(TaskError, match=r"^task quadratic: has no method class_counts"):
        class_counts(cluster(), Path())


def test_a_worker_without_examples_is_named(
    cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    """Its distance from the others would be none."""
    (tmp_path / "own.py").write_text(
        "from byzsgd.tasks.quadratic import Quadratic\n"
        "class Own(Quadratic):\n"
        "    def class_counts(self, share): return {0: share.index}\n"
        "def own(): return Own(1, 0.0)\n"
    )
    with pytest.raises(TaskError, match=r"^task own.py:own: w1 has no examples$"):
        class_counts(cluster(task="own.py:own"), tmp_path)


def test_the_command(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the table and its meaning; a task that knows no classes is one line and status 2."""
    assert cli.main(["data", "--cluster", str(files.path)]) == 2
    assert capsys.readouterr().err.startswith("byzsgd: task quadratic: has no method class_counts")

    files.change('task = "quadratic"', 'task = "digits"')
    assert cli.main(["data", "--cluster", str(files.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["w1", "1437"]
    assert lines[2].startswith("from all: total variation distance")
