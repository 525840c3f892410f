"""Bad files, words and surroundings: one clear line, a status that is not zero, and no process."""

import asyncio
import socket
from pathlib import Path

import pytest

from byzsgd.transport import keys
from byzsgd_daemons import init
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import free_addresses

pytestmark = pytest.mark.processes


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    """A cluster that nobody runs."""
    plan = init.Plan(task="digits")
    return init.create(tmp_path / "cluster", plan, free_addresses(plan))


def one_line(ran, status: int = 2) -> str:
    """The one line that a command ended with."""
    assert ran.status == status, ran.errors
    lines = ran.errors.splitlines()
    assert len(lines) == 1, ran.errors
    assert lines[0].startswith("byzsgd: ")
    return lines[0]


def test_a_missing_cluster_file(byzsgd) -> None:
    """It is named, with what the system says."""
    line = one_line(byzsgd("server", "--cluster", "nowhere.toml", "--id", "s0"))
    assert line == "byzsgd: nowhere.toml: cannot be read: No such file or directory"


def test_a_cluster_file_that_is_no_toml(byzsgd, cluster_file) -> None:
    """It is named, with the place."""
    cluster_file.write_text("f_servers = 1\ntask = digits\n")
    line = one_line(byzsgd("check", cluster_file))
    assert f"{cluster_file}: is not valid TOML" in line
    assert "at line 2" in line


def edited(cluster_file: Path, old: str, new: str) -> Path:
    """The cluster file with one passage changed."""
    text = cluster_file.read_text()
    assert old in text
    cluster_file.write_text(text.replace(old, new))
    return cluster_file


def test_an_unknown_key_names_the_nearest_known_one(byzsgd, cluster_file) -> None:
    """A slip of the pen is found and mended."""
    edited(cluster_file, "batch_size", "batchsize")
    line = one_line(byzsgd("check", cluster_file))
    assert line.endswith("batchsize: unknown key; did you mean batch_size?")


def test_every_violated_bound_is_in_one_report(byzsgd, cluster_file) -> None:
    """Each with its key, the inequality and the numbers."""
    edited(cluster_file, "f_servers = 1", "f_servers = 2")
    edited(cluster_file, "f_workers = 2", "f_workers = 3")

    ran = byzsgd("server", "--cluster", cluster_file, "--id", "s0")

    assert ran.status == 2
    assert "f_servers: n_ps >= 3 f_ps + 2, but 5 < 8 (f_ps = 2)" in ran.errors
    assert "f_workers: n_w >= 3 f_w + 1, but 7 < 10 (f_w = 3)" in ran.errors
    assert "Traceback" not in ran.errors


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("local", "--task", "digitz"), "did you mean digits?"),
        (("local", "--attack", "sign-flop"), "did you mean sign-flip?"),
        (("local", "--server-attack", "equivocat"), "did you mean equivocate?"),
        (("local", "--attack", "alie", "--option", "y=1"), "unknown option 'y'"),
        (("local", "--attack", "alie", "--option", "z"), "must be NAME=NUMBER"),
        (("local", "--f-servers", "4"), "server_quorum"),
        (("servr",), "did you mean server?"),
        (("local", "--steps", "-3"), "--steps: found '-3'; must be a whole number"),
        (("local", "--steps", "many"), "--steps: found 'many'; must be a whole number"),
        (("local", "--attack", "nan", "--lying-workers", "9"), "there are only 7 workers"),
    ],
)
def test_wrong_words(byzsgd, words, hint) -> None:
    """A word that is not known leads to the nearest that is."""
    ran = byzsgd(*words)
    assert ran.status == 2, ran.errors
    assert hint in ran.errors
    assert "Traceback" not in ran.errors


def test_flags_that_a_cluster_file_overrules(byzsgd, cluster_file) -> None:
    """They are not silently ignored."""
    line = one_line(byzsgd("local", "--cluster", cluster_file, "--steps", "9", "--seed", "2"))
    assert line.endswith("says all that a cluster needs; leave out --steps, --seed")


def test_an_identity_that_is_not_in_the_cluster_file(byzsgd, cluster_file) -> None:
    """The nearest of its role is named; a node of another role is told so."""
    line = one_line(byzsgd("server", "--cluster", cluster_file, "--id", "s9"))
    assert "--id s9: no such node" in line
    line = one_line(byzsgd("server", "--cluster", cluster_file, "--id", "w0"))
    assert "says that it is a worker, not a server" in line


def test_a_wrong_key(byzsgd, cluster_file) -> None:
    """The secret key of another node is no key for this one."""
    secret = (cluster_file.parent / "keys" / "s1.key").read_text().strip()

    words = ("--id", "s0", "--key", cluster_file.parent / "keys" / "s1.key")
    line = one_line(byzsgd("server", "--cluster", cluster_file, *words))

    assert f"is the secret key of {keys.public_of(secret)}" in line
    assert secret not in line


def test_a_key_that_others_may_read(byzsgd, cluster_file) -> None:
    """A secret key must be secret."""
    (cluster_file.parent / "keys" / "s0.key").chmod(0o644)
    line = one_line(byzsgd("server", "--cluster", cluster_file, "--id", "s0"))
    assert line.endswith("mode 0644 lets others at the secret key; chmod 600 it")


