"""Verdicts, tables, plots and documents, from records that were made up."""

import csv
import html.parser
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from byzsgd.errors import ConfigError
from byzsgd_daemons.evaluate import plots, report
from byzsgd_daemons.evaluate.cells import Cell, Found, judge, verdicts
from byzsgd_daemons.evaluate.margins import Verdict, margin, verdict
from byzsgd_daemons.evaluate.plan import (
    GROUPS,
    VANILLA,
    Experiment,
    Scale,
    experiments,
    runs,
)
from byzsgd_daemons.evaluate.report import sections
from byzsgd_daemons.evaluate.results import Outcome, Record, State
from byzsgd_daemons.local import Point

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"

MadeUp = Callable[[Experiment], Outcome]


def trained(accuracy: float, *, steps: int = 300, seconds: float = 10.0) -> Outcome:
    """A training that rises to an accuracy by its middle, and stays there."""
    points = tuple(
        Point(
            step=step,
            seconds=seconds * step / steps,
            accuracy=accuracy * min(1, 2 * step / steps),
            accuracy_worst=accuracy * min(1, 2 * step / steps),
            drift=0.5,
            drift_ratio=0.05,
            loss=0.1,
        )
        for step in range(0, steps + 1, steps // 20)
    )
    return Outcome(
        state=State.DONE,
        points=points,
        drift=tuple((step, 0.5 if step % 10 else 0.1) for step in range(1, steps + 1)),
        messages={"model": 35 * steps, "gradient": 35 * steps},
        bytes={"model": 3500 * steps, "gradient": 3500 * steps},
        parameters=4810,
        wall_seconds=12.0,
    )


def usual(each: Experiment) -> Outcome:
    """Vanilla has 98 % if nobody lies, and everybody else 97 %."""
    calm = each.system == VANILLA and not any(each.under())
    return trained(0.98 if calm else 0.97, steps=each.run.steps())


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., tuple[list[Experiment], Record]]:
    """Makes a record of all experiments of some groups."""

    def make(outcome_of: MadeUp = usual, groups: tuple[str, ...] = (), **scale: int | bool):
        chosen = experiments(Scale(**scale), groups)
        with Record(tmp_path / "out") as record:
            for each in runs(chosen).values():
                record.outcomes[each.run.key] = outcome_of(each)
                record.runs[each.run.key] = each.run
        return chosen, record

    return make


# Verdicts


@pytest.mark.parametrize(
    ("attack", "server_attack", "points"),
    [
        ("", "", 1.0),
        ("sign-flip", "", 1.5),
        ("alie z 1", "", 1.5),
        ("alie-adaptive", "", 2.5),
        ("optimal", "", 2.5),
        ("", "push", 1.0),
        ("sign-flip", "push", 1.5),
        ("alie-adaptive", "push", 1.5),
        ("optimal", "keep", 3.5),
    ],
)
def test_margins_of_the_calibration(attack: str, server_attack: str, points: float) -> None:
    """Digits, five servers and seven workers: what each attack may cost."""
    assert margin("digits", attack, server_attack) == points


def test_what_was_not_calibrated_has_no_verdict() -> None:
    """Nor has what did not run."""
    assert margin("fashion-mnist", "optimal", "") is None
    assert verdict(50.0, None) is Verdict.UNKNOWN
    assert verdict(float("nan"), 1.5) is Verdict.UNKNOWN
    assert verdict(1.5, 1.5) is Verdict.WITHIN
    assert verdict(1.6, 1.5) is Verdict.BEYOND


def cells(made_up, outcome_of: MadeUp) -> dict[tuple[str, str], Cell]:
    chosen, record = made_up(outcome_of, ("matrix",))
    found = Found(chosen, record)
    return {
        cell.experiment.under(): cell
        for cell in found.cells("matrix")
        if cell.experiment.system == "asynchronous"
    } | {("vanilla", ""): found.cell("matrix", VANILLA)}


def test_a_training_that_stood_still_is_beyond_every_margin(made_up) -> None:
    """It has no accuracy to compare, and is no success."""

    def stalls(each: Experiment) -> Outcome:
        sentence = "diverged, and stands still at step 48: s0 waits"
        stalled = replace(trained(0.97), state=State.STALLED, sentence=sentence)
        return stalled if each.under() == ("sign-flip", "push") else usual(each)

    found = cells(made_up, stalls)
    judged = judge(found["sign-flip", "push"], found["vanilla", ""])

    assert judged.verdict is Verdict.BEYOND
    assert judged.cell.text() == "diverged at 300"
    assert judge(found["sign-flip", "keep"], found["vanilla", ""]).verdict is Verdict.WITHIN


