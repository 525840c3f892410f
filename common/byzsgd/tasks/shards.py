"""Splits of a training set over workers: the same for all of it, and ways in which data differ.

A split gives every worker the rows of the training set that it draws its mini-batches from. It is
a function of labels, number of workers and a seed alone, so that each worker computes its own part
without asking anybody. (Floating-point dice may differ between versions of NumPy: then parts
overlap a little.) But for ``iid``, the parts are disjoint and together the whole set, and no part
is empty.

Robust rules assume that correct workers differ by chance alone: see docs/theory.md for what each
split costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from byzsgd.cluster import nearest
from byzsgd.errors import TaskError
from byzsgd.tasks.task import Share

Rows: TypeAlias = NDArray[np.intp]
"""``(k,)`` indices of examples, ascending."""

Labels: TypeAlias = NDArray[np.integer]
"""``(n,)``, the class of each example."""

SPLITS = ("iid", "shards", "dirichlet", "by-label")
"""The names of the splits."""

DICE = 2**31
"""Keeps a split's dice apart from those of mini-batches, where a worker's index stands."""

ALPHA_LEAST, ALPHA_MOST = 1e-3, 1e6
"""Beyond these, a Dirichlet distribution of float64 is one class a worker, or uniform."""

RUNS_MOST = 1000
"""More runs a worker than any set has classes."""

ALPHA = 1.0
"""Of the Dirichlet distribution where nobody says: clearly uneven, and no class is one worker's."""

RUNS = 2
"""Runs a worker where nobody says, as in the paper."""


