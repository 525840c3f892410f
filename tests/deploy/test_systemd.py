"""The unit files are what systemd takes, and shut in what they start."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from byzsgd_daemons import cli

UNITS = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))

EXPOSURE_MAX = 25
"""In tenths: systemd calls everything below 5 fine."""

pytestmark = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)


@pytest.fixture
def analyze() -> str:
    """The program systemd-analyze."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("NOT TESTED: no systemd-analyze here; apt-get install systemd")
    return found


def start(unit: Path) -> list[str]:
    """The words of a unit's ExecStart."""
    lines = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    assert len(lines) == 1
    return lines[0].removeprefix("ExecStart=").split()


def test_systemd_knows_every_word_of_a_unit(analyze: str, unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing; the program need not be installed here."""
    instance = tmp_path / unit.name.replace("@", "@x0")
    instance.write_text(unit.read_text().replace(start(unit)[0], shutil.which("true") or ""))
    command = [analyze, "verify", "--recursive-errors=no", str(instance)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_units_shut_their_daemons_in(analyze: str, unit: Path) -> None:
    """`systemd-analyze security` rates the exposure at 2.5 of 10 or below."""
    options = ["--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}"]
    command = [analyze, "security", *options, str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-500:]


def test_units_start_daemons_with_flags_that_exist(
    unit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ExecStart is a command that byzsgd takes, for the role that the unit is named after."""
    _, command, *words = start(unit)
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    usage = capsys.readouterr().out

    assert unit.name == f"byzsgd-{command}@.service"
    assert [word for word in words if word.startswith("--") and word not in usage] == []


def test_systemd_waits_longer_than_a_stop_takes(unit: Path) -> None:
    """TimeoutStopSec is above the default of --stop-seconds, so that no stop ends in a kill."""
    seconds = re.search(r"^TimeoutStopSec=(\d+)s$", unit.read_text(), re.MULTILINE)

    assert seconds
    assert int(seconds[1]) > 10
