"""Writes what an evaluation found: HTML, Markdown, CSV, and the tables of a document."""

import base64
import csv
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from math import nan
from pathlib import Path

from byzsgd import __version__
from byzsgd.errors import ConfigError
from byzsgd_daemons.evaluate import accuracy, cost
from byzsgd_daemons.evaluate.cells import Found, Judged, judge
from byzsgd_daemons.evaluate.plan import VANILLA, Experiment
from byzsgd_daemons.evaluate.results import Outcome, Record, State
from byzsgd_daemons.evaluate.tables import Section, Table, number

TITLE = "Evaluation of byzsgd"

BEGIN = re.compile(r"<!-- evaluation: ([a-z]+) -->\n")
END = "<!-- end of evaluation -->"
"""Between these lines a document holds what is written anew."""

STYLE = """\
body { font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; }
caption { text-align: left; padding: .3em 0; }
th, td { border: 1px solid #999; padding: .2em .5em; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { background: #eee; }
td strong { background: #ddd; padding: 0 .2em; }
figure { margin: 1em 0; }
img { max-width: 100%; }
"""


SECTIONS = (
    *(accuracy.headline, accuracy.matrix, accuracy.workers, accuracy.servers),
    *(cost.sweeps, cost.drift, cost.overhead, cost.messages, accuracy.baselines),
)
"""What makes the section of each group."""


def sections(found: Found) -> list[Section]:
    """What there is to say of every group that has outcomes."""
    there = found.groups()
    return [part for make in SECTIONS if (part := make(found)).group in there]


def write(
    experiments: Sequence[Experiment], record: Record, folder: Path, *, command: str
) -> list[Path]:
    """Write the whole report into a folder, and return its files.

    Args:
        experiments: What belongs into it.
        record: What there is.
        folder: Where it goes.
        command: The words that made it.

    Raises:
        ConfigError: If there is nothing to report.
        OSError: If a file cannot be written.
    """
    found = Found(experiments, record)
    parts = sections(found)
    if not parts:
        raise ConfigError(f"{record.path}: holds nothing of what was asked for; run it first")
    folder.mkdir(parents=True, exist_ok=True)
    head = f"Made by `{command}`, byzsgd {__version__}."
    written = [folder / "report.html", folder / "report.md", folder / "results.csv"]
    written[0].write_text(as_html(parts, head))
    text = [f"# {TITLE}", head]
    for part in parts:
        figures = _write_figures(part, folder, "")
        text += [f"## {part.title}", as_markdown(part, figures)]
        written += figures
    written[1].write_text("\n\n".join(text) + "\n")
    write_csv(experiments, record, found, written[2])
    written.append(folder / "points.csv")
    write_points(experiments, record, written[-1])
    return written


def into(document: Path, experiments: Sequence[Experiment], record: Record) -> list[str]:
    """Write tables and plots into a document, between its marks; return the groups written.

    A group of which nothing is on record keeps what the document says of it.

    Raises:
        ConfigError: If the document cannot be read, or if it has no such marks.
    """
    try:
        text = document.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{document}: cannot be read: {error}") from None
    parts = {part.group: part for part in sections(Found(experiments, record))}
    pieces, written, place = [], [], 0
    for mark in BEGIN.finditer(text):
        end = text.find(END, mark.end())
        if end < 0:
            raise ConfigError(f"{document}: no {END} after {mark[0].strip()}")
        if part := parts.get(mark[1]):
            figures = _write_figures(part, document.parent, f"{document.stem}-")
            pieces += [text[place : mark.end()], as_markdown(part, figures), "\n"]
            written.append(mark[1])
            place = end
    if not BEGIN.search(text):
        raise ConfigError(f"{document}: no line such as <!-- evaluation: matrix -->")
    document.write_text("".join(pieces) + text[place:])
    return written


def _write_figures(part: Section, folder: Path, prefix: str) -> list[Path]:
    written = []
    for name, svg in part.figures.items():
        written.append(folder / f"{prefix}{name}.svg")
        written[-1].write_text(svg)
    return written


def as_markdown(part: Section, figures: Sequence[Path]) -> str:
    """A section without its title; its figures lie beside the document."""
    blocks = list(part.text)
    blocks += [f"![{figure.stem}]({figure.name})" for figure in figures]
    for table in part.tables:
        blocks += [table.caption, _markdown_table(table)]
    return "\n\n".join(blocks)


