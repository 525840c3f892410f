"""The unit files are what systemd takes, shut in what they start, and fit what the code does."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from byzsgd.cluster import Cluster, Role
from byzsgd.errors import ConfigError
from byzsgd.memory import descriptors
from byzsgd_daemons import cli
from byzsgd_daemons.config import Settings
from byzsgd_daemons.host import NOTIFY_SECONDS

FOLDER = Path(__file__).parents[2] / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))

EXPOSURE_MAX = 15
"""In tenths: systemd calls everything below 5 fine."""

UNENFORCED = {"SocketBindDeny", "SocketBindAllow", "RestrictNetworkInterfaces"}
"""What systemd takes without a word, and does nothing about where it was built as Debian's is."""

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)


@pytest.fixture
def analyze() -> str:
    """The program systemd-analyze."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("NOT TESTED: no systemd-analyze here; apt-get install systemd")
    return found


def settings(unit: Path) -> dict[str, list[str]]:
    """The values of each setting of a unit, in their order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def seconds(unit: Path, name: str) -> int:
    """A setting that is a number of seconds."""
    [value] = settings(unit)[name]
    return int(value.removesuffix("s"))


def test_systemd_knows_every_word_of_the_units(analyze: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing; the programs need not be installed here."""
    there = tmp_path / "bin"
    there.mkdir()
    for program in ("byzsgd", "byzsgd-back-off"):
        (there / program).symlink_to("/bin/true")
    for unit in (*UNITS, FOLDER / "byzsgd.target"):
        text = unit.read_text().replace("/opt/byzsgd", str(tmp_path))
        (tmp_path / unit.name.replace("@", "@x0")).write_text(text)
    files = [str(path) for path in sorted(tmp_path.iterdir()) if path.is_file()]
    assert len(files) == 3
    command = [analyze, "verify", "--recursive-errors=no", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@each_unit
def test_units_shut_their_daemons_in(analyze: str, unit: Path) -> None:
    """`systemd-analyze security` rates the exposure at 1.5 of 10 or below."""
    options = ["--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}"]
    command = [analyze, "security", *options, str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-500:]


@each_unit
def test_no_protection_is_claimed_that_nobody_enforces(unit: Path) -> None:
    """A setting without effect is worse than none."""
    assert not UNENFORCED & settings(unit).keys()


@each_unit
def test_units_start_daemons_with_flags_that_exist(
    unit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ExecStart is a command that byzsgd takes, for the role that the unit is named after."""
    [start] = settings(unit)["ExecStart"]
    _, command, *words = start.split()
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    usage = capsys.readouterr().out

    assert unit.name == f"byzsgd-{command}@.service"
    assert [word for word in words if word.startswith("--") and word not in usage] == []


@each_unit
def test_systemd_waits_longer_than_a_stop_takes(unit: Path) -> None:
    """TimeoutStopSec is above the default of --stop-seconds, so that no stop ends in a kill."""
    stop_seconds = Settings(id="s0", cluster=Path()).stop_seconds

    assert seconds(unit, "TimeoutStopSec") > stop_seconds


@each_unit
def test_the_watchdog_lets_a_busy_machine_be_late(unit: Path) -> None:
    """By many times what passes between two words of a daemon."""
    assert seconds(unit, "WatchdogSec") >= 10 * NOTIFY_SECONDS


@each_unit
def test_wrong_files_are_not_tried_again(unit: Path) -> None:
    """The one status that systemd does not restart is the one of wrong files and words."""
    assert settings(unit)["RestartPreventExitStatus"] == [str(ConfigError.exit_status)]


@each_unit
def test_a_large_cluster_has_file_descriptors_enough(
    unit: Path, cluster: Callable[..., Cluster]
) -> None:
    """LimitNOFILE is above what a node of 32 servers and 300 workers may need."""
    large = cluster(servers=32, workers=300, f_servers=10, f_workers=99)
    role = Role.SERVER if "server" in unit.name else Role.WORKER
    [limit] = settings(unit)["LimitNOFILE"]

    assert int(limit) >= descriptors(large, role)


# What goes with the units


def test_starts_that_follow_one_another_wait_longer_and_longer(tmp_path: Path) -> None:
    """And one after ten minutes of life is the first again."""
    sleep = tmp_path / "bin" / "sleep"
    sleep.parent.mkdir()
    sleep.write_text('#!/bin/sh\necho "$1"\n')
    sleep.chmod(0o755)
    path = f"{sleep.parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "RUNTIME_DIRECTORY": str(tmp_path)}

    def waits() -> int:
        words = ["sh", str(FOLDER / "byzsgd-back-off")]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout.splitlines()[-1])

    assert [waits() for _ in range(9)] == [0, 1, 3, 7, 15, 31, 63, 63, 63]
    starts = tmp_path / "starts"
    before = starts.stat().st_mtime - 11 * 60
    os.utime(starts, (before, before))
    assert [waits(), waits()] == [0, 1]
    starts.write_text("")  # As a full disk leaves it.
    assert waits() == 1


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "run it as root (sudo), or with DESTDIR=FOLDER"),
        ({"PREFIX": "opt/byzsgd"}, "must be a folder's whole path"),
        ({"PREFIX": "/"}, "must be a folder's whole path"),
        ({"PREFIX": "/home/me/byzsgd"}, "the units see no home"),
        ({"SYSTEM_PYTHON": "/usr/bin/no-python", "DESTDIR": "."}, "must be Python 3.11 or newer"),
    ],
)
def test_an_installation_that_cannot_work_says_why(
    tmp_path: Path, variables: dict[str, str], sentence: str
) -> None:
    """Before it writes anything."""
    program = tmp_path / "bin" / "id"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 1000\n")
    program.chmod(0o755)
    if "DESTDIR" in variables:
        variables = {**variables, "DESTDIR": str(tmp_path / "root")}
    done = subprocess.run(
        ["bash", str(FOLDER / "install")],
        env={"PATH": f"{program.parent}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert not (tmp_path / "root").exists()
