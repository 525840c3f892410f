"""What the report says of cost: what each number of a cluster does, drift, time and messages."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from math import isfinite, nan
from statistics import median

from byzsgd_daemons.evaluate.cells import NOBODY, Cell, Found, largest, mean, under_words
from byzsgd_daemons.evaluate.plan import (
    CONVERGENCE,
    STEALTHY,
    SYNCHRONOUS,
    SYSTEMS,
    THROUGHPUT,
    VANILLA,
    VARIANTS,
    WITHOUT_DMC,
    Experiment,
)
from byzsgd_daemons.evaluate.plots import Line, Panel, Point
from byzsgd_daemons.evaluate.results import Outcome
from byzsgd_daemons.evaluate.tables import (
    COMPACT,
    SIGNED,
    Section,
    Table,
    drawn,
    lines,
    number,
    setting_of,
)

TARGET = 0.9
"""Share of vanilla's final accuracy whose first step is the measure of convergence."""


def sweeps(found: Found) -> Section:
    """Each of the numbers varied."""
    unders = found.unders("sweeps")
    rows = []
    for system, setting in found.settings("sweeps"):
        cells = {
            under: cell
            for under in unders
            if (cell := found.cell("sweeps", system, under, setting)) and cell.outcomes
        }
        if not cells:
            continue
        calm = cells.pop(NOBODY, None)
        # Where f is 0 of a role, nobody of that role lies.
        worst = next(iter(cells.values()), None)
        rows.append(
            [
                setting,
                system,
                calm.text() if calm else "",
                number(calm.drift_max(), COMPACT) if calm else "",
                under_words(worst.experiment.under()) if worst else "",
                worst.text() if worst else "",
                number(worst.drift_max(), COMPACT) if worst else "",
            ]
        )
    return Section(
        group="sweeps",
        title="f, quorums, T, batch size and momentum",
        text=[setting_of(found, "sweeps"), f"The attack is {under_words(STEALTHY)}."],
        tables=[
            Table(
                caption="Accuracy in %, and largest drift.",
                header=["", "system", "nobody lies", "drift", "attack", "accuracy", "drift"],
                rows=rows,
            )
        ],
        figures=drawn({"sweeps": _sweep_panels(found)}),
    )


def _sweep_panels(found: Found) -> list[Panel]:
    panels = []
    for word, axis, log in (
        ("T", "T, steps between two gathers", True),
        ("batch", "batch size, examples", True),
        ("beta", "worker momentum beta", False),
    ):
        made: list[Line] = []
        for variant in VARIANTS:
            for under in (NOBODY, STEALTHY):
                points = _sweep_points(found, word, variant, under)
                label = f"{variant}, {'attacked' if any(under) else 'nobody lies'}"
                made.append(Line(label=label, style=len(made) + 1, points=points))
        made = [line for line in made if line.points]
        if made:
            panels.append(Panel(title=word, lines=made, x=axis, y="accuracy, %", log_x=log))
    return panels


def _sweep_points(
    found: Found, word: str, variant: str, under: tuple[str, str]
) -> list[tuple[float, float]]:
    points = []
    for system, setting in found.settings("sweeps"):
        name, _, value = setting.partition(" = ")
        cell = found.cell("sweeps", system, under, setting)
        if name == word and system == variant and cell and cell.done():
            points.append((float(value), cell.accuracy()))
    return points


def drift(found: Found) -> Section:
    """The drift of every step, with and without gathers."""
    rows = []
    for cell in found.cells("drift"):
        if not cell.outcomes:
            continue
        each = cell.experiment
        drifts = [[drift for _, drift in _finite(outcome)] for outcome in cell.outcomes]
        rows.append(
            [
                under_words(each.under()),
                each.system,
                each.setting,
                number(largest(chain(*drifts)), COMPACT),
                number(mean(of[-1] if of else nan for of in drifts), COMPACT),
                number(_contraction(cell.outcomes, each.run.gather_period()), ".2f"),
                cell.text(),
                number(cell.worst()),
            ]
        )
    header = ["", "system", "", "largest", "at the end", "after / before a gather"]
    return Section(
        group="drift",
        title="Drift with and without DMC",
        text=[
            setting_of(found, "drift"),
            "Drift is the largest Euclidean distance between two correct servers' models of the "
            "same step. After / before is that of a gather step over that of the step before it, "
            "median over all gathers. In memory, for only there is every model of every step seen. "
            "Where all servers count the same votes it is 0, and no line is drawn. Lines are of "
            "the first seed; a cross is where a run ended before its last step.",
        ],
        tables=[
            Table(
                caption="Drift in every step.",
                header=[*header, "accuracy, %", "worst server, %"],
                rows=rows,
            )
        ],
        figures=drawn({"drift": _drift_panels(found)}),
    )


def _finite(outcome: Outcome) -> list[tuple[int, float]]:
    return [(step, drift) for step, drift in outcome.drift if isfinite(drift)]


def _contraction(outcomes: Sequence[Outcome], period: int) -> float:
    """What a gather leaves of the drift, median over all gathers; NaN with T = 1."""
    ratios = [
        after / drifts[step - 1]
        for drifts in (dict(_finite(outcome)) for outcome in outcomes)
        for step, after in drifts.items()
        if period > 1 and step and step % period == 0 and drifts.get(step - 1)
    ]
    return median(ratios) if ratios else nan


