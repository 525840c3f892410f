"""A local training that is stopped and goes on, as a user does it."""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file
from tests.rig import attended

from byzsgd_daemons.folder import read_points

pytestmark = pytest.mark.processes

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_batchnorm.py"

WORDS = ("local", "--task", f"{EXAMPLE}:digits", "--learning-rate", "0.1", "--out", "run")
LIES = ("--attack", "sign-flip", "--server-attack", "equivocate")
MORE = 100
"""Steps after the stop."""


def test_a_stopped_training_goes_on_where_it_was(byzsgd, tmp_path: Path, left_running) -> None:
    """Ctrl-C, and on to a last step: what was learned is not learned again, averages and all."""
    run = tmp_path / "run"
    out = stopped(tmp_path, *WORDS, "--steps", "0", *LIES)
    assert "stopped; the same words go on from run" in out
    assert not left_running()
    before = read_points(run / "points.csv")[""]
    assert (run / "model.safetensors").is_file(), "of the last point"

    last = before[-1].step + MORE
    file = run / "cluster.toml"
    file.write_text(file.read_text().replace("steps = 0", f"steps = {last}", 1))
    ran = byzsgd("local", "--out", "run", *LIES)

    assert ran.status == 0, ran.errors
    assert "resumes from the checkpoint of step" in (run / "logs" / "s0.log").read_text()
    after = read_points(run / "points.csv")[""]
    # Servers are stopped one after the other, and may agree on the step before the furthest one's.
    kept = len(before) - 1
    assert after[:kept] == before[:kept], "what was saved is not made again"
    steps, seconds = [point.step for point in after], [point.seconds for point in after]
    assert steps == sorted(set(steps))
    assert seconds == sorted(seconds)
    assert steps[-1] == last
    assert after[-1].accuracy > 0.9
    state = load_file(run / "model.safetensors")
    module_of(EXAMPLE).network(8).load_state_dict(state, strict=True)
    assert state["1.running_mean"].any(), "averages have left with the model"

    other = byzsgd(*WORDS, "--steps", "0")
    assert other.status == 2
    assert "says something else of steps" in other.errors


def stopped(folder: Path, *words: str) -> str:
    """What a command says that is stopped by Ctrl-C once it has evaluated a second model."""
    command = [sys.executable, "-m", "byzsgd_daemons.cli", *words]
    with attended(command, cwd=folder, env=os.environ | {"TMPDIR": str(folder)}) as process:
        assert process.stdout is not None
        said, asked = "", False
        for line in process.stdout:
            said += line
            if line.startswith("step ") and not line.startswith("step 0 ") and not asked:
                process.send_signal(signal.SIGINT)
                asked = True
    assert process.returncode == 1, said
    return said


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("resumed_task", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
