"""What a section of the report is made of: tables and plots, and how numbers stand in them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

from byzsgd_daemons.evaluate import plots
from byzsgd_daemons.evaluate.cells import Found
from byzsgd_daemons.evaluate.plan import VANILLA
from byzsgd_daemons.evaluate.plots import Line, Panel, Point
from byzsgd_daemons.evaluate.results import Outcome, State

Rows = Sequence[Sequence[str]]

COMPACT = ".2g"
"""How a drift is written."""

SIGNED = "+.0f"
"""How a percentage more or less is written."""


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


def number(value: float, form: str = ".1f") -> str:
    """A number for a table, in a form of ``format``; nothing for NaN."""
    return "" if isnan(value) else format(value, form)


def vanilla_words(found: Found, group: str) -> str:
    """What a group is measured by, in words."""
    vanilla = found.cell(group, VANILLA)
    text = vanilla.text() if vanilla else ""
    return f"Vanilla, where nobody lies: {text or '-'} %."


def setting_of(found: Found, group: str) -> str:
    """What a group learned, where, and how many times."""
    cells = found.cells(group)
    tasks = list(dict.fromkeys(cell.experiment.run.plan.task for cell in cells))
    in_memory = {cell.experiment.run.in_memory for cell in cells if cell.outcomes}
    where = {frozenset({True}): "in memory", frozenset({False}): "in real daemons"}
    words = where.get(frozenset(in_memory), "partly in memory")
    seeds = max((len(cell.outcomes) for cell in cells), default=0)
    runs = sum(len(cell.outcomes) for cell in cells)
    left_out = sum(cell.left_out for cell in cells)
    averaged = f"; means over {seeds} seeds" if seeds > 1 else ""
    lacking = f"; {left_out} more are left out until their other seeds are there"
    return f"{', '.join(tasks)}; {runs} runs {words}{averaged}{lacking if left_out else ''}."


def drawn(figures: Mapping[str, Sequence[Panel]]) -> dict[str, str]:
    """The SVG of each figure that can be drawn, by its name."""
    return {name: svg for name, panels in figures.items() if (svg := plots.draw(panels))}


def lines(
    found: Found,
    group: str,
    under: tuple[str, str],
    points: Callable[[Outcome], Iterable[Point]],
) -> list[Line]:
    """A line for every system and setting of a group under an attack: its first seed.

    Args:
        found: What there is.
        group: Of one task.
        under: Who lies how.
        points: What is shown of an outcome.
    """
    made = []
    for style, (system, setting) in enumerate(found.settings(group)):
        cell = found.cell(group, system, seen_by(system, under), setting)
        if cell and cell.outcomes:
            outcome = cell.outcomes[0]
            made.append(
                Line(
                    label=", ".join(filter(None, (system, setting))),
                    style=style,
                    points=list(points(outcome)),
                    broken=outcome.state is not State.DONE,
                )
            )
    return made


def seen_by(system: str, under: tuple[str, str]) -> tuple[str, str]:
    """What a system meets of an attack: the vanilla server has no lying peers."""
    return (under[0], "") if system == VANILLA else under
