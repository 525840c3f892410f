"""A cluster of units under a real systemd: what the units and operations.md promise of them.

One cluster serves all tests, in this order; each leaves it training.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from safetensors.numpy import load_file
from tests.systemd.booted import CHECKOUT, SOURCE, wait_until
from tests.systemd.conftest import LIARS, UNITS, Nodes

from byzsgd import checkpoint
from byzsgd.tasks.quadratic import quadratic
from byzsgd.transport import keys

pytestmark = pytest.mark.processes

D = 1000


@contextmanager
def asked(nodes: Nodes, name: str) -> Iterator[None]:
    """A file that asks the task of a worker for something."""
    path = nodes.file(f"/etc/byzsgd/{name}")
    path.touch()
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def test_units_train_under_attack(nodes: Nodes) -> None:
    """A server and a worker lie; the others learn, and the model is there to be fetched."""
    nodes.progress(steps=60)
    [liar] = [node for node in LIARS if node in nodes.cluster.workers]
    status = nodes.says("s0")
    assert status["left_out"][liar] > 0.9 * status["steps_done"]

    where = ("--cluster", "/etc/byzsgd/cluster.toml", "--key", "/etc/byzsgd/keys/operator.key")
    nodes.machine.run("byzsgd", "fetch", "/run/model.safetensors", *where)
    model = load_file(nodes.file("/run/model.safetensors"))["theta"]
    assert quadratic(D).accuracy(model) > 0.9


def test_systemd_shows_what_a_node_does(nodes: Nodes) -> None:
    """Its step, a server's drift, a worker's loss, and the sentence of /status; the newest ones."""
    for node, figure in (("s0", "drift"), ("w0", "loss")):
        before = nodes.says(node)["step"]

        def shows(node: str = node, figure: str = figure, before: int = before) -> bool:
            text = nodes.show(node)["StatusText"]
            found = re.fullmatch(rf"step (\d+), {figure} [\d.e+-]+: (waits for|\w+ at) .*", text)
            return found is not None and int(found[1]) > before

        wait_until(shows, lambda node=node: nodes.show(node)["StatusText"])


def test_a_killed_node_is_restarted_and_catches_up(nodes: Nodes) -> None:
    """By systemd, and from its checkpoint or theta_0 to where the others are."""
    restarts, pid = nodes.restarts("s0"), nodes.pid("s0")
    nodes.machine.run("kill", "-9", pid)
    nodes.wait_for_restarts("s0", restarts + 1)
    assert nodes.pid("s0") != pid
    nodes.progress("s0")
    assert nodes.file("/run/private/byzsgd/s0/starts").read_text() == "1\n"
    assert nodes.show("s0")["Result"] == "success"


def test_a_frozen_node_is_ended_by_the_watchdog(nodes: Nodes) -> None:
    """A server that is stopped, and a worker whose task hangs with the interpreter's lock.

    With a liar beside it that is one worker more than may fail: only the watchdog brings the
    training back. The journal says where the worker hung.
    """
    before = {node: nodes.restarts(node) for node in ("s1", "w1")}
    nodes.machine.run("kill", "-STOP", nodes.pid("s1"))
    with asked(nodes, "hang-w1"):
        nodes.wait_for_journal(nodes.unit("w1"), "Watchdog timeout")
    nodes.wait_for_journal(nodes.unit("w1"), r'File "/etc/byzsgd/task.py", line \d+ in gradient')
    nodes.wait_for_journal(nodes.unit("s1"), "Watchdog timeout")
    for node, restarts in before.items():
        nodes.wait_for_restarts(node, restarts + 1)
    nodes.progress()


def test_a_stop_is_clean(nodes: Nodes) -> None:
    """It saves the model, ends with status 0, and is not taken for a failure; then all goes on."""
    step, restarts = nodes.says("s2")["step"], nodes.restarts("s2")
    nodes.machine.run("systemctl", "stop", nodes.unit("s2"))
    found = nodes.show("s2")
    assert (found["ActiveState"], found["Result"]) == ("inactive", "success")
    assert (found["ExecMainCode"], found["ExecMainStatus"]) == ("1", "0")
    assert nodes.restarts("s2") == restarts

    saved, problems = checkpoint.load_newest(
        nodes.file("/var/lib/private/byzsgd/s2/checkpoints"),
        d=D,
        digest=checkpoint.digest_of(nodes.cluster),
    )
    assert saved is not None
    assert (saved.step >= step, problems) == (True, [])

    nodes.machine.run("systemctl", "start", nodes.unit("s2"))
    nodes.wait_for_journal(nodes.unit("s2"), f"resumes from the checkpoint of step {saved.step}")
    nodes.progress("s2")


def test_a_reload_reads_the_cluster_file_again(nodes: Nodes) -> None:
    """And restarts nothing."""
    pid = nodes.pid("s2")
    nodes.machine.run("systemctl", "reload", nodes.unit("s2"))
    nodes.wait_for_journal(nodes.unit("s2"), "has read the cluster file again")
    assert nodes.pid("s2") == pid


def test_a_key_is_its_unit_s_alone(nodes: Nodes) -> None:
    """Neither another node nor another user reads it, where it lies or where it is lent."""
    machine, unit = nodes.machine, nodes.unit("s0")
    lent = f"/run/credentials/{unit}/key"
    secret = nodes.file("/etc/byzsgd/keys/s0.key").read_text()

    def tries(node: str, path: str) -> str:
        """What a process of a node reads in a file."""
        pid = nodes.pid(node)
        owner = nodes.file(f"/proc/{pid}").stat()
        who = ("--setuid", str(owner.st_uid), "--setgid", str(owner.st_gid))
        words = ("nsenter", "--target", pid, "--mount", *who, "--", "cat", path)
        return machine.run(*words, check=False).stdout

    assert tries("s0", lent) == secret
    assert tries("s0", "/etc/byzsgd/keys/s0.key") == ""
    for path in (lent, "/etc/byzsgd/keys/s0.key", f"/proc/{nodes.pid('s0')}/root{lent}"):
        assert tries("w0", path) == ""
        nobody = ("--all", "--setuid", "65534", "--setgid", "65534")
        assert machine.run("cat", path, check=False, enter=nobody).stdout == ""
    assert machine.run("cat", lent).stdout == secret  # Of root there is no hiding.


def test_a_daemon_is_no_user_and_writes_nowhere_but_to_its_state(nodes: Nodes) -> None:
    """No capability, no new privilege, a system call filter, a read-only system."""
    pid = nodes.pid("s0")
    status = dict(
        re.findall(r"^(\w+):\s+(\S+)", nodes.file(f"/proc/{pid}/status").read_text(), re.M)
    )
    assert int(status["Uid"]) > 60_000
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    inside = ("nsenter", "--target", pid, "--mount", "--")
    for folder in ("/opt/byzsgd", "/etc/byzsgd", "/var/lib", "/home"):
        found = nodes.machine.run(*inside, "touch", f"{folder}/x", check=False)
        assert "Read-only file system" in found.stderr
    nodes.machine.run(*inside, "touch", "/var/lib/byzsgd/s0/x")
    assert nodes.machine.run(*inside, "ls", "/tmp").stdout == ""
    writable = ("find", "/opt/byzsgd", "-not", "-type", "l", "-perm", "/022")
    assert nodes.machine.run(*writable).stdout == ""


def test_a_unit_that_takes_too_much_memory_hurts_nobody_else(nodes: Nodes) -> None:
    """It is ended at its limit and comes back; all others are the processes that they were."""
    others = {node: nodes.pid(node) for node in nodes.correct if node != "w2"}
    restarts = nodes.restarts("w2")
    with asked(nodes, "eat-w2"):
        wait_until(
            lambda: nodes.restarts("w2") > restarts,
            lambda: nodes.machine.journal(nodes.unit("w2"))[-3000:],
        )
    nodes.wait_for_restarts("w2", restarts + 1)
    nodes.progress()
    nodes.wait_for_journal(nodes.unit("w2"), "code=killed, status=9/KILL")
    assert {node: nodes.pid(node) for node in others} == others


def test_a_wrong_file_is_not_tried_again(nodes: Nodes) -> None:
    """Status 2: the unit has failed, once."""
    path = nodes.file("/etc/byzsgd/keys/s9.key")
    keys.write_secret(path, keys.generate().secret)
    nodes.machine.run("systemctl", "start", "byzsgd-server@s9", check=False)
    found = nodes.machine.show("byzsgd-server@s9")
    assert (found["ActiveState"], found["SubState"]) == ("failed", "failed")
    assert (found["ExecMainStatus"], found["NRestarts"]) == ("2", "0")
    nodes.wait_for_journal("byzsgd-server@s9", "no such node")


# The target and the installation


def test_the_target_stops_and_starts_all_nodes(nodes: Nodes) -> None:
    """Those of the machine that are enabled; the training goes on from their checkpoints."""
    step = nodes.furthest()
    nodes.machine.run("systemctl", "stop", "byzsgd.target")
    for node in nodes.correct:
        wait_until(
            lambda node=node: nodes.show(node)["ActiveState"] == "inactive",
            lambda node=node: nodes.machine.journal(nodes.unit(node))[-3000:],
        )
        assert nodes.show(node)["Result"] == "success"
    nodes.machine.run("systemctl", "start", "byzsgd.target")
    for node in nodes.correct:
        nodes.wait_for(node, lambda status: status["step"] > step)


def test_the_same_command_upgrades(nodes: Nodes) -> None:
    """It mends what is wrong or missing, and leaves nodes, keys and the cluster file alone."""
    pids = {node: nodes.pid(node) for node in nodes.correct}
    [module] = nodes.file("/opt/byzsgd/lib").glob("python3.*/site-packages/byzsgd_daemons/drain.py")
    module.unlink()
    unit = nodes.file(f"/{UNITS}/byzsgd-worker@.service")
    unit.write_text("[Service]\nExecStart=/bin/false\n")
    key = nodes.file("/etc/byzsgd/keys/s0.key")
    before = key.stat()
    # With this machine's network, to ask for packages.
    enter = ("--pid", "--mount", "--uts", "--ipc")
    words = ("make", "-C", str(SOURCE), "install-systemd", "TORCH=no", "EXTRAS=")
    nodes.machine.run(*words, enter=enter)

    assert module.exists()
    assert unit.read_text() == (CHECKOUT / "systemd" / unit.name).read_text()
    assert (key.stat().st_mode, key.stat().st_mtime) == (before.st_mode, before.st_mtime)
    assert {node: nodes.pid(node) for node in nodes.correct} == pids
    nodes.machine.run("systemctl", "restart", nodes.unit("w0"))
    nodes.progress("w0")


def test_an_uninstallation_leaves_keys_and_checkpoints(nodes: Nodes) -> None:
    """And takes nothing from under nodes that run."""
    words = ("bash", str(SOURCE / "systemd" / "install"), "uninstall")
    refused = nodes.machine.run(*words, check=False)
    assert refused.returncode == 2
    units = [nodes.unit(node) for node in nodes.correct]
    assert f"systemctl disable --now {' '.join(sorted(units))}" in refused.stderr
    nodes.machine.run("systemctl", "disable", "--now", *units)
    nodes.machine.run(*words)

    assert not nodes.file("/opt/byzsgd").exists()
    assert list(nodes.file(f"/{UNITS}").glob("byzsgd*@.service")) == []
    assert nodes.file("/etc/byzsgd/keys/s0.key").exists()
    assert nodes.file("/var/lib/private/byzsgd/s0/checkpoints").exists()