def test_a_training_that_failed_says_nothing_of_an_attack(made_up) -> None:
    """Neither within nor beyond, whatever the other seeds say."""

    def fails(each: Experiment) -> Outcome:
        if each.under() != ("sign-flip", "push"):
            return usual(each)
        state = State.FAILED if each.run.plan.seed == 2 else State.STALLED
        return replace(trained(0.97), state=state, sentence="")

    chosen, record = made_up(fails, ("matrix",), seeds=2)
    found = Found(chosen, record)
    failed = found.cell("matrix", "asynchronous", ("sign-flip", "push"))

    assert failed is not None
    assert judge(failed, found.cell("matrix", VANILLA)).verdict is Verdict.UNKNOWN


def test_no_correct_server_may_suffer_from_lying_servers_alone(made_up) -> None:
    """Their margin holds for the worst correct server, too."""

    def one_suffers(each: Experiment) -> Outcome:
        fine = usual(each)
        worse = tuple(replace(point, accuracy_worst=0.9) for point in fine.points)
        return fine if each.system == VANILLA else replace(fine, points=worse)

    found = cells(made_up, one_suffers)

    assert judge(found["", "push"], found["vanilla", ""]).verdict is Verdict.BEYOND
    assert judge(found["sign-flip", ""], found["vanilla", ""]).verdict is Verdict.WITHIN


def test_verdicts_are_one_for_each_attack_of_each_variant(made_up) -> None:
    """What stands in two groups is counted once."""
    chosen, record = made_up(groups=("matrix", "workers", "servers"))
    judged = list(verdicts(Found(chosen, record)))
    keys = [each.cell.experiment.run.key for each in judged]

    assert len(set(keys)) == len(keys)
    assert set(keys) == {each.run.key for each in chosen if each.system != VANILLA}


# Tables


def test_every_group_has_a_section_with_tables(made_up, monkeypatch) -> None:
    """Each table has rows, all as long as its header."""
    monkeypatch.setattr(plots, "draw", lambda panels: None)
    parts = sections(Found(*made_up()))

    assert [part.group for part in parts] == list(GROUPS)
    for part in parts:
        assert part.tables
        for table in part.tables:
            assert table.rows, table.caption
            assert {len(row) for row in table.rows} == {len(table.header)}, table.caption


def test_a_group_without_results_has_no_section(made_up) -> None:
    """And one with a few has them, with empty places."""
    chosen, record = made_up(groups=("matrix",))
    everything = experiments(Scale())
    only = chosen[-1].run.key
    record.outcomes = {only: record.outcomes[only]}

    [part] = sections(Found(everything, record))

    assert part.group == "matrix"


def table(made_up, group: str, number: int, outcome_of: MadeUp = usual, **scale: int):
    chosen, record = made_up(outcome_of, (group,), **scale)
    return sections(Found(chosen, record))[0].tables[number]


def test_the_matrix_shows_points_below_vanilla(made_up) -> None:
    """Cells beyond their margin in bold, and listed once more."""

    def one_beyond(each: Experiment) -> Outcome:
        return trained(0.9) if each.under() == ("sign-flip", "push") else usual(each)

    found = table(made_up, "matrix", 1, one_beyond)
    rows = {row[0]: dict(zip(found.header, row, strict=True)) for row in found.rows}

    assert rows["sign-flip"]["push"] == "**8.0**"
    assert rows["nobody"]["nobody"] == "1.0"
    summary = table(made_up, "matrix", 0, one_beyond)
    assert [row[3] for row in summary.rows] == ["1", "1"]
    listed = table(made_up, "matrix", -1, one_beyond)
    assert [row[:3] for row in listed.rows] == [
        ["asynchronous", "sign-flip + push", "90.0"],
        ["synchronous", "sign-flip + push", "90.0"],
    ]


