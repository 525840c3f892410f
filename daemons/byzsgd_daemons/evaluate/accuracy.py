"""What the report says of accuracy: under every attack, and of every baseline."""

from collections.abc import Sequence

from byzsgd_daemons.evaluate.cells import (
    NOBODY,
    Found,
    Judged,
    judge,
    largest,
    under_words,
)
from byzsgd_daemons.evaluate.margins import MARGINS, Verdict
from byzsgd_daemons.evaluate.plan import (
    ADAPTIVE,
    ASYNCHRONOUS,
    BASELINE_RULES,
    KRUM_F,
    MODELS_AVERAGED,
    NO_MOMENTUM,
    SYSTEMS,
    VANILLA,
    VARIANTS,
)
from byzsgd_daemons.evaluate.plots import Panel, Point
from byzsgd_daemons.evaluate.results import Outcome
from byzsgd_daemons.evaluate.tables import (
    COMPACT,
    Section,
    Table,
    drawn,
    lines,
    number,
    seen_by,
    setting_of,
    vanilla_words,
)


def headline(found: Found) -> Section:
    """Accuracy against steps and against time, in the three situations that matter most."""
    # The vanilla server has no peers that lie: its runs belong to the pairs that hold them.
    unders = [under for under in found.unders("headline") if under[1] or under == NOBODY]
    rows = []
    for under in unders:
        for system in SYSTEMS:
            cell = found.cell("headline", system, seen_by(system, under))
            if cell and cell.outcomes:
                rows.append(
                    [
                        under_words(under),
                        system,
                        cell.text(),
                        number(cell.worst()),
                        number(cell.steps_per_second()),
                        number(cell.drift_max(), COMPACT) if system != VANILLA else "-",
                    ]
                )
    figures = {"headline-steps": _accuracies(found, unders, by_time=False)}
    if not any(cell.experiment.run.in_memory for cell in found.cells("headline")):
        figures["headline-time"] = _accuracies(found, unders, by_time=True)
    return Section(
        group="headline",
        title="Accuracy against steps and against time",
        text=[
            setting_of(found, "headline"),
            "A cross is where a run ended before its last step: it stood still, because what its "
            "correct workers computed was not finite any more or for another reason, or it "
            "failed; the table says which. Lines are of the first seed. The vanilla server has "
            "the same workers, liars among them, and no lying server.",
        ],
        tables=[
            Table(
                caption="The last five evaluations, mean.",
                header=["", "system", "accuracy, %", "worst server, %", "steps/s", "largest drift"],
                rows=rows,
            )
        ],
        figures=drawn(figures),
    )


def _accuracies(found: Found, unders: Sequence[tuple[str, str]], *, by_time: bool) -> list[Panel]:
    def points(outcome: Outcome) -> list[Point]:
        return [(p.seconds if by_time else p.step, 100 * p.accuracy) for p in outcome.points]

    return [
        Panel(
            title=under_words(under),
            lines=made,
            x="time since the first step, s" if by_time else "step",
            y="accuracy on held-out data, %",
            y_range=(0, 100),
        )
        for under in unders
        if (made := lines(found, "headline", under, points))
    ]


def matrix(found: Found) -> Section:
    """Every pair of attacks beside its margin."""
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
            setting_of(found, "matrix"),
            f"{vanilla_words(found, 'matrix')} {_margin_words(task)}",
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
    text = "0.0" if text == "-0.0" else text
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
                number(largest(each.cell.drift_max() for each in of), COMPACT),
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


def workers(found: Found) -> Section:
    """What lying workers alone do to each system."""
    return _alone(found, "workers", SYSTEMS, worst=False)


def servers(found: Found) -> Section:
    """What a lying server alone does to each variant, and to the worst correct server."""
    return _alone(found, "servers", VARIANTS, worst=True)


def _alone(found: Found, group: str, systems: Sequence[str], *, worst: bool) -> Section:
    vanilla = found.cell(group, VANILLA)
    rows = []
    for under in found.unders(group):
        cells = [found.cell(group, system, under) for system in systems]
        judged = [judge(cell, vanilla) for cell in cells if cell and cell.outcomes]
        if not judged:
            continue
        texts = []
        for cell in cells:
            texts.append(cell.text() if cell else "")
            if worst:
                texts.append(number(cell.worst()) if cell else "")
        rows.append([under_words(under), *texts, *_verdict_words(judged)])
    names = [word for system in systems for word in (system, *(["worst server"] * worst))]
    return Section(
        group=group,
        title=f"Attacks of {group} alone",
        text=[setting_of(found, group), vanilla_words(found, group)],
        tables=[
            Table(
                caption="Accuracy in %.",
                header=[f"lying {group}", *names, "margin", "verdict"],
                rows=rows,
            )
        ],
    )


def _verdict_words(judged: Sequence[Judged]) -> list[str]:
    """The margin, and who of the variants is beyond it."""
    of = [each for each in judged if each.cell.experiment.system in VARIANTS]
    if not of or of[0].margin is None or all(e.verdict is Verdict.UNKNOWN for e in of):
        return ["", ""]
    beyond = [e.cell.experiment.system for e in of if e.verdict is Verdict.BEYOND]
    words = f"**beyond: {', '.join(beyond)}**" if beyond else Verdict.WITHIN.value
    return [f"{of[0].margin:g}", words]


def baselines(found: Found) -> Section:
    """What breaks if one part is replaced."""
    cells = found.cells("baselines")
    by_rule = [cell for cell in cells if cell.experiment.system in BASELINE_RULES]
    rules = list(dict.fromkeys(cell.experiment.system for cell in by_rule))
    tried = list(dict.fromkeys(cell.experiment.under()[0] for cell in by_rule))
    tables = []
    for setting, words in (("", "with worker momentum"), (NO_MOMENTUM, "without momentum")):
        vanilla = found.cell("baselines", VANILLA, setting=setting)
        rows = []
        for worker in tried:
            of = [found.cell("baselines", rule, (worker, ""), setting) for rule in rules]
            if any(cell and cell.outcomes for cell in of):
                rows.append([worker or "nobody", *(cell.text() if cell else "" for cell in of)])
        if rows:
            reference = (vanilla.text() if vanilla else "") or "-"
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
            setting_of(found, "baselines"),
            "The rules run in ByzSGD's place of MDA, on the same quorum. Averaged models: what a "
            "worker takes, and what a gather leaves, is the mean of the servers' models.",
        ],
        tables=tables,
    )


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