@dataclass(frozen=True, slots=True)
class Split:
    """How a training set is dealt out; its arguments are keys of a cluster file's task_options.

    Raises:
        TaskError: If an argument is out of its range, or belongs to another split.

    Example:
        >>> labels = np.array([0, 0, 1, 1, 2, 2])
        >>> Split("by-label", runs=1).rows(labels, Share("w1", 0, 3, seed=5, batch_size=1))
        array([0, 1])
    """

    split: str = "iid"
    """``iid``: every worker draws from the whole set. ``shards``: disjoint random parts.
    ``dirichlet``: parts with other shares of every class. ``by-label``: parts of few classes."""
    alpha: float | None = None
    """Of ``dirichlet``: 100 is nearly even, 1 uneven, 0.1 leaves most workers few classes."""
    runs: int | None = None
    """Of ``by-label``: runs of equal labels that a worker is dealt, about as many as it has
    classes."""
    split_seed: int | None = None
    """Seed of the dice; the cluster's where there is none."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            hint = nearest(str(self.split), SPLITS)
            raise TaskError(f"task_options.split: found {self.split!r}; {hint}")
        self._check_owner("alpha", self.alpha, ("dirichlet",))
        self._check_owner("runs", self.runs, ("by-label",))
        self._check_owner("split_seed", self.split_seed, SPLITS[1:])
        alpha = ALPHA if self.alpha is None else self.alpha
        if type(alpha) not in (int, float) or not ALPHA_LEAST <= alpha <= ALPHA_MOST:
            raise TaskError(
                f"task_options.alpha: found {alpha!r}; must be a number from "
                f"{ALPHA_LEAST:g} to {ALPHA_MOST:,.0f}"
            )
        for name, value, least, most in (
            ("runs", self.runs, 1, RUNS_MOST),
            ("split_seed", self.split_seed, 0, 2**53),
        ):
            if value is not None and (type(value) is not int or not least <= value <= most):
                limit = f"{most:,}" if name == "runs" else "2^53"
                raise TaskError(
                    f"task_options.{name}: found {value!r}; must be an integer from {least} "
                    f"to {limit}"
                )

    def _check_owner(self, name: str, value: object, splits: Sequence[str]) -> None:
        if value is not None and self.split not in splits:
            takes = " or ".join(f'"{split}"' for split in splits)
            raise TaskError(
                f'task_options.{name}: is not for split = "{self.split}"; leave it out, or set '
                f"split = {takes}"
            )

    def rows(self, labels: Labels, share: Share) -> Rows:
        """The rows that a worker draws from.

        Args:
            labels: The class of each example of the training set; for ``iid`` and ``shards`` any
                array of that length.
            share: Whose part.

        Raises:
            TaskError: If there are too few examples for so many workers.
        """
        return self.parts(labels, share.n_workers, share.seed)[share.index]

    def parts(self, labels: Labels, n_workers: int, seed: int) -> list[Rows]:
        """The rows of every worker, in the order of the workers' indices.

        Args:
            labels: As for ``rows``.
            n_workers: n_w.
            seed: The cluster's seed.

        Raises:
            TaskError: If there are too few examples for so many workers.
        """
        seed = seed if self.split_seed is None else self.split_seed
        chance = np.random.default_rng([seed, DICE])
        match self.split:
            case "shards":
                return shards(len(labels), n_workers, chance)
            case "dirichlet":
                return dirichlet(labels, n_workers, self.alpha or ALPHA, chance)
            case "by-label":
                return by_label(labels, n_workers, self.runs or RUNS, chance)
            case _:
                return [np.arange(len(labels))] * n_workers


def shards(n: int, n_workers: int, chance: np.random.Generator) -> list[Rows]:
    """Disjoint random parts of n examples, whose sizes differ by at most one.

    Each is a sample of the whole, but a small one that stays the same: what it lacks it lacks in
    every step.

    Raises:
        TaskError: If there are fewer examples than workers.
    """
    _check_enough(n, n_workers, 1)
    return [np.sort(part) for part in np.array_split(chance.permutation(n), n_workers)]


def dirichlet(
    labels: Labels, n_workers: int, alpha: float, chance: np.random.Generator
) -> list[Rows]:
    """Disjoint parts: of each class, workers get shares drawn from a Dirichlet distribution.

    Whoever ends without an example gets one of the largest part's, so that no part is empty. Of a
    class with fewer examples than workers, some workers get none.

    Args:
        labels: ``(n,)``, the class of each example.
        n_workers: Parts to make.
        alpha: Concentration, the same for every worker.
        chance: The dice.

    Source: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification" (2019) draw a mix of classes for each worker. Drawing over the workers
    for each class, which deals out every example exactly once, is from Yurochkin, Agarwal, Ghosh,
    Greenewald, Hoang, Khazaeni, "Bayesian Nonparametric Federated Learning of Neural Networks"
    (ICML 2019).

    Raises:
        TaskError: If there are fewer examples than workers.
    """
    _check_enough(len(labels), n_workers, 1)
    parts: list[list[int]] = [[] for _ in range(n_workers)]
    for label in np.unique(labels):
        rows = chance.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(chance.dirichlet(np.full(n_workers, alpha)))
        cuts = np.rint(ends[:-1] * len(rows)).astype(np.intp)
        for part, some in zip(parts, np.split(rows, cuts), strict=True):
            part.extend(some.tolist())
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return [np.sort(np.asarray(part, np.intp)) for part in parts]


def by_label(labels: Labels, n_workers: int, runs: int, chance: np.random.Generator) -> list[Rows]:
    """Disjoint parts of few classes: examples sorted by label, cut into runs, and these dealt out.

    All runs are of equal length, to within one example. A worker has about ``runs`` classes: more
    where a class ends within a run, fewer where two of its runs are of one class.

    Args:
        labels: ``(n,)``, the class of each example.
        n_workers: Parts to make.
        runs: Runs for each worker.
        chance: The dice.

    Source: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of
    Deep Networks from Decentralized Data" (AISTATS 2017).

    Raises:
        TaskError: If there are fewer examples than runs.
    """
    _check_enough(len(labels), n_workers, runs)
    ordered = np.array_split(np.argsort(labels, kind="stable"), runs * n_workers)
    dealt = chance.permutation(len(ordered)).reshape(n_workers, runs)
    return [np.sort(np.concatenate([ordered[run] for run in own])) for own in dealt]


def total_variation(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far each worker's mix of classes is from that of all workers together, in [0, 1].

    The total variation distance: the largest difference in the probability of any set of classes.
    0 is the same mix; near 1 is a worker whose classes the others lack.

    Args:
        counts: ``(n_w, classes)``, how many examples of each class each worker has; no row of
            zeros.
    """
    of_worker = counts / counts.sum(axis=1, keepdims=True)
    of_all = counts.sum(axis=0) / counts.sum()
    distances: NDArray[np.float64] = np.abs(of_worker - of_all).sum(axis=1) / 2
    return distances


def _check_enough(n: int, n_workers: int, runs: int) -> None:
    if n < runs * n_workers:
        each = f" of {runs} runs each" if runs > 1 else ""
        raise TaskError(
            f"split: {n_workers} workers{each} need {runs * n_workers} examples, and there are "
            f'{n}; take fewer, or split = "iid"'
        )
