"""Nothing is left of a machine, whatever ended the process that booted it."""

import subprocess

import pytest
from tests.systemd.booted import groups_of, lacking, remove_leftovers


def test_what_a_killed_process_left_is_removed() -> None:
    """Its groups, and what still runs in them."""
    if reason := lacking():
        pytest.skip(f"NOT TESTED: {reason}")
    with subprocess.Popen(["true"]) as gone:
        pass
    groups = groups_of(gone.pid)
    with subprocess.Popen(["sleep", "600"]) as left:
        for group in groups:
            (group / "system.slice").mkdir(parents=True)
            if (group / "cpuset.cpus").exists():
                continue  # Such a group takes no process before it is given a core.
            (group / "system.slice" / "cgroup.procs").write_text(str(left.pid))
        remove_leftovers()
        assert left.wait(60) == -9
    assert [group for group in groups if group.exists()] == []