def _markdown_table(table: Table) -> str:
    lines = [_line(table.header), _line(["---"] * len(table.header))]
    return "\n".join([*lines, *map(_line, table.rows)])


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def as_html(parts: Sequence[Section], head: str) -> str:
    """One page that needs no other file."""
    body = [f"<h1>{TITLE}</h1>", f"<p>{_inline(head)}</p>"]
    for part in parts:
        body.append(f"<h2>{_inline(part.title)}</h2>")
        body += [f"<p>{_inline(text)}</p>" for text in part.text]
        for name, svg in part.figures.items():
            data = base64.b64encode(svg.encode()).decode()
            source = f"data:image/svg+xml;base64,{data}"
            body.append(f'<figure><img alt="{html.escape(name)}" src="{source}"></figure>')
        body += [_html_table(table) for table in part.tables]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{TITLE}</title>'
        f"\n<style>\n{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    lines = ["<table>", f"<caption>{_inline(table.caption)}</caption>"]
    lines.append("<tr>" + "".join(f"<th>{_inline(word)}</th>" for word in table.header) + "</tr>")
    lines += [
        "<tr>" + "".join(f"<td>{_inline(word)}</td>" for word in row) + "</tr>"
        for row in table.rows
    ]
    return "\n".join([*lines, "</table>"])


def _inline(text: str) -> str:
    """Markdown's bold and code as HTML; all else as it stands."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def write_csv(experiments: Sequence[Experiment], record: Record, found: Found, path: Path) -> None:
    """Write a line for every run of every group that is on record."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for each in experiments:
            outcome = record.outcomes.get(each.run.key)
            if outcome is not None:
                writer.writerow(_row(each, outcome, found))


_COLUMNS = (
    *("group", "system", "setting", "worker_attack", "worker_numbers"),
    *("server_attack", "server_numbers", "task", "seed", "in_memory"),
    *("state", "accuracy", "accuracy_worst", "gap_points", "margin_points", "verdict"),
    *("drift_max", "steps", "last_step", "steps_per_second", "wall_seconds"),
    *("messages_per_step", "bytes_per_step", "pulls", "sentence", "key"),
)


def _row(each: Experiment, outcome: Outcome, found: Found) -> dict[str, object]:
    judged = _judged(each, found)
    worker, server = each.under()
    lies = each.run.drill.record()
    steps = each.run.steps()
    # Who did not get to the last step has made fewer than these.
    made = steps if outcome.state is State.DONE else nan
    speed = nan if each.run.in_memory else outcome.steps_per_second()
    return {
        "group": each.group,
        "system": each.system,
        "setting": each.setting,
        "worker_attack": worker,
        "worker_numbers": _numbers(lies["attack_options"]),
        "server_attack": server,
        "server_numbers": _numbers(lies["server_attack_options"]),
        "task": each.run.plan.task,
        "seed": each.run.plan.seed,
        "in_memory": each.run.in_memory,
        "state": outcome.state.value,
        "accuracy": number(outcome.accuracy(), ".5f"),
        "accuracy_worst": number(outcome.accuracy_worst(), ".5f"),
        "gap_points": number(judged.gap, ".3f") if judged else "",
        "margin_points": judged.margin if judged else "",
        "verdict": judged.verdict.value if judged else "",
        "drift_max": f"{outcome.drift_max():.6g}",
        "steps": steps,
        "last_step": outcome.points[-1].step if outcome.points else "",
        "steps_per_second": number(speed, ".3f"),
        "wall_seconds": f"{outcome.wall_seconds:.2f}",
        "messages_per_step": number(sum(outcome.messages.values()) / made, ".2f"),
        "bytes_per_step": number(sum(outcome.bytes.values()) / made, ".0f"),
        "pulls": outcome.pulls,
        "sentence": outcome.sentence,
        "key": each.run.key,
    }


def _numbers(options: Mapping[str, float]) -> str:
    """Every number of an attack, given or not, as one would write them on a command line."""
    return " ".join(f"{name}={value:g}" for name, value in options.items())


def _judged(each: Experiment, found: Found) -> Judged | None:
    if each.group not in ("matrix", "workers", "servers"):
        return None
    cell = found.cell(each.group, each.system, each.under(), each.setting)
    return judge(cell, found.cell(each.group, VANILLA)) if cell else None


def write_points(experiments: Sequence[Experiment], record: Record, path: Path) -> None:
    """Write a line for every evaluation of every run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["key", "step", "seconds", "accuracy", "accuracy_worst", "drift", "drift_ratio", "loss"]
        )
        for key in dict.fromkeys(each.run.key for each in experiments):
            writer.writerows(_points(key, record.outcomes.get(key)))


def _points(key: str, outcome: Outcome | None) -> Iterator[list[object]]:
    for p in outcome.points if outcome else ():
        yield [
            *(key, p.step, f"{p.seconds:.3f}", f"{p.accuracy:.5f}", f"{p.accuracy_worst:.5f}"),
            *(f"{p.drift:.6g}", f"{p.drift_ratio:.6g}", "" if p.loss is None else f"{p.loss:.6g}"),
        ]
