"""What the report says of each group of runs: tables and plots, made from the record."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan, nan
from statistics import median

from byzsgd_daemons.evaluate import plots
from byzsgd_daemons.evaluate.margins import MARGINS, Verdict, margin, verdict
from byzsgd_daemons.evaluate.plan import (
    ADAPTIVE,
    ASYNCHRONOUS,
    CONVERGENCE,
    GROUPS,
    KRUM_F,
    MODELS_AVERAGED,
    NO_MOMENTUM,
    STEALTHY,
    SYNCHRONOUS,
    SYSTEMS,
    THROUGHPUT,
    VANILLA,
    VARIANTS,
    WITHOUT_DMC,
    Experiment,
)
from byzsgd_daemons.evaluate.plots import Line, Panel
from byzsgd_daemons.evaluate.results import Outcome, Record, State

TARGET = 0.9
"""Share of vanilla's final accuracy whose first step is the measure of convergence."""

NOBODY = ("", "")

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of texts."""

    caption: str
    header: Sequence[str]
    rows: Rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """What there is to say of one group."""

    group: str
    title: str
    text: Sequence[str]
    """Paragraphs."""
    tables: Sequence[Table]
    figures: Mapping[str, str] = field(default_factory=dict)
    """SVG by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The same experiment at several seeds."""

    experiment: Experiment
    """At the first seed."""
    outcomes: Sequence[Outcome]
    """Those that are there."""

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
        """Mean throughput."""
        return mean(each.steps_per_second() for each in self.outcomes) if self.done() else nan

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
            self._cells[group] = {
                key: Cell(
                    experiment=next(iter(same.values())),
                    outcomes=[record.outcomes[run] for run in same if run in record.outcomes],
                )
                for key, same in cells.items()
            }

        self._first: dict[tuple[object, ...], Cell] = {}
        for group, found in self._cells.items():
            for key, cell in found.items():
                self._first.setdefault((group, *key[:3]), cell)

    def groups(self) -> list[str]:
        """The groups of which there is at least one outcome."""
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
    ended = any(outcome.state is not State.DONE for outcome in cell.outcomes)
    if ended and allowed is not None:
        found = Verdict.BEYOND
    return Judged(cell=cell, gap=gap, gap_worst=gap_worst, margin=allowed, verdict=found)


def sections(found: Found) -> list[Section]:
    """What there is to say of every group that has outcomes."""
    makers: Mapping[str, Callable[[Found], Section]] = {
        "headline": _headline,
        "matrix": _matrix,
        "workers": _workers,
        "servers": _servers,
        "sweeps": _sweeps,
        "drift": _drift,
        "overhead": _overhead,
        "messages": _messages,
        "baselines": _baselines,
    }
    assert makers.keys() == GROUPS.keys()
    return [makers[group](found) for group in found.groups()]


def _setting_of(found: Found, group: str) -> str:
    """What a group learned, where, and how many times."""
    cells = found.cells(group)
    tasks = list(dict.fromkeys(cell.experiment.run.plan.task for cell in cells))
    in_memory = {cell.experiment.run.in_memory for cell in cells if cell.outcomes}
    where = {frozenset({True}): "in memory", frozenset({False}): "in real daemons"}
    words = where.get(frozenset(in_memory), "partly in memory")
    seeds = max((len(cell.outcomes) for cell in cells), default=0)
    runs = sum(len(cell.outcomes) for cell in cells)
    averaged = f"; means over {seeds} seeds" if seeds > 1 else ""
    return f"{', '.join(tasks)}; {runs} runs {words}{averaged}."


def _headline(found: Found) -> Section:
    # The vanilla server has no peers that lie: its runs belong to the pairs that hold them.
    unders = [under for under in found.unders("headline") if under[1] or under == NOBODY]
    rows = []
    for under in unders:
        for system in SYSTEMS:
            cell = found.cell("headline", system, _seen_by(system, under))
            if cell and cell.outcomes:
                rows.append(
                    [
                        under_words(under),
                        system,
                        cell.text(),
                        number(cell.worst()),
                        number(cell.steps_per_second()),
                        _small(cell.drift_max()) if system != VANILLA else "-",
                    ]
                )
    figures: dict[str, str] = {}
    for name, x in (("steps", "step"), ("time", "time since the first step, s")):
        panels = [
            Panel(
                title=under_words(under),
                lines=_accuracy_lines(found, under, by_time=name == "time"),
                x=x,
                y="accuracy on held-out data, %",
                y_range=(0, 100),
            )
            for under in unders
        ]
        _keep(figures, f"headline-{name}", plots.draw(panels))
    return Section(
        group="headline",
        title="Accuracy against steps and against time",
        text=[
            _setting_of(found, "headline"),
            "A cross is where a training stood still: what its correct workers computed was not "
            "finite any more. The vanilla server has the same workers, liars among them, and no "
            "lying server.",
        ],
        tables=[
            Table(
                caption="The last five evaluations, mean.",
                header=["", "system", "accuracy, %", "worst server, %", "steps/s", "largest drift"],
                rows=rows,
            )
        ],
        figures=figures,
    )


def _seen_by(system: str, under: tuple[str, str]) -> tuple[str, str]:
    """What a system meets of an attack: the vanilla server has no lying peers."""
    return (under[0], "") if system == VANILLA else under


def _accuracy_lines(found: Found, under: tuple[str, str], *, by_time: bool) -> list[Line]:
    lines = []
    for style, system in enumerate(SYSTEMS):
        cell = found.cell("headline", system, _seen_by(system, under))
        if not cell or not cell.outcomes:
            continue
        outcome = cell.outcomes[0]
        points = [
            (point.seconds if by_time else point.step, 100 * point.accuracy)
            for point in outcome.points
        ]
        broken = outcome.state is not State.DONE
        lines.append(Line(label=system, style=style, points=points, broken=broken))
    return lines


def _keep(figures: dict[str, str], name: str, svg: str | None) -> None:
    if svg is not None:
        figures[name] = svg


def _matrix(found: Found) -> Section:
    vanilla = found.cell("matrix", VANILLA)
    unders = found.unders("matrix")
    workers = list(dict.fromkeys(worker for worker, _ in unders))
    servers = list(dict.fromkeys(server for _, server in unders))
    tables, judged = [], []
    for variant in VARIANTS:
        rows = []
        for worker in workers:
            row = [worker or "nobody"]
            for server in servers:
                cell = found.cell("matrix", variant, (worker, server))
                if cell is None or not cell.outcomes:
                    row.append("")
                    continue
                judged.append(judge(cell, vanilla))
                row.append(_gap_text(judged[-1]))
            rows.append(row)
        tables.append(
            Table(
                caption=f"{variant}: points of accuracy below vanilla, where nobody lies. Down: "
                "what lying workers do; across: what lying servers do. Bold: beyond its margin.",
                header=["", *(server or "nobody" for server in servers)],
                rows=rows,
            )
        )
    task = vanilla.experiment.run.plan.task if vanilla else ""
    return Section(
        group="matrix",
        title="Every attack of workers with every attack of servers",
        text=[
            _setting_of(found, "matrix"),
            f"Vanilla, where nobody lies: {vanilla.text() if vanilla else '-'} %. "
            f"{_margin_words(task)}",
        ],
        tables=[_summary(judged), *tables, *_beyond(judged)],
    )


def _margin_words(task: str) -> str:
    allowed = MARGINS.get(task)
    if allowed is None:
        return "No margins were calibrated for this task."
    return (
        f"Margins in points: nobody lies {allowed.nobody:g}; workers alone {allowed.published:g}, "
        f"adaptive ({', '.join(sorted(ADAPTIVE))}) {allowed.adaptive:g}; servers alone "
        f"{allowed.server:g}, the worst correct server too; both {allowed.both:g}, with optimal "
        f"{allowed.both_optimal:g}."
    )


def _gap_text(judged: Judged) -> str:
    text = f"{judged.gap:.1f}" if judged.cell.done() else judged.cell.text()
    text = text.replace("-0.0", "0.0") if text == "-0.0" else text
    return f"**{text}**" if judged.verdict is Verdict.BEYOND else text


def _summary(judged: Sequence[Judged]) -> Table:
    rows = []
    for variant in VARIANTS:
        of = [each for each in judged if each.cell.experiment.system == variant]
        if not of:
            continue
        verdicts = [each.verdict for each in of]
        rows.append(
            [
                variant,
                str(len(of)),
                str(verdicts.count(Verdict.WITHIN)),
                str(verdicts.count(Verdict.BEYOND)),
                number(largest(each.gap for each in of)),
                number(largest(each.gap_worst for each in of)),
                _small(largest(each.cell.drift_max() for each in of)),
            ]
        )
    header = ["", "cells", "within", "beyond", "largest gap", "of the worst server", "drift"]
    return Table(caption="Cells within their margins.", header=header, rows=rows)


def _beyond(judged: Sequence[Judged]) -> list[Table]:
    beyond = [each for each in judged if each.verdict is Verdict.BEYOND]
    rows = [
        [
            each.cell.experiment.system,
            under_words(each.cell.experiment.under()),
            each.cell.text(),
            number(each.gap),
            number(each.gap_worst),
            f"{each.margin:g}" if each.margin is not None else "",
        ]
        for each in beyond
    ]
    header = ["", "", "accuracy, %", "gap", "of the worst server", "margin"]
    caption = "Cells beyond their margin, gaps in points."
    return [Table(caption=caption, header=header, rows=rows)] if rows else []


def _workers(found: Found) -> Section:
    vanilla = found.cell("workers", VANILLA)
    rows = []
    for under in found.unders("workers"):
        cells = [found.cell("workers", system, under) for system in SYSTEMS]
        judged = [judge(cell, vanilla) for cell in cells if cell and cell.outcomes]
        if not judged:
            continue
        texts = [cell.text() if cell else "" for cell in cells]
        rows.append([under_words(under), *texts, *_verdict_words(judged)])
    header = ["lying workers", *SYSTEMS, "margin", "verdict"]
    return Section(
        group="workers",
        title="Attacks of workers alone",
        text=[_setting_of(found, "workers")],
        tables=[Table(caption="Accuracy in %.", header=header, rows=rows)],
    )


def _verdict_words(judged: Sequence[Judged]) -> list[str]:
    """The margin, and who of the variants is beyond it."""
    of = [each for each in judged if each.cell.experiment.system in VARIANTS]
    if not of or of[0].margin is None or all(e.verdict is Verdict.UNKNOWN for e in of):
        return ["", ""]
    beyond = [e.cell.experiment.system for e in of if e.verdict is Verdict.BEYOND]
    words = f"**beyond: {', '.join(beyond)}**" if beyond else Verdict.WITHIN.value
    return [f"{of[0].margin:g}", words]


def _servers(found: Found) -> Section:
    vanilla = found.cell("servers", VANILLA)
    rows = []
    for under in found.unders("servers"):
        cells = [found.cell("servers", variant, under) for variant in VARIANTS]
        judged = [judge(cell, vanilla) for cell in cells if cell and cell.outcomes]
        if not judged or under == NOBODY:
            continue
        texts = []
        for cell in cells:
            done = cell is not None and cell.done()
            texts += [cell.text() if cell else "", number(cell.worst()) if done and cell else ""]
        rows.append([under_words(under), *texts, *_verdict_words(judged)])
    header = ["lying server", *(w for v in VARIANTS for w in (v, "worst server"))]
    words = f"Vanilla, where nobody lies: {vanilla.text() if vanilla else '-'} %."
    return Section(
        group="servers",
        title="Attacks of servers alone",
        text=[_setting_of(found, "servers"), words],
        tables=[
            Table(caption="Accuracy in %.", header=[*header, "margin", "verdict"], rows=rows),
        ],
    )


def _sweeps(found: Found) -> Section:
    unders = found.unders("sweeps")
    attacked = STEALTHY
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
                _small(calm.drift_max()) if calm else "",
                under_words(worst.experiment.under()) if worst else "",
                worst.text() if worst else "",
                _small(worst.drift_max()) if worst else "",
            ]
        )
    figures: dict[str, str] = {}
    _keep(figures, "sweeps", plots.draw(_sweep_panels(found, attacked)))
    return Section(
        group="sweeps",
        title="f, quorums, T, batch size and momentum",
        text=[_setting_of(found, "sweeps"), f"The attack is {under_words(attacked)}."],
        tables=[
            Table(
                caption="Accuracy in %, and largest drift.",
                header=["", "system", "nobody lies", "drift", "attack", "accuracy", "drift"],
                rows=rows,
            )
        ],
        figures=figures,
    )


def _sweep_panels(found: Found, attacked: tuple[str, str]) -> list[Panel]:
    panels = []
    for word, axis, log in (
        ("T", "T, steps between two gathers", True),
        ("batch", "batch size, examples", True),
        ("beta", "worker momentum beta", False),
    ):
        lines: list[Line] = []
        for variant in VARIANTS:
            for under in (NOBODY, attacked):
                points = _sweep_points(found, word, variant, under)
                label = f"{variant}, {'attacked' if any(under) else 'nobody lies'}"
                lines.append(Line(label=label, style=len(lines) + 1, points=points))
        lines = [line for line in lines if line.points]
        if lines:
            panels.append(Panel(title=word, lines=lines, x=axis, y="accuracy, %", log_x=log))
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


def _drift(found: Found) -> Section:
    rows = []
    for cell in found.cells("drift"):
        if not cell.outcomes:
            continue
        each, outcome = cell.experiment, cell.outcomes[0]
        drifts = [drift for _, drift in outcome.drift if isfinite(drift)]
        rows.append(
            [
                under_words(each.under()),
                each.system,
                each.setting,
                _small(largest(drifts)),
                _small(drifts[-1] if drifts else nan),
                number(_contraction(outcome, each.run.gather_period()), 2),
                cell.text(),
                number(cell.worst()),
            ]
        )
    figures: dict[str, str] = {}
    _keep(figures, "drift", plots.draw(_drift_panels(found)))
    header = ["", "system", "", "largest", "at the end", "after / before a gather"]
    return Section(
        group="drift",
        title="Drift with and without DMC",
        text=[
            _setting_of(found, "drift"),
            "Drift is the largest Euclidean distance between two correct servers' models of the "
            "same step. After / before is that of a gather step over that of the step before it, "
            "median over all gathers. In memory, for only there is every model of every step seen. "
            "Where all servers count the same votes it is 0, and no line is drawn.",
        ],
        tables=[
            Table(
                caption="Drift in every step.",
                header=[*header, "accuracy, %", "worst server, %"],
                rows=rows,
            )
        ],
        figures=figures,
    )


def _contraction(outcome: Outcome, period: int) -> float:
    """What a gather leaves of the drift, median over all gathers; NaN with T = 1."""
    drifts = dict(outcome.drift)
    ratios = [
        after / drifts[step - 1]
        for step, after in drifts.items()
        if period > 1 and step and step % period == 0 and drifts.get(step - 1)
    ]
    return median(ratios) if ratios else nan


def _drift_panels(found: Found) -> list[Panel]:
    panels = []
    for under in found.unders("drift"):
        lines: list[Line] = []
        gathers: list[float] = []
        for style, (system, setting) in enumerate(found.settings("drift")):
            cell = found.cell("drift", system, under, setting)
            if not cell or not cell.outcomes:
                continue
            points = [(float(s), d) for s, d in cell.outcomes[0].drift if isfinite(d) and d > 0]
            lines.append(Line(label=f"{system}, {setting}", style=style, points=points))
            run = cell.experiment.run
            if run.gather_period() > 1 and setting != WITHOUT_DMC:
                gathers = [float(s) for s in range(run.gather_period(), run.steps() + 1,
                                                   run.gather_period())]  # fmt: skip
        if lines:
            panels.append(
                Panel(
                    title=under_words(under),
                    lines=lines,
                    x="step",
                    y="drift (L2) between correct servers",
                    log_y=True,
                    marks=gathers,
                    marks_label="gathers, T = 10",
                )
            )
    return panels


def _overhead(found: Found) -> Section:
    tables = [_convergence(found)]
    throughput = [c for c in found.cells("overhead") if c.experiment.setting == THROUGHPUT]
    if any(cell.outcomes for cell in throughput):
        tables.append(_throughput(throughput))
    return Section(
        group="overhead",
        title="What it costs: steps and time",
        text=[
            _setting_of(found, "overhead"),
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
            rows.append([under_words(under), system, number(steps, 0), signed(over), cell.text()])
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
            row += [number(speed), signed(100 * (reference / speed - 1)) if speed else ""]
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


def _messages(found: Found) -> Section:
    rows = []
    reference = nan
    for cell in found.cells("messages"):
        each = cell.experiment
        if not cell.outcomes:
            continue
        outcome, steps = cell.outcomes[0], each.run.steps()
        kinds = {kind: count / steps for kind, count in outcome.messages.items()}
        total, size = sum(kinds.values()), sum(outcome.bytes.values()) / steps
        reference = size if each.system == VANILLA else reference
        rows.append(
            [
                each.system,
                each.setting,
                *(number(kinds.get(kind, 0.0)) for kind in ("model", "gradient", "gather", "pull")),
                number(total),
                number(size / 1e6, 2),
                number(size / reference) if reference else "",
                _expected(each),
            ]
        )
    header = ["system", "", "models", "gradients", "gathers", "pulls", "all", "MB"]
    return Section(
        group="messages",
        title="Messages and bytes per step",
        text=[_setting_of(found, "messages"), "Nobody lies. Bytes are counted before encryption."],
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


def _baselines(found: Found) -> Section:
    cells = found.cells("baselines")
    by_rule = [c for c in cells if not c.experiment.under()[1] and _is_rule(c)]
    rules = list(dict.fromkeys(c.experiment.system for c in by_rule))
    workers = list(dict.fromkeys(c.experiment.under()[0] for c in by_rule))
    tables = []
    for setting, words in (("", "with worker momentum"), (NO_MOMENTUM, "without momentum")):
        vanilla = found.cell("baselines", VANILLA, setting=setting)
        rows = []
        for worker in workers:
            of = [found.cell("baselines", rule, (worker, ""), setting) for rule in rules]
            if any(cell and cell.outcomes for cell in of):
                rows.append([worker or "nobody", *(cell.text() if cell else "" for cell in of)])
        if rows:
            reference = vanilla.text() if vanilla and vanilla.outcomes else "-"
            run = by_rule[0].experiment.run
            tables.append(
                Table(
                    caption=f"Rules for gradients, {words}: accuracy in %. {run.plan.workers} "
                    f"workers, of which {KRUM_F} lie; five correct servers. "
                    f"Vanilla where nobody lies: {reference} %.",
                    header=["lying workers", *rules],
                    rows=rows,
                )
            )
    tables += _models_averaged(found)
    return Section(
        group="baselines",
        title="Baselines: what breaks without MDA, momentum or the median",
        text=[
            _setting_of(found, "baselines"),
            "The rules run in ByzSGD's place of MDA, on the same quorum. Averaged models: what a "
            "worker takes, and what a gather leaves, is the mean of the servers' models.",
        ],
        tables=tables,
    )


def _is_rule(cell: Cell) -> bool:
    return cell.experiment.system not in (VANILLA, ASYNCHRONOUS, MODELS_AVERAGED)


def _models_averaged(found: Found) -> list[Table]:
    rows = []
    for under in found.unders("baselines"):
        averaged = found.cell("baselines", MODELS_AVERAGED, under)
        medians = found.cell("baselines", ASYNCHRONOUS, under)
        if averaged and averaged.outcomes:
            rows.append([under[1] or "nobody", medians.text() if medians else "", averaged.text()])
    header = ["lying server", "median of models (byzsgd)", "models averaged"]
    caption = "Models: accuracy in %, one of five servers lies."
    return [Table(caption=caption, header=header, rows=rows)] if rows else []


def number(value: float, digits: int = 1) -> str:
    """A number for a table; nothing for NaN."""
    return "" if isnan(value) else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """A percentage more or less, for a table."""
    return "" if isnan(value) else f"{value:+.0f}"


def _small(value: float) -> str:
    return "" if isnan(value) else f"{value:.2g}"


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
