"""How a training under way is shown: how far, how fast, how long still."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from byzsgd_daemons import init
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import Point, Training, free_addresses
from byzsgd_daemons.show import left, progress, screen


def training(folder: Path, steps: int, *points: tuple[int, float]) -> Training:
    plan = init.Plan(task="quadratic", steps=steps)
    cluster = read_cluster(init.create(folder, plan, free_addresses(plan)))
    made = [
        Point(step=step, seconds=seconds, accuracy=0.5, accuracy_worst=0.5, drift=0.0,
              drift_ratio=0.0, loss=None)
        for step, seconds in points
    ]  # fmt: skip
    return Training(cluster=cluster, lying=frozenset(["s4"]), points=made)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ((), ""),
        (((0, 0),), ""),
        (((0, 0), (10, 1)), "0:09 left"),
        (((0, 0), (1, 10)), "16:30 left"),
        (((0, 0), (1, 100)), "2:45:00 left"),
        (((0, 0), (100, 10)), "0:00 left"),
    ],
)
def test_what_is_left_is_told_once_it_is_known(
    points: tuple[tuple[int, float], ...], words: str, tmp_path: Path
) -> None:
    """By the speed so far; minutes and seconds, and hours where there are some."""
    assert left(training(tmp_path, 100, *points)) == words


def test_a_training_without_an_end_has_none_left(tmp_path: Path) -> None:
    """``steps = 0``."""
    endless = training(tmp_path, 0, (0, 0), (10, 1))

    assert left(endless) == ""
    assert progress(endless).endswith("10.0 steps/s")


def test_no_liar_says_how_far_it_is(tmp_path: Path) -> None:
    """Correct servers' own steps count between two evaluations, a liar's never."""
    under_way = training(tmp_path, 100, (0, 0), (10, 1))
    under_way.found = {"s0": {"step": 60}, "s4": {"step": 99}, "s1": {"error": "no answer"}}

    assert under_way.reached() == 60
    assert left(under_way) == "0:04 left"


def test_what_goes_wrong_is_told_once(tmp_path: Path) -> None:
    """A daemon that ended, points and checkpoints that the disk does not take."""
    out = io.StringIO()
    under_way = training(tmp_path, 100, (0, 0))
    under_way.unwritten = "run/points.csv: not written, training goes on: No space left on device"
    under_way.ended = {"w1": "w1 has ended (exit 1): a bug"}
    with screen("title", Console(file=out)) as view:
        for step in (100, 200):
            saved = {"step": 50, "error": f"step-{step}: cannot be written: the disk is full"}
            under_way.found = {"s0": {"checkpoint": saved}, "s1": {"checkpoint": {"error": None}}}
            under_way.found |= {"s4": {"checkpoint": saved}}  # A liar.
            view.refresh(under_way)

    assert out.getvalue().splitlines() == [
        "title",
        *under_way.ended.values(),
        under_way.unwritten,
        "s0: no checkpoint is saved (step-100: cannot be written: the disk is full)",
    ]


def test_a_terminal_is_shown_a_bar(tmp_path: Path) -> None:
    """With how much is done and how long the rest takes; of an endless training there is none."""
    for steps, shown in ((100, True), (0, False)):
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, width=120, color_system=None)
        with screen("title", console) as view:
            view.evaluated(training(tmp_path / str(steps), steps, (0, 0), (10, 1)))
        text = out.getvalue()
        assert ("━" in text and "10%  0:09 left" in text) == shown
