"""Outcomes by their place in the report, each beside vanilla and its margin."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

from byzsgd_daemons.evaluate.margins import Verdict, margin, verdict
from byzsgd_daemons.evaluate.plan import VANILLA, VARIANTS, Experiment
from byzsgd_daemons.evaluate.results import Outcome, Record, State

NOBODY = ("", "")
"""What lying workers and servers do where none lies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The same experiment at several seeds."""

    experiment: Experiment
    """At the first seed."""
    outcomes: Sequence[Outcome]
    """Of every seed, or none: a mean over fewer seeds is not to be compared."""
    left_out: int = 0
    """How many are there without those of the other seeds."""

    def done(self) -> bool:
        """Whether there are outcomes, and all got to their last step."""
        return bool(self.outcomes) and all(each.state is State.DONE for each in self.outcomes)

    def accuracy(self) -> float:
        """Mean of the last evaluations in percent; NaN if a run did not get to its last step."""
        return 100 * mean(each.accuracy() for each in self.outcomes) if self.done() else nan

    def worst(self) -> float:
        """The same of the worst correct server."""
        return 100 * mean(each.accuracy_worst() for each in self.outcomes) if self.done() else nan

    def drift_max(self) -> float:
        """Largest drift at an evaluation."""
        return max((each.drift_max() for each in self.outcomes), default=nan)

    def steps_per_second(self) -> float:
        """Mean throughput; NaN in memory, where time is virtual."""
        if self.experiment.run.in_memory or not self.done():
            return nan
        return mean(each.steps_per_second() for each in self.outcomes)

    def text(self) -> str:
        """The accuracy, or how the run ended instead."""
        if not self.outcomes:
            return ""
        if self.done():
            return f"{self.accuracy():.1f}"
        return how_it_ended(next(each for each in self.outcomes if each.state is not State.DONE))


def how_it_ended(outcome: Outcome) -> str:
    """How a run ended that did not get to its last step."""
    if outcome.state is State.FAILED:
        return "failed"
    word = "diverged" if outcome.sentence.startswith("diverged") else "stood still"
    return f"{word} at {outcome.points[-1].step}" if outcome.points else word


def mean(values: Iterable[float]) -> float:
    """Mean, NaN of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else nan


Key = tuple[str, str, tuple[str, str], str]
"""System, setting, what lying workers and servers do, task."""


class Found:
    """The outcomes of experiments, by what they are in the report."""

    def __init__(self, experiments: Sequence[Experiment], record: Record) -> None:
        self._cells: dict[str, dict[Key, Cell]] = {}
        gathered: dict[str, dict[Key, dict[str, Experiment]]] = {}
        for each in experiments:
            key = (each.system, each.setting, each.under(), each.run.plan.task)
            same = gathered.setdefault(each.group, {}).setdefault(key, {})
            same[each.run.key] = each
        for group, cells in gathered.items():
            self._cells[group] = {key: _cell(same, record) for key, same in cells.items()}
        self._first: dict[tuple[object, ...], Cell] = {}
        for group, found in self._cells.items():
            for key, cell in found.items():
                self._first.setdefault((group, *key[:3]), cell)

    def groups(self) -> list[str]:
        """The groups of which there is at least one cell with outcomes."""
        return [g for g, cells in self._cells.items() if any(c.outcomes for c in cells.values())]

    def cells(self, group: str) -> list[Cell]:
        """All cells of a group."""
        return list(self._cells.get(group, {}).values())

    def cell(
        self, group: str, system: str, under: tuple[str, str] = NOBODY, setting: str = ""
    ) -> Cell | None:
        """A cell of a group of one task, if it belongs to it."""
        return self._first.get((group, system, setting, under))

    def unders(self, group: str) -> list[tuple[str, str]]:
        """Who lies how in a group, nobody first."""
        return list(dict.fromkeys(key[2] for key in self._cells.get(group, {})))

    def settings(self, group: str) -> list[tuple[str, str]]:
        """System and setting of every cell of a group, each once."""
        return list(dict.fromkeys(key[:2] for key in self._cells.get(group, {})))


def _cell(same: Mapping[str, Experiment], record: Record) -> Cell:
    """The cell of the same experiment at several seeds, by key of its runs."""
    there = [record.outcomes[key] for key in same if key in record.outcomes]
    first, whole = next(iter(same.values())), len(there) == len(same)
    return Cell(
        experiment=first,
        outcomes=there if whole else (),
        left_out=0 if whole else len(there),
    )


def under_words(under: tuple[str, str]) -> str:
    """Who lies how, in words."""
    return " + ".join(filter(None, under)) or "nobody lies"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A cell beside vanilla's."""

    cell: Cell
    gap: float
    """Points below vanilla."""
    gap_worst: float
    """The same of the worst correct server."""
    margin: float | None
    """What is allowed."""
    verdict: Verdict


def judge(cell: Cell, vanilla: Cell | None) -> Judged:
    """Compare a cell with vanilla where nobody lies."""
    reference = vanilla.accuracy() if vanilla else nan
    worker, server = cell.experiment.under()
    allowed = margin(cell.experiment.run.plan.task, worker, server)
    gap, gap_worst = reference - cell.accuracy(), reference - cell.worst()
    # Of lying servers alone no correct server may suffer, and not only not the median of them.
    found = verdict(max(gap, gap_worst) if server and not worker else gap, allowed)
    states = {outcome.state for outcome in cell.outcomes}
    if State.FAILED in states:
        found = Verdict.UNKNOWN  # It says nothing of the attack.
    elif State.STALLED in states and allowed is not None:
        found = Verdict.BEYOND
    return Judged(cell=cell, gap=gap, gap_worst=gap_worst, margin=allowed, verdict=found)


def largest(values: Iterable[float]) -> float:
    """The largest of the numbers; NaN of none."""
    return max((value for value in values if not isnan(value)), default=nan)


def verdicts(found: Found) -> Iterator[Judged]:
    """Every cell that stands beside a margin, once."""
    seen = set()
    for group in ("matrix", "workers", "servers"):
        vanilla = found.cell(group, VANILLA)
        for cell in found.cells(group):
            key = cell.experiment.run.key
            if cell.experiment.system in VARIANTS and cell.outcomes and key not in seen:
                seen.add(key)
                yield judge(cell, vanilla)
