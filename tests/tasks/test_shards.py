"""How a training set is dealt out to workers, whatever its labels are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byzsgd.errors import TaskError
from byzsgd.tasks import LabelledTask, Share, load_task
from byzsgd.tasks.digits import N_TRAIN
from byzsgd.tasks.quadratic import Quadratic
from byzsgd.tasks.shards import (
    ALPHA_LEAST,
    ALPHA_MOST,
    Labels,
    Split,
    by_label,
    dirichlet,
    total_variation,
)
from byzsgd.tasks.torch_task import TorchTask

disjoint = st.one_of(
    st.just(Split("shards")),
    st.builds(Split, st.just("dirichlet"), st.floats(ALPHA_LEAST, ALPHA_MOST)),
    st.builds(lambda runs: Split("by-label", runs=runs), st.integers(1, 4)),
)
"""Splits into parts that share nothing."""

EVEN = np.repeat(np.arange(10), 100)
"""Labels of a thousand examples, a hundred of each class."""


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Labels, int]:
    """Labels in any order, also of one class or of an example each; and how many workers."""
    n_workers = draw(st.integers(1, 12))
    classes = draw(st.integers(1, 30))
    n = draw(st.integers(4 * n_workers, 150))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return np.array(labels, np.int64), n_workers


def share(index: int, n_workers: int, seed: int = 1) -> Share:
    return Share(f"w{index}", index, n_workers, seed, batch_size=8)


def counts(parts: list[Any], labels: Labels) -> Any:
    classes = int(labels.max()) + 1
    return np.array([np.bincount(labels[rows], minlength=classes) for rows in parts])


# What every split owes


@given(labelled(), disjoint, st.integers(0, 2**53))
def test_parts_are_disjoint_and_together_the_whole_set(
    data: tuple[Labels, int], split: Split, seed: int
) -> None:
    """Every example is in exactly one part, however few there are of a class."""
    labels, n_workers = data
    parts = split.parts(labels, n_workers, seed)

    assert len(parts) == n_workers
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))


@given(labelled(), disjoint, st.integers(0, 2**53))
def test_no_part_is_empty(data: tuple[Labels, int], split: Split, seed: int) -> None:
    """A worker without data could say nothing."""
    labels, n_workers = data

    assert all(len(rows) for rows in split.parts(labels, n_workers, seed))


@given(labelled(), disjoint, st.integers(0, 2**53))
def test_every_worker_computes_the_same_parts(
    data: tuple[Labels, int], split: Split, seed: int
) -> None:
    """Each takes its own of them, without asking anybody."""
    labels, n_workers = data
    parts = split.parts(labels, n_workers, seed)
    alone = [split.rows(labels, share(index, n_workers, seed)) for index in range(n_workers)]

    assert all(np.array_equal(one, other) for one, other in zip(parts, alone, strict=True))


def test_iid_is_the_whole_set_for_everybody() -> None:
    """The default, which is what robust rules assume."""
    assert Split() == Split("iid")
    for rows in Split().parts(EVEN, 3, seed=1):
        assert rows.tolist() == list(range(len(EVEN)))


@pytest.mark.parametrize("name", ["shards", "dirichlet", "by-label"])
def test_the_seed_decides(name: str) -> None:
    """The cluster's, or the split's own: then the cluster's does not matter."""
    first = [rows.tolist() for rows in Split(name).parts(EVEN, 5, seed=1)]
    other = [rows.tolist() for rows in Split(name).parts(EVEN, 5, seed=2)]
    own = [rows.tolist() for rows in Split(name, split_seed=1).parts(EVEN, 5, seed=2)]

    assert first != other
    assert first == own


# Each one


@given(st.integers(1, 20), st.integers(0, 1000))
def test_shards_are_of_equal_size(n_workers: int, seed: int) -> None:
    """To within one example."""
    sizes = [len(rows) for rows in Split("shards").parts(EVEN, n_workers, seed)]

    assert max(sizes) - min(sizes) <= 1


@given(st.integers(2, 10), st.integers(0, 1000))
def test_a_large_alpha_is_nearly_even(n_workers: int, seed: int) -> None:
    """Of every class each worker has its n-th part, to within a few examples."""
    parts = dirichlet(EVEN, n_workers, 1e6, np.random.default_rng(seed))

    assert np.abs(counts(parts, EVEN) - 100 / n_workers).max() <= 2
    assert total_variation(counts(parts, EVEN)).max() < 0.1


def test_a_smaller_alpha_is_less_even() -> None:
    """Mean distances from the whole, of ten seeds each."""
    means = [
        np.mean(
            [
                total_variation(
                    counts(dirichlet(EVEN, 7, alpha, np.random.default_rng(s)), EVEN)
                ).mean()
                for s in range(10)
            ]
        )
        for alpha in (1000, 10, 1, 0.1)
    ]

    assert means == sorted(means)
    assert means[0] < 0.03
    assert means[-1] > 0.5


