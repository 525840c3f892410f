"""A local training that is stopped and goes on, as a user does it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.rig import PATIENCE_SECONDS

from byzsgd.tasks.digits import network
from byzsgd_daemons.folder import read_points

pytestmark = pytest.mark.processes

WORDS = ("local", "--task", "digits", "--steps", "200", "--out", "run")
LIES = ("--attack", "sign-flip", "--server-attack", "equivocate")


def test_a_stopped_training_goes_on_where_it_was(byzsgd, tmp_path: Path, left_running) -> None:
    """Ctrl-C, then the same words: no step is lost, one line of points, one model at the end."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "byzsgd_daemons.cli", *WORDS, *LIES]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        _wait_for_a_step(run / "points.csv", 24, first)
        first.send_signal(signal.SIGINT)
        out, errors = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode == 1, out + errors
    assert "stopped; the same words go on from run" in errors
    assert not left_running()
    before = read_points(run / "points.csv")[""]
    assert before[-1].step < 200, "it was stopped before its end"
    assert (run / "model.safetensors").is_file(), "of the last point"

    ran = byzsgd(*WORDS, *LIES)

    assert ran.status == 0, ran.errors
    after = read_points(run / "points.csv")[""]
    steps = [point.step for point in after]
    assert steps == sorted(set(steps))
    assert steps[-1] == 200
    # Servers are stopped one after the other, and may agree on the step before the furthest one's.
    kept = len(before) - 1
    assert after[:kept] == before[:kept], "what was saved is not made again"
    seconds = [point.seconds for point in after]
    assert seconds == sorted(seconds)
    assert after[-1].accuracy > 0.9
    network().load_state_dict(load_file(run / "model.safetensors"), strict=True)
    assert "resumes from the checkpoint of step" in (run / "logs" / "s0.log").read_text()

    again = byzsgd(*WORDS, *LIES)
    assert again.status == 0, again.errors
    assert [p.step for p in read_points(run / "points.csv")[""]] == steps, "there is nothing to do"
    other = byzsgd(*WORDS[:-3], "300", "--out", "run")
    assert other.status == 2
    assert "says something else of steps" in other.errors


def _wait_for_a_step(path: Path, step: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (path.exists() and (found := read_points(path)) and found[""][-1].step >= step):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
