"""Rows of docs/performance.md: what a benchmark measured, beside what it is held to.

Every benchmark that ``make bench`` runs takes ``--json FILE`` and writes its rows there.
"""

import json
import operator
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

COMPARISONS = {"<=": operator.le, ">=": operator.ge}
VERDICTS = {True: "met", False: "**not met**", None: ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    table: str
    """Title of the table that it belongs to."""
    work: str
    """What was done: the name of the row within its table."""
    value: float
    """What was measured: the median over the rounds of a ratio within each, wherever it is one."""
    unit: str
    """What ``value`` counts, so that it reads as one: ``x the floor``, ``ms``, ``%``."""
    target: str = ""
    """``<= 1.25`` or ``>= 25``, in the same unit; empty for what is shown for comparison."""
    note: str = ""
    """What a reader must know besides: the floor in ms, the peer, what bounds it."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if not self.target:
            return None
        comparison, limit = self.target.split()
        return bool(COMPARISONS[comparison](self.value, float(limit)))


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows, and the machine they were measured on, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "python": platform.python_version()}
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> list[Row]:
    """The rows of a file that ``write`` wrote."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def cpu() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def markdown(rows: Sequence[Row]) -> str:
    """Tables for a document, in the order in which their titles first come."""
    parts = []
    for title in dict.fromkeys(row.table for row in rows):
        parts += [
            f"**{title}**",
            "",
            "| work | measured | target | | |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in (row for row in rows if row.table == title):
            verdict = VERDICTS[row.met]
            cells = row.work, f"{row.value:.3g} {row.unit}", row.target, verdict, row.note
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)