def test_overheads_are_against_vanilla(made_up) -> None:
    """Steps to 90 % of its accuracy, and seconds a step."""

    def slower(each: Experiment) -> Outcome:
        steps = each.run.steps()
        if each.system == VANILLA:
            return trained(0.9, steps=steps)
        # Half the accuracy of its own end at each step: it gets there late.
        return trained(0.9 if each.under()[0] else 0.81, steps=steps, seconds=25.0)

    convergence = {tuple(row[:2]): row[2:4] for row in table(made_up, "overhead", 0, slower).rows}
    throughput = table(made_up, "overhead", 1, slower)

    assert convergence["nobody lies", "vanilla"] == ["135", "+0"]
    assert convergence["nobody lies", "asynchronous"] == ["150", "+11"]
    assert [row[0] for row in throughput.rows] == ["digits", "mnist", "fashion-mnist"]
    assert {tuple(row[3:]) for row in throughput.rows} == {("6.0", "+150", "6.0", "+150")}


def test_messages_are_per_step_beside_the_formula(made_up) -> None:
    """n_ps n_w models and gradients, and n_ps (n_ps - 1) / T gathers."""
    found = table(made_up, "messages", 0)
    rows = {tuple(row[:2]): row for row in found.rows}

    assert rows["asynchronous", "T = 1"][2:4] == ["35.0", "35.0"]
    assert rows["asynchronous", "T = 1"][-1] == "90.0"
    assert rows["asynchronous", "T = 5"][-1] == "74.0"
    assert rows["vanilla", ""][-1] == "14.0"


def test_gathers_contract_drift(made_up) -> None:
    """After a gather over before, from the drift of every step."""
    found = table(made_up, "drift", 0)
    rows = {tuple(row[1:3]): row for row in found.rows}

    assert rows["asynchronous", "T = 10"][5] == "0.20"
    assert rows["asynchronous", "T = 1"][5] == ""


def test_seeds_are_averaged(made_up) -> None:
    """A cell is the mean of its runs."""

    def by_seed(each: Experiment) -> Outcome:
        return trained(0.98 if each.run.plan.seed == 1 else 0.96)

    found = table(made_up, "workers", 0, by_seed, seeds=2)

    assert {row[1] for row in found.rows} == {"97.0"}


def test_means_are_over_all_seeds_or_none(made_up) -> None:
    """A cell that lacks a seed is left out, and the text counts it."""
    chosen, record = made_up(groups=("servers",), seeds=2)
    lacking = next(each for each in chosen if each.under() == ("", "push"))
    del record.outcomes[lacking.run.key]

    [part] = sections(Found(chosen, record))

    assert part.text[0] == (
        "digits; 48 runs in real daemons; means over 2 seeds; "
        "1 more are left out until their other seeds are there."
    )
    pushed = {row[0]: row for row in part.tables[0].rows}["push"]
    assert pushed[1:5] == ["", "", "97.0", "97.0"]


def test_virtual_time_is_no_throughput(made_up, tmp_path: Path, monkeypatch) -> None:
    """In memory there are neither steps a second nor a plot against time."""
    drew = []
    monkeypatch.setattr(plots, "draw", drew.append)
    chosen, record = made_up(groups=("headline",), in_memory=True)
    [part] = sections(Found(chosen, record))
    report.write_csv(chosen, record, Found(chosen, record), tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))

    assert part.tables[0].header[4] == "steps/s"
    assert {row[4] for row in part.tables[0].rows} == {""}
    assert {panel.x for panels in drew for panel in panels} == {"step"}
    assert {line["steps_per_second"] for line in lines} == {""}