@pytest.mark.parametrize("alpha", [ALPHA_LEAST, ALPHA_MOST])
def test_the_dice_of_extreme_alphas_are_numbers(alpha: float) -> None:
    """Shares that were not would lose examples."""
    parts = dirichlet(EVEN, 50, alpha, np.random.default_rng(3))

    assert sum(map(len, parts)) == len(EVEN)


@given(st.integers(1, 4), st.integers(1, 10), st.integers(0, 1000))
def test_by_label_deals_runs_of_equal_labels(runs: int, n_workers: int, seed: int) -> None:
    """A run is no longer than a part's share of the set, and spans as few classes as it can."""
    parts = by_label(EVEN, n_workers, runs, np.random.default_rng(seed))
    sizes = [len(rows) for rows in parts]
    spanned = 1 + -(-len(EVEN) // (runs * n_workers)) // 100

    assert max(sizes) - min(sizes) <= runs
    assert all(len(np.unique(EVEN[rows])) <= runs * (spanned + 1) for rows in parts)


def test_by_label_where_runs_fit_classes() -> None:
    """Ten classes, five workers, two runs each: every worker has two classes, or one twice."""
    parts = by_label(EVEN, 5, 2, np.random.default_rng(1))

    assert all(len(np.unique(EVEN[rows])) == 2 for rows in parts)


def test_total_variation_by_hand() -> None:
    """Half of the sum of the differences of the shares."""
    found = total_variation(np.array([[2, 0], [1, 1], [0, 2]]))

    assert found.tolist() == [0.5, 0, 0.5]


# What is wrong


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "dirichle"}, "task_options.split: found 'dirichle'; did you mean dirichlet?"),
        ({"split": 3}, "task_options.split: found 3; known: by-label, dirichlet, iid, shards"),
        (
            {"alpha": 1.0},
            'task_options.alpha: is not for split = "iid"; leave it out, or set split = '
            '"dirichlet"',
        ),
        (
            {"split": "shards", "runs": 2},
            'task_options.runs: is not for split = "shards"; leave it out, or set split = '
            '"by-label"',
        ),
        (
            {"split_seed": 1},
            'task_options.split_seed: is not for split = "iid"; leave it out, or set split = '
            '"shards" or "dirichlet" or "by-label"',
        ),
        (
            {"split": "dirichlet", "alpha": 0},
            "task_options.alpha: found 0; must be a number from 0.001 to 1,000,000",
        ),
        (
            {"split": "dirichlet", "alpha": float("nan")},
            "task_options.alpha: found nan; must be a number from 0.001 to 1,000,000",
        ),
        (
            {"split": "dirichlet", "alpha": "1"},
            "task_options.alpha: found '1'; must be a number from 0.001 to 1,000,000",
        ),
        (
            {"split": "by-label", "runs": 0},
            "task_options.runs: found 0; must be an integer from 1 to 1,000",
        ),
        (
            {"split": "by-label", "runs": True},
            "task_options.runs: found True; must be an integer from 1 to 1,000",
        ),
        (
            {"split": "shards", "split_seed": -1},
            "task_options.split_seed: found -1; must be an integer from 0 to 2^53",
        ),
    ],
)
@pytest.mark.parametrize("task", ["digits", "mnist", "fashion-mnist"])
def test_a_wrong_option_names_key_finding_and_remedy(
    task: str, options: dict[str, Any], sentence: str
) -> None:
    """In one line, for every shipped task with labels, before any data are read."""
    with pytest.raises(TaskError) as error:
        load_task(task, options, directory=Path())

    assert str(error.value) == f"task {task}: {sentence}"


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        (Split("shards"), "split: 5 workers need 5 examples, and there are 4"),
        (Split("dirichlet"), "split: 5 workers need 5 examples, and there are 4"),
        (Split("by-label"), "split: 5 workers of 2 runs each need 10 examples, and there are 4"),
    ],
)
def test_too_few_examples_for_so_many_workers(split: Split, sentence: str) -> None:
    """Rather than a worker without data."""
    with pytest.raises(TaskError) as error:
        split.rows(np.array([0, 1, 2, 3]), share(0, 5))

    assert str(error.value).startswith(sentence)


# Tasks