TASK = """
import torch
from torch import nn
from byzsgd.tasks.torch_task import TorchTask

calls = 0

def model():
    global calls
    calls += 1
    return nn.Linear(4, {outputs})

def task():
    data = lambda *_: (torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
    return TorchTask(model=model, data={data}, loss=nn.functional.cross_entropy, test_data=data)
"""


@pytest.mark.parametrize(
    ("outputs", "data", "hint"),
    [
        ("2", "lambda share: 1 / 0", "ZeroDivisionError: division by zero"),
        ("2 + calls", "data", "two calls built different modules"),
        ("2", "lambda share: None", "data: must return two tensors"),
    ],
)
def test_a_task_of_the_user_that_raises_or_changes_size(
    byzsgd, cluster_file, outputs, data, hint
) -> None:
    """A worker names the task and what is wrong with it, and where in the user's own file."""
    file = cluster_file.parent / "mine.py"
    file.write_text(TASK.format(outputs=outputs, data=data))
    edited(cluster_file, 'task = "digits"', 'task = "mine.py:task"')

    line = one_line(byzsgd("worker", "--cluster", cluster_file, "--id", "w0"))

    assert "task mine.py:task: " in line
    assert hint in line


def test_a_server_tells_what_is_wrong_with_a_task_that_it_never_loads(byzsgd, cluster_file) -> None:
    """The short-lived process that builds theta_0 says it, and the server passes it on."""
    edited(cluster_file, 'task = "digits"', 'task = "nowhere.py:task"')
    line = one_line(byzsgd("server", "--cluster", cluster_file, "--id", "s0"))
    assert "nowhere.py: no such file" in line


@pytest.mark.parametrize("what", ["s0 cannot listen on", "http "])
def test_a_port_in_use(byzsgd, cluster_file, what: str) -> None:
    """The address is named, and that it is taken."""
    s0 = read_cluster(cluster_file).node("s0")
    assert s0 is not None
    port = int(s0.http.rpartition(":")[2]) if what == "http " else s0.request_endpoint[1]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        ran = byzsgd("server", "--cluster", cluster_file, "--id", "s0")
    assert ran.status == 1, "a restart may find it free"
    last = ran.errors.splitlines()[-1]
    assert last.startswith("byzsgd: ")
    assert what in last
    assert str(port) in last
    assert "in use" in last
    assert "Traceback" not in ran.errors


def test_a_node_with_another_cluster_file_is_named_with_the_keys_that_differ(running) -> None:
    """It ends by itself with status 2, its peers refuse what it says, and training goes on."""

    async def main() -> None:
        async with running(steps=0) as rig:
            other = rig.file.parent / "other.toml"
            other.write_text(rig.file.read_text().replace("seed = 1 ", "seed = 2 "))
            workers = rig.cluster.workers[1:]
            await rig.start(*rig.cluster.servers, *workers)
            await rig.wait_for_step(5, "s0")

            await rig.daemons.start("worker", "w0", "--cluster", str(other))

            assert await rig.daemons.process("w0").wait() == 2
            log = (rig.file.parent / "logs" / "w0.log").read_text()
            last = log.splitlines()[-1]
            assert last.startswith("byzsgd: this node's cluster file differs from that of s")
            assert "in: seed; give every node the same file" in last
            # It had heard of two servers, of which one is correct: these two name it as well.
            told = [await rig.status(server) for server in rig.cluster.servers]
            naming = [status for status in told if status["peers"]["w0"]["differs_in"] == ["seed"]]
            assert len(naming) >= 2
            assert all(s["peers"]["w0"]["refused"]["other-cluster"] >= 1 for s in naming)
            await rig.wait_for_step(await rig.step("s0") + 10, "s0")

    asyncio.run(main())


def test_a_place_that_cannot_be_written_to(byzsgd) -> None:
    """It is named before the training, and not after it."""
    line = one_line(byzsgd("demo", "--out", "/proc/nowhere"), status=1)
    assert line == "byzsgd: /proc/nowhere: No such file or directory"


def test_a_training_that_nobody_can_go_on_with_is_given_up(byzsgd, tmp_path) -> None:
    """Every worker's task fails in mid-training: the command ends, and says why."""
    (tmp_path / "mine.py").write_text(
        "from byzsgd.tasks.quadratic import Quadratic\n"
        "class Mine(Quadratic):\n"
        "    def source(self, share):\n"
        "        source = super().source(share)\n"
        "        gradient = source.gradient\n"
        "        source.gradient = lambda v, step: gradient(v, step) if step < 40 else 1 / 0\n"
        "        return source\n"
        "def task():\n"
        "    return Mine(100, 1.0)\n"
    )

    ran = byzsgd("local", "--task", "mine.py:task", "--servers", "2", "--workers", "2")

    assert ran.status == 1
    assert "ZeroDivisionError: division by zero" in ran.errors
    assert "mine.py:6" in ran.errors


def test_a_cluster_is_never_overwritten(byzsgd, cluster_file) -> None:
    """A second init in a folder changes nothing there."""
    before = {path: path.read_bytes() for path in _files(cluster_file.parent)}
    line = one_line(byzsgd("init", cluster_file.parent))
    assert "is there already" in line
    assert {path: path.read_bytes() for path in _files(cluster_file.parent)} == before


def test_keys_are_for_their_owner_alone(cluster_file) -> None:
    """Mode 0600, one for every node and the operator."""
    files = sorted((cluster_file.parent / "keys").iterdir())
    assert len(files) == 5 + 7 + 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
