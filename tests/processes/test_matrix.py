"""A few cells of the evaluation's matrix in real daemons, by the command that runs all of it."""

import csv
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from tests.rig import PATIENCE_SECONDS

from byzsgd_daemons.evaluate import daemons
from byzsgd_daemons.evaluate.plan import VARIANTS, Scale, experiments
from byzsgd_daemons.evaluate.results import State
from byzsgd_daemons.nursery import Nursery

pytestmark = pytest.mark.processes

CELLS = [("sign-flip", "equivocate"), ("optimal", "push")]
"""A loud pair of attacks, and the worst that we know."""

SMALL = Scale(task="quadratic", steps=40)
"""A training of seconds."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve daemons that begin on a busy machine do not stand still."""
    monkeypatch.setattr(daemons, "STALL_SECONDS", PATIENCE_SECONDS)


def test_cells_of_the_matrix() -> None:
    """Both variants get to the last step under attack, close to what they reach without."""
    planned = {
        (each.system, each.under()): each.run for each in experiments(Scale(steps=150), ["matrix"])
    }
    with Nursery() as nursery:
        for variant in VARIANTS:
            for pair in CELLS:
                seen: list[int] = []
                outcome = daemons.train(planned[variant, pair], seen.append, nursery=nursery)

                assert outcome.state is State.DONE, outcome.sentence
                assert [point.step for point in outcome.points] == seen
                assert seen[-1] == 150
                assert outcome.accuracy() >= 0.9, "vanilla has 0.97 in as many steps"
                assert outcome.messages["gradient"] >= 4 * 5 * 149, "of four correct servers"
                assert outcome.parameters == 4810


def test_a_training_without_its_liars_has_failed() -> None:
    """They are killed at its first step: the others go on, and it is no training under attack."""
    run = next(each.run for each in experiments(SMALL, ["headline"]) if all(each.under()))
    with Nursery() as nursery:

        def kill(step: int) -> None:
            for liar in adversaries(nursery) if step == 0 else ():
                os.kill(liar, signal.SIGKILL)

        outcome = daemons.train(run, kill, nursery=nursery)

    assert outcome.state is State.FAILED
    assert outcome.sentence.startswith("adversary has ended (SIGKILL): ")


def adversaries(nursery: Nursery) -> list[int]:
    """The processes of liars that a nursery has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if parent == nursery.pid and b"adversary" in words:
                found.append(int(entry.name))
    return found


def test_the_command_runs_in_daemons_and_goes_on(byzsgd, tmp_path: Path, left_running) -> None:
    """Four clusters, one after the other; the second time there is nothing to run."""
    words = ("evaluate", "--only", "messages", "--task", "quadratic", "--steps", "20")

    ran = byzsgd(*words, "--out", tmp_path / "out")

    assert ran.status == 0, ran.errors
    assert "4/4 messages: synchronous, T = 5, nobody lies" in ran.out
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = {(row["system"], row["setting"]): row for row in csv.DictReader(file)}
    assert {row["state"] for row in rows.values()} == {"done"}
    messages = {key: float(row["messages_per_step"]) for key, row in rows.items()}
    # 14 and 90 by the formula; of 90 those are left out that a quorum need not wait for.
    assert 14 <= messages["vanilla", ""] < 75 <= messages["asynchronous", "T = 1"] < 130
    assert messages["asynchronous", "T = 5"] < messages["asynchronous", "T = 1"]
    again = byzsgd(*words, "--out", tmp_path / "out")
    assert "nothing to run" in again.out
    assert not left_running()