def test_what_did_not_get_to_its_last_step_has_no_messages_per_step(
    made_up, tmp_path: Path
) -> None:
    """How many steps its messages are of is not known."""

    def stalls(each: Experiment) -> Outcome:
        return usual(each) if each.system == VANILLA else replace(usual(each), state=State.STALLED)

    chosen, record = made_up(stalls, ("messages",))
    found = Found(chosen, record)
    report.write_csv(chosen, record, found, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        per_step = {line["system"]: line["messages_per_step"] for line in csv.DictReader(file)}
    rows = {row[0]: row[2:-1] for row in sections(found)[0].tables[0].rows}

    assert per_step == {"vanilla": "70.00", "asynchronous": "", "synchronous": ""}
    assert rows["vanilla"] == ["35.0", "35.0", "0.0", "0.0", "70.0", "0.01", "1.0"]
    assert rows["asynchronous"] == [""] * 7


# Files


class Sources(html.parser.HTMLParser):
    """Collects what a page would load, and the number of its tables."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tables = 0

    def handle_starttag(self, tag, attrs) -> None:
        self.tables += tag == "table"
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_the_report_is_one_page_that_loads_nothing(made_up, tmp_path: Path) -> None:
    """Plots are in it; tables as in the Markdown, whose plots lie beside it."""
    chosen, record = made_up()
    written = report.write(chosen, record, tmp_path, command="byzsgd evaluate")
    page = Sources()
    page.feed((tmp_path / "report.html").read_text())
    text = (tmp_path / "report.md").read_text()

    assert {path.name for path in written} >= {"report.html", "report.md", "results.csv"}
    assert all(path.exists() for path in written)
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert page.tables == text.count("\n| ---")
    assert all((tmp_path / name).exists() for name in re.findall(r"\]\((\S+\.svg)\)", text))
    assert "`byzsgd evaluate`" in text


def test_the_csv_has_a_line_for_every_run_of_every_group(made_up, tmp_path: Path) -> None:
    """With what ran, how it ended and what the margin says."""
    chosen, record = made_up()
    report.write(chosen, record, tmp_path, command="byzsgd evaluate")
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))

    assert len(lines) == len(chosen)
    pair = next(line for line in lines if line["worker_attack"] == "optimal"
                and line["server_attack"] == "push")  # fmt: skip
    assert (pair["gap_points"], pair["margin_points"]) == ("1.000", "3.5")
    assert pair["worker_numbers"] == "reach=2 tries=8 quorums=3 sample=10000"
    assert (pair["verdict"], pair["state"], pair["accuracy"]) == ("within", "done", "0.97000")


def test_equal_records_make_equal_reports(made_up, tmp_path: Path) -> None:
    """To the byte: a difference between two reports is one of results."""
    chosen, record = made_up(groups=("headline", "servers"))
    pages = []
    for name in ("one", "other"):
        report.write(chosen, record, tmp_path / name, command="byzsgd evaluate")
        pages.append((tmp_path / name / "report.html").read_bytes())

    assert pages[0] == pages[1]


def test_without_matplotlib_there_are_tables_alone(made_up, tmp_path: Path, monkeypatch) -> None:
    """It belongs to the extra `demo`."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    chosen, record = made_up(groups=("drift", "headline", "sweeps"))

    report.write(chosen, record, tmp_path, command="byzsgd evaluate")

    page = Sources()
    page.feed((tmp_path / "report.html").read_text())
    assert page.sources == []
    assert page.tables == 3


def test_a_document_is_written_between_its_marks(made_up, tmp_path: Path) -> None:
    """What stands around them stays, and so does a group that is not on record."""
    document = tmp_path / "page.md"
    document.write_text(
        "Before.\n<!-- evaluation: servers -->\nold\n<!-- end of evaluation -->\nBetween.\n"
        "<!-- evaluation: drift -->\nkept\n<!-- end of evaluation -->\nAfter.\n"
    )
    chosen, record = made_up(groups=("servers",))

    assert report.into(document, chosen, record) == ["servers"]

    text = document.read_text()
    assert text.startswith("Before.\n<!-- evaluation: servers -->\ndigits; ")
    assert "old" not in text
    assert "| push | 97.0 |" in text
    assert text.endswith(
        "<!-- end of evaluation -->\nBetween.\n<!-- evaluation: drift -->\nkept\n"
        "<!-- end of evaluation -->\nAfter.\n"
    )
    assert report.into(document, chosen, record) == ["servers"]
    assert document.read_text() == text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nothing", "no line such as"),
        ("<!-- evaluation: servers -->\n", "no <!-- end of evaluation --> after"),
    ],
)
def test_a_document_without_marks_is_refused(made_up, tmp_path: Path, text, what) -> None:
    """And left as it is."""
    document = tmp_path / "page.md"
    document.write_text(text)
    with pytest.raises(ConfigError, match=what):
        report.into(document, *made_up(groups=("servers",)))
    assert document.read_text() == text


def test_the_projects_own_document_has_a_place_for_every_group() -> None:
    """One for each, in any order."""
    marks = [mark[1] for mark in report.BEGIN.finditer(DOCUMENT.read_text())]

    assert sorted(marks) == sorted(GROUPS)