@pytest.mark.parametrize("options", [{"split": "shards"}, {"split": "by-label", "runs": 1}])
def test_a_shipped_task_draws_from_its_part(options: dict[str, Any]) -> None:
    """The workers' class counts add up to the training set; the gradients are of the part."""
    task = load_task("digits", options, directory=Path())
    assert isinstance(task, LabelledTask)
    found = [task.class_counts(share(index, 7)) for index in range(7)]
    whole = load_task("digits", {}, directory=Path())
    model = whole.initial(1)

    assert sum(sum(of_worker.values()) for of_worker in found) == N_TRAIN
    part, all_of_it = (each.source(share(2, 7)).gradient(model, 0)[0] for each in (task, whole))
    assert not np.array_equal(part, all_of_it)


def test_one_worker_has_everything() -> None:
    """So that what is estimated from the task as a whole sees all of the data."""
    task = load_task("digits", {"split": "by-label"}, directory=Path())

    assert isinstance(task, LabelledTask)
    assert sum(task.class_counts(share(0, 1)).values()) == N_TRAIN


def test_workers_of_the_quadratic_may_have_targets_of_their_own() -> None:
    """Spread about the one that is sought, which is their mean; the same on every worker."""
    task = Quadratic(1000, noise=0.0, spread=0.5)
    targets = [task.target_of(share(index, 8)) for index in range(8)]
    gradient, loss = task.source(share(3, 8)).gradient(targets[3], 0)

    assert np.mean(targets, axis=0) == pytest.approx(task.target, abs=1e-5)
    assert np.std(np.array(targets) - task.target) == pytest.approx(0.5, rel=0.1)
    assert np.abs(gradient).max() < 1e-6
    assert loss < 1e-6
    assert task.target_of(share(0, 1)) == pytest.approx(task.target, abs=1e-6)


def test_a_spread_is_a_number() -> None:
    """Of at least 0, like the noise."""
    with pytest.raises(TaskError, match=r"spread: found -1; must be a number of at least 0"):
        load_task("quadratic", {"spread": -1}, directory=Path())


# Class counts


def labelled_task(targets: torch.Tensor) -> TorchTask:
    return TorchTask(
        model=lambda: torch.nn.Linear(1, 2),
        data=lambda share: (torch.zeros(len(targets), 1), targets),
        loss=torch.nn.functional.cross_entropy,
        test_data=lambda: (torch.zeros(1, 1), torch.zeros(1)),
    )


def test_a_torch_task_counts_the_classes_of_its_data() -> None:
    """Of one integer an example."""
    assert labelled_task(torch.tensor([3, 1, 3])).class_counts(share(0, 1)) == {1: 1, 3: 2}


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (torch.zeros(2), "float32 of shape (2,)"),
        (torch.zeros(2, 3).long(), "int64 of shape (2, 3)"),
    ],
)
def test_targets_that_are_no_classes_are_not_counted(targets: torch.Tensor, found: str) -> None:
    """The sentence says what they are."""
    with pytest.raises(TaskError) as error:
        labelled_task(targets).class_counts(share(0, 1))

    assert str(error.value) == (
        f"data: its targets are {found}; classes can be counted of one integer an example"
    )


OWN = """
import numpy as np
class Own:
    def initial(self, seed): return np.zeros(1, np.float32)
    def source(self, share): pass
    def accuracy(self, vector): return 0.0
    def state(self, vector): return {{}}
    {method}
def own(): return Own()
"""


@pytest.fixture
def count(tmp_path: Path) -> Callable[[str], Any]:
    """The class counts of a task of a user's own that has this method."""

    def of(method: str) -> Any:
        (tmp_path / "own.py").write_text(OWN.format(method=method))
        task = load_task("own.py:own", {}, directory=tmp_path)
        assert isinstance(task, LabelledTask)
        return task.class_counts(share(0, 1))

    return of


def test_a_task_of_ones_own_may_count_its_classes(count: Callable[[str], Any]) -> None:
    """One more method, which no other command calls."""
    assert count("def class_counts(self, share): return {0: 4, 7: 0}") == {0: 4, 7: 0}
    assert count("def class_counts(self, share): return {np.int64(3): np.uint8(2)}") == {3: 2}


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("", "has no method class_counts: its classes cannot be counted"),
        (
            "def class_counts(self, share): return [1]",
            "class_counts returned a list; must be a mapping of classes to numbers of examples, "
            "both integers",
        ),
        (
            "def class_counts(self, share): return {'a': 1}",
            "class_counts returned 'a': 1; must be a mapping of classes to numbers of examples, "
            "both integers",
        ),
        (
            "def class_counts(self, share): return {1: -1}",
            "class_counts returned 1: -1; must be a mapping of classes to numbers of examples, "
            "both integers",
        ),
    ],
)
def test_class_counts_keep_their_form(
    method: str, sentence: str, count: Callable[[str], Any]
) -> None:
    """What a user's code lacks or returns amiss is one line."""
    with pytest.raises(TaskError) as error:
        count(method)

    assert str(error.value) == f"task own.py:own: {sentence}"
