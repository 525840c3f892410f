"""Real daemons on loopback: clusters that tests start, watch, kill and restart."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import rig
from tests.rig import PATIENCE_SECONDS


@pytest.fixture
def running(tmp_path: Path) -> Callable[..., Any]:
    """Makes a cluster of a plan, none of whose daemons is started; ends them all afterwards."""
    return lambda **plan: rig.running(tmp_path / "cluster", **plan)


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    errors: str


@pytest.fixture
def byzsgd(tmp_path: Path) -> Callable[..., Ran]:
    """Runs a command line to its end, in an empty folder."""

    def run(*words: str | Path) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "byzsgd_daemons.cli", *map(str, words)],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE_SECONDS,  # A demo takes a third of one on a busy machine.
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def read_json() -> Callable[[Path], Any]:
    return lambda path: json.loads(path.read_text())


@pytest.fixture
def left_running(tmp_path: Path) -> Callable[[], list[str]]:
    """The command lines of processes that were started for this test and still run."""

    def look() -> list[str]:
        found = []
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # It has ended since.
            if "byzsgd_daemons.cli" in words and str(tmp_path) in words:
                found.append(words)
        return found

    return look
