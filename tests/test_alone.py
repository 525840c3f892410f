"""``alone.sh``: nothing is left of what tests start on it, whatever ends them."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.rig import PATIENCE_SECONDS
from tests.systemd.booted import wait_until

SCRIPT = Path(__file__).with_name("alone.sh")

LINGER = """
set -e
group=/sys/fs/cgroup/pids
[ -d $group ] || group=/sys/fs/cgroup
mkdir -p $group/$BYZSGD_RUN/deeper "$TMPDIR/mounted"
mount -t tmpfs tmpfs "$TMPDIR/mounted"
setsid sh -c 'echo $$ >"$0/cgroup.procs"; exec sleep 1000' $group/$BYZSGD_RUN/deeper &
echo "$TMPDIR $group/$BYZSGD_RUN"
wait
"""
"""Leaves a process of another session, in a control group, and a mount."""


@pytest.fixture(autouse=True)
def _root() -> None:
    """Skips where nothing can be made that could be left."""
    spaces = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc")
    if os.geteuid() != 0 or subprocess.run([*spaces, "true"], check=False).returncode:
        pytest.skip("NOT TESTED: only root may make namespaces")
    if not os.access("/sys/fs/cgroup", os.W_OK):
        pytest.skip("NOT TESTED: no control groups can be made here")


@contextmanager
def lingering(name: str) -> Iterator[tuple[subprocess.Popen[str], Path, Path]]:
    """A run that would never end, with its folder and its control group."""
    command = [SCRIPT, name, "bash", "-c", LINGER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            folder, group = map(Path, process.stdout.readline().split())
            assert folder.name == group.name
            yield process, folder, group
        finally:
            process.terminate()


def is_empty(group: Path) -> Callable[[], bool]:
    return lambda: not (group / "deeper" / "cgroup.procs").read_text()


@pytest.fixture
def name() -> str:
    """Of no other run."""
    return f"test{os.getpid()}"


def test_a_command_has_a_folder_and_gives_its_status(name: str) -> None:
    """The folder is gone afterwards, and so is what the command has left running."""
    script = 'echo "$TMPDIR"; touch "$TMPDIR/file"; sleep 1000 >/dev/null & exit 3'
    command = [SCRIPT, name, "bash", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )

    assert done.returncode == 3, done.stderr
    assert Path(done.stdout.strip()).name.startswith(f"byzsgd-{name}.")
    assert not Path(done.stdout.strip()).exists()


def test_a_signal_leaves_nothing(name: str) -> None:
    """Neither processes nor groups nor files, once it has ended."""
    with lingering(name) as (process, folder, group):
        wait_until(lambda: not is_empty(group)(), lambda: "nothing runs")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 1
        assert not group.exists()
        assert not folder.exists()


def test_what_a_killed_run_leaves_goes_with_the_next(name: str) -> None:
    """Its processes end with it; the files and groups of one that goes on stay."""
    with lingering(name) as (process, folder, group), lingering(name) as (_, others, its):
        wait_until(lambda: not is_empty(group)(), lambda: "nothing runs")
        process.kill()
        process.wait()
        wait_until(is_empty(group), lambda: "its processes are still there")
        assert folder.is_dir()

        subprocess.run([SCRIPT, name, "true"], timeout=PATIENCE_SECONDS, check=True)
        assert not folder.exists()
        assert not group.exists()
        assert others.is_dir()
        assert its.is_dir()