def _drift_panels(found: Found) -> list[Panel]:
    def points(outcome: Outcome) -> list[Point]:
        return [(step, drift) for step, drift in _finite(outcome) if drift > 0]

    periods = {
        (run.gather_period(), run.steps())
        for cell in found.cells("drift")
        for run in [cell.experiment.run]
        if run.gather_period() > 1 and cell.experiment.setting != WITHOUT_DMC
    }
    gathers = sorted(
        {step for period, steps in periods for step in range(period, steps + 1, period)}
    )
    return [
        Panel(
            title=under_words(under),
            lines=made,
            x="step",
            y="drift (L2) between correct servers",
            log_y=True,
            marks=gathers,
            marks_label="gathers, T = 10",
        )
        for under in found.unders("drift")
        if (made := lines(found, "drift", under, points))
    ]


def overhead(found: Found) -> Section:
    """Steps and seconds beside vanilla's, and beside the paper's numbers."""
    tables = [_convergence(found)]
    throughput = [c for c in found.cells("overhead") if c.experiment.setting == THROUGHPUT]
    if any(cell.outcomes for cell in throughput):
        tables.append(_throughput(throughput))
    return Section(
        group="overhead",
        title="What it costs: steps and time",
        text=[
            setting_of(found, "overhead"),
            "The paper reports about 32 % more steps, and a throughput overhead of 24 to 176 % for "
            "the synchronous and 28 to 220 % for the asynchronous variant, with a machine for each "
            "node. Here all nodes share one machine: what they do at the same time adds up.",
        ],
        tables=tables,
    )


def _convergence(found: Found) -> Table:
    vanilla = found.cell("overhead", VANILLA, setting=CONVERGENCE)
    target = TARGET * vanilla.accuracy() / 100 if vanilla else nan
    reference = _steps_to(vanilla, target) if vanilla else nan
    rows = []
    for under in found.unders("overhead"):
        for system in SYSTEMS:
            cell = found.cell("overhead", system, under, CONVERGENCE)
            if not cell or not cell.outcomes:
                continue
            steps = _steps_to(cell, target)
            over = 100 * (steps / reference - 1) if reference else nan
            rows.append(
                [
                    under_words(under),
                    system,
                    number(steps, ".0f"),
                    number(over, SIGNED),
                    cell.text(),
                ]
            )
    return Table(
        caption=f"Steps to {TARGET:.0%} of vanilla's final accuracy where nobody lies.",
        header=["", "system", "steps", "more than vanilla, %", "final accuracy, %"],
        rows=rows,
    )


def _steps_to(cell: Cell, target: float) -> float:
    """The first evaluated step with an accuracy, mean over the seeds; NaN if one has none."""
    steps = [
        next((float(point.step) for point in outcome.points if point.accuracy >= target), nan)
        for outcome in cell.outcomes
    ]
    return mean(steps)


def _throughput(cells: Sequence[Cell]) -> Table:
    rows = []
    for task in dict.fromkeys(cell.experiment.run.plan.task for cell in cells):
        of = {c.experiment.system: c for c in cells if c.experiment.run.plan.task == task}
        speeds = {system: cell.steps_per_second() for system, cell in of.items()}
        reference = speeds.get(VANILLA, nan)
        row = [task, _parameters(of.values()), number(reference)]
        for variant in VARIANTS:
            speed = speeds.get(variant, nan)
            row += [number(speed), number(100 * (reference / speed - 1), SIGNED)]
        rows.append(row)
    header = ["task", "parameters", "vanilla, steps/s"]
    return Table(
        caption="Learning steps a second where nobody lies, and the overhead: how many percent "
        "longer a step takes than vanilla's.",
        header=[*header, *(w for v in VARIANTS for w in (f"{v}, steps/s", "overhead, %"))],
        rows=rows,
    )


def _parameters(cells: Iterable[Cell]) -> str:
    """d, where a run got as far as to tell."""
    known = [outcome.parameters for cell in cells for outcome in cell.outcomes]
    return f"{max(known):,}" if any(known) else ""


KINDS = ("model", "gradient", "gather", "pull")
"""Of messages, in the order of the table."""


def messages(found: Found) -> Section:
    """Messages and bytes of a step, beside the formula."""
    rows = []
    reference = nan
    for cell in found.cells("messages"):
        if not cell.outcomes:
            continue
        each = cell.experiment
        # Who did not get to the last step has made fewer steps than planned.
        steps = each.run.steps() * len(cell.outcomes) if cell.done() else nan
        counts: Counter[str] = Counter()
        size = 0.0
        for outcome in cell.outcomes:
            counts.update(outcome.messages)
            size += sum(outcome.bytes.values()) / steps
        reference = size if each.system == VANILLA else reference
        rows.append(
            [
                each.system,
                each.setting,
                *(number(counts[kind] / steps) for kind in KINDS),
                number(counts.total() / steps),
                number(size / 1e6, ".2f"),
                number(size / reference) if reference else "",
                _expected(each),
            ]
        )
    header = ["system", "", "models", "gradients", "gathers", "pulls", "all", "MB"]
    return Section(
        group="messages",
        title="Messages and bytes per step",
        text=[setting_of(found, "messages"), "Nobody lies. Bytes are counted before encryption."],
        tables=[
            Table(
                caption="Messages on their way to a receiver, per step of the whole cluster. By "
                "formula: n_ps n_w models and gradients, n_ps (n_ps - 1) / T gathers.",
                header=[*header, "MB, times vanilla's", "vectors by formula"],
                rows=rows,
            )
        ],
    )


def _expected(experiment: Experiment) -> str:
    """Vectors a step of the asynchronous variant, by the paper's count."""
    if experiment.system == SYNCHRONOUS:
        return ""
    plan = experiment.run.plan
    gathers = plan.servers * (plan.servers - 1) / experiment.run.gather_period()
    return number(2 * plan.servers * plan.workers + gathers)
