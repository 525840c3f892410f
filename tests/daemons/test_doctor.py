"""``byzsgd doctor``: each thing that can be wrong is found, and said with what would be right."""

import resource
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.daemons import buffered

from byzsgd import __version__, memory
from byzsgd.cluster import Cluster, Member, Role
from byzsgd.tasks.torch_task import describe_device
from byzsgd.transport import Knock, keys
from byzsgd_daemons import doctor, init, local, watch
from byzsgd_daemons.cli import main
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.doctor import Finding, Level

OK, WARNING, PROBLEM = Level

D = 1000
MIB = 1 << 20


class Surroundings:
    """A cluster in a folder, and what doctor finds around it, as a test lays it out."""

    def __init__(self, folder: Path) -> None:
        plan = init.Plan(task="quadratic")
        self.file = init.create(folder, plan, local.free_addresses(plan))
        self.cluster = read_cluster(self.file)
        self.answers: dict[str, Knock | OSError] = {}
        """What a server does with a login; it lets in where nothing else is said."""
        self.statuses: dict[str, watch.Status] = {}
        """What nodes show; no answer where nothing is said."""
        self.seconds = 0.0
        """How long they had."""

    def knock(self, server: Member, secret: str, seconds: float) -> Knock:
        answer = self.answers.get(server.id, Knock.LET_IN)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def asked(self, cluster: Cluster, seconds: float) -> dict[str, watch.Status]:
        none = {"error": "no answer"}
        self.seconds = seconds
        return {n.id: self.statuses.get(n.id, none) for n in cluster.nodes if n.http}

    def shows(self, *nodes: str, **changes: Any) -> None:
        """Have nodes answer /status."""
        fine = {"version": __version__, "cluster": self.cluster.digest().hex()}
        for node in nodes:
            self.statuses[node] = fine | {"id": node} | changes

    def key(self, identity: str) -> Path:
        return self.file.parent / "keys" / f"{identity}.key"

    def only(self, identity: str) -> None:
        """Put the key of one node where its daemon looks for it, and all others elsewhere."""
        folder, away = self.file.parent / "keys", self.file.parent / "away"
        away.mkdir(exist_ok=True)
        for key in folder.iterdir():
            key.rename(away / key.name)
        (away / f"{identity}.key").rename(self.key(identity))

    def examine(self, identity: str = "s0", d: int | None = D, **changes: Any) -> list[Finding]:
        settings = replace(Settings(id=identity, cluster=self.file), **changes)
        return list(doctor.examine(settings, d=d, seconds=1.0))

    def bad(self, identity: str = "s0", **changes: Any) -> list[tuple[Level, str, str]]:
        """What was found that is not fine."""
        found = self.examine(identity, **changes)
        return [(f.level, f.what, f.sentence) for f in found if f.level is not OK]


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """All is fine: the machine has the key of s0 alone, and every server lets in."""
    around = Surroundings(tmp_path / "cluster")
    around.only("s0")
    monkeypatch.setattr(doctor, "knock", around.knock)
    monkeypatch.setattr(watch, "statuses", around.asked)
    monkeypatch.setattr(doctor, "free_bytes", lambda: (1 << 50, "available"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    around.shows("s1", "s2", "s3", "s4")
    return around


def test_where_all_is_fine_nothing_is_bad(around: Surroundings) -> None:
    """And every thing that was looked at is named."""
    found = around.examine()

    assert [str(finding) for finding in found if finding.level is not OK] == []
    looked_at = {finding.what for finding in found}
    assert looked_at >= {"cluster file", "key", "packages", "clock", "port", "memory", "peers"}
    assert looked_at >= {"file descriptors", "s1", "s2", "s3", "s4"}
    assert sum(finding.what == "port" for finding in found) == 3


# Files


def test_a_key_of_another_node_or_mode(around: Surroundings) -> None:
    """The sentence is the daemon's own, and servers are tried without logging in."""
    around.key("s0").chmod(0o644)
    bad = around.bad()
    assert bad[0][:2] == (PROBLEM, "key")
    assert "chmod 600" in bad[0][2]
    assert {(what, sentence.partition(" ")[2]) for _, what, sentence in bad[1:]} == {
        (server, "nobody listens there; is it up?") for server in ("s1", "s2", "s3", "s4")
    }

    around.key("s0").unlink()
    keys.write_secret(around.key("s0"), keys.generate().secret)
    bad = around.bad()
    assert bad[0][:2] == (PROBLEM, "key")
    assert "is the secret key of" in bad[0][2]


def test_a_key_in_a_folder_that_is_not_there(around: Surroundings, tmp_path: Path) -> None:
    """It is one problem, and the rest is looked at."""
    key = tmp_path / "nowhere" / "s0.key"
    bad = around.bad(key=key)
    assert bad[0][:2] == (PROBLEM, "key")
    assert "there is no such file" in bad[0][2]
    assert PROBLEM not in {level for level, _, _ in bad[1:]}


def test_keys_of_other_nodes_beside_it(around: Surroundings) -> None:
    """A copy that was left behind."""
    shutil.copy(around.key("s0"), around.key("w3"))
    [(level, what, sentence)] = around.bad()
    assert (level, what) == (WARNING, "key")
    assert "keys of w3 as well" in sentence


def test_what_a_cluster_file_warns_of(around: Surroundings) -> None:
    """As ``byzsgd check`` does."""
    text = around.file.read_text()
    around.file.write_text(text.replace("worker_momentum = 0.9", "worker_momentum = 0"))
    around.cluster = read_cluster(around.file)
    around.shows("s1", "s2", "s3", "s4")
    [(level, what, sentence)] = around.bad()
    assert (level, what) == (WARNING, "cluster file")
    assert sentence.startswith("worker_momentum = 0")


def test_a_task_that_cannot_be_loaded(around: Surroundings) -> None:
    """A worker needs it; a server may be given its first model."""
    text = around.file.read_text()
    around.file.write_text(text.replace('task = "quadratic"', 'task = "nowhere.py:task"'))
    around.cluster = read_cluster(around.file)
    around.shows("s1", "s2", "s3", "s4")

    assert [bad[:2] for bad in around.bad("s0", d=None)] == [(WARNING, "task")]
    assert (PROBLEM, "task") in [bad[:2] for bad in around.bad("w0", d=None)]


def test_it_says_where_a_worker_will_compute(around: Surroundings) -> None:
    """A device that torch has not is a problem of a worker, and none of a server."""
    around.file.write_text(around.file.read_text().replace('"quadratic"', '"digits"'))
    cpu = Finding(OK, "device", describe_device("cpu"))
    assert cpu in around.examine("w0", d=None)

    (bad,) = (f for f in around.examine("w0", d=None, device="cuda:99") if f.what == "task")
    assert bad.level is PROBLEM
    assert "device 'cuda:99' is not available to torch" in bad.sentence
    assert not [f for f in around.examine("s0", d=None, device="cuda:99") if f.what == "device"]


def test_a_package_that_is_missing_or_too_old(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server can do without torch."""
    real = metadata.version

    def version(name: str) -> str:
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "1.26.4" if name == "numpy" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert around.bad() == [
        (PROBLEM, "packages", "numpy 1.26.4 is too old; must be >= 2.0"),
        (WARNING, "packages", "no torch: give a server its first model, --initial"),
    ]
    assert (PROBLEM, "packages", "no torch; must be >= 2.4") in around.bad("w0")


def test_a_program_that_is_no_package(around: Surroundings, monkeypatch: Any) -> None:
    """A checkout on PYTHONPATH: what it requires is not known."""

    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert [bad[:2] for bad in around.bad()] == [(WARNING, "packages")]


# This machine


@pytest.fixture
def taken(around: Surroundings) -> Iterator[str]:
    """The port that s0 publishes on, which somebody listens on."""
    node = around.cluster.node("s0")
    assert node is not None
    with socket.create_server(node.publish_endpoint):
        yield node.address


def test_a_port_that_is_taken(around: Surroundings, taken: str) -> None:
    """By somebody else, unless the node itself answers."""
    assert around.bad() == [
        (
            PROBLEM,
            "port",
            f"{taken} is in use, and s0 does not answer: if it does not run, somebody else "
            "listens there",
        )
    ]


def test_a_port_that_the_node_itself_has(around: Surroundings, taken: str) -> None:
    """Then those that it has not are strange."""
    around.shows("s0")
    found = {f.sentence: f.level for f in around.examine() if f.what == "port"}

    assert found[f"{taken} is in use, and s0 runs"] is OK
    assert sorted(found.values()) == [OK, WARNING, WARNING]


def test_an_address_of_another_machine(around: Surroundings) -> None:
    """192.0.2.0/24 is nobody's."""
    bad = around.bad(bind="192.0.2.1", http="192.0.2.1:9100")

    assert [(level, what) for level, what, _ in bad] == [(PROBLEM, "port")] * 3
    assert all("cannot be listened on: " in sentence for _, _, sentence in bad)
    assert [sentence.rpartition(" ")[2] for _, _, sentence in bad] == ["--bind", "--bind", "--http"]
    assert around.bad(http="nonsense")[0][:2] == (PROBLEM, "port")


def test_too_few_file_descriptors(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are needed will do."""
    needed = memory.descriptors(around.cluster, Role.SERVER)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (needed, needed))
    assert around.bad() == []

    monkeypatch.setattr(resource, "getrlimit", lambda _: (needed - 1, needed))
    [(level, what, sentence)] = around.bad()
    assert (level, what) == (PROBLEM, "file descriptors")
    assert f"may need {needed}" in sentence


def test_memory_that_will_not_do(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    """For liars at their worst it is a warning, for a calm run a problem."""
    usual = memory.server_usual_bytes(around.cluster, D)
    for free, expected in ((usual, WARNING), (usual - 1, PROBLEM)):
        monkeypatch.setattr(doctor, "free_bytes", lambda free=free: (free, "available"))
        assert [(level, what) for level, what, _ in around.bad()] == [(expected, "memory")]

    around.shows("s0")  # Which has its part of it already.
    assert "memory" not in {what for _, what, _ in around.bad()}


def test_the_memory_of_a_task_with_buffers(around: Surroundings) -> None:
    """They are not halved; a number of them that cannot be is the task's mistake."""
    text = around.file.read_text().replace('wire_type = "float32"', 'wire_type = "bfloat16"')
    around.file.write_text(text.replace('task = "quadratic"', f'task = "{buffered.NAME}"'))
    cluster, folder = read_cluster(around.file), around.file.parent
    for buffers in (0, 900_000):
        buffered.write_task(folder, buffers, 1_000_000)
        (found,) = (f for f in around.examine(d=None) if f.what == "memory")
        most = memory.server_bytes(cluster, 1_000_000, buffers=buffers)
        most += memory.kernel_bytes(cluster, Role.SERVER)
        usual = memory.server_usual_bytes(cluster, 1_000_000, buffers=buffers)
        assert f"takes {usual // MIB} MB usually" in found.sentence
        assert f"{most // MIB} MB at worst" in found.sentence

    buffered.write_task(folder, 1_000_000, 1_000_000)
    (found,) = (f for f in around.examine("w0", d=None) if f.what == "task")
    assert found.level is PROBLEM
    assert "1000000 of 1000000 coordinates cannot be buffers" in found.sentence


def test_a_state_folder(around: Surroundings, tmp_path: Path, monkeypatch: Any) -> None:
    """It may have to be made yet; it needs room, and must be a folder."""
    assert around.bad(state=tmp_path / "new" / "state") == []

    used = SimpleNamespace(free=doctor.CHECKPOINTS * 4 * D - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: used)
    assert [bad[:2] for bad in around.bad(state=tmp_path)] == [(PROBLEM, "state")]
    assert [bad[:2] for bad in around.bad(state=around.file)] == [(PROBLEM, "state")]

    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "disk_usage", forbidden)
    assert around.bad(state=tmp_path) == [(PROBLEM, "state", f"{tmp_path}: Permission denied")]


GROUPS = {
    "none": ("0::/", {}, 8 << 20),
    "version 2": ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "4194304"}, 4 << 20),
    "of a container": ("0::/not/here", {"memory.max": "1048576"}, 1 << 20),
    "version 1": (
        "4:cpu,memory:/a\n0::/",
        {"memory/a/memory.limit_in_bytes": "2097152", "memory.max": "4194304"},
        2 << 20,
    ),
    "none of version 1": (
        "4:memory:/",
        {"memory/memory.limit_in_bytes": str(2**63 - 4096)},
        8 << 20,
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_memory_that_may_be_taken(tmp_path: Path, name: str) -> None:
    """What is available, or the lowest limit of the control groups."""
    groups, files, expected = GROUPS[name]
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    for path, text in (
        (proc / "meminfo", "MemTotal: 9999 kB\nMemAvailable:    8192 kB\n"),
        (proc / "self" / "cgroup", f"{groups}\n"),
        *((mounted / path, f"{text}\n") for path, text in files.items()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert doctor.free_bytes(proc, mounted)[0] == expected


# Other machines


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (Knock.TURNED_AWAY, PROBLEM, "turns our key away: it has another for s0"),
        (Knock.ANOTHER, PROBLEM, "does not hold the key that our cluster file gives s3"),
        (Knock.SILENT, WARNING, "says nothing within 1 s: busy or frozen?"),
        (ConnectionRefusedError(111, "Connection refused"), WARNING, "is it up?"),
        (TimeoutError("timed out"), WARNING, "cannot be reached: no answer within 1 s"),
        (OSError(113, "No route to host"), WARNING, "cannot be reached: No route to host"),
        (socket.gaierror(-2, "Name or service not known"), WARNING, "Name or service not known"),
    ],
)
def test_what_a_server_does_with_a_login(
    around: Surroundings, answer: Knock | OSError, level: Level, words: str
) -> None:
    """One server that is away is one of the f."""
    around.answers["s3"] = answer
    [bad] = around.bad()

    assert bad[:2] == (level, "s3")
    assert words in bad[2]


def test_more_servers_than_may_be_away(around: Surroundings) -> None:
    """Without a quorum nothing goes on; a server counts itself."""
    for server in ("s3", "s4"):
        around.answers[server] = OSError(113, "No route to host")
    last = around.bad()[-1]
    assert last == (PROBLEM, "servers", "only 3 can be reached, and a quorum is 4")


def test_a_worker_needs_the_port_of_models_too(around: Surroundings) -> None:
    """A firewall may let through one of two."""
    around.only("w0")
    node = around.cluster.node("s0")
    assert node is not None
    with socket.create_server(node.publish_endpoint):
        bad = around.bad("w0")

    said = {what: sentence for _, what, sentence in bad}
    assert said.keys() == {"s1", "s2", "s3", "s4"}
    assert all(sentence.endswith("nobody listens there; is it up?") for sentence in said.values())


def test_who_is_not_admitted_is_not_dialled(around: Surroundings) -> None:
    """It is this file's own decision."""
    text = around.file.read_text()
    around.file.write_text(text.replace('id = "s2"', 'id = "s2"\nadmitted = false'))
    [bad] = around.bad()
    assert bad[:2] == (WARNING, "s2")


def test_other_versions_files_and_refusals(around: Surroundings) -> None:
    """Named by who shows them, whatever a liar writes; accidents are no news."""
    around.shows("s1", version="9.9\x1b[2J")
    around.shows("s2", cluster="00")
    refused = {"late": 3, "not-admitted": 1}
    around.shows("s3", peers={"s0": {"refused": refused}, "s1": 3})
    around.shows("s4", peers=3, cluster=around.cluster.digest().hex())

    assert around.bad() == [
        (WARNING, "peers", f"s1: version 9.9[2J, and this is {__version__}"),
        (WARNING, "cluster file", "another one than here: s2; give every node the same"),
        (WARNING, "peers", "s3 refused something of s0: not-admitted"),
    ]


def test_peers_that_do_not_answer_are_named_by_reason(around: Surroundings) -> None:
    """A busy one has as long as a server that is dialled, and may need more."""
    refused, busy = "Connection refused", "did not answer within 1 s (busy or frozen)"
    for number in range(7):
        address, reason = f"127.0.0.1:{number}", busy if number == 5 else refused
        around.statuses[f"w{number}"] = {"error": f"no answer from {address}: {reason}"}
    around.statuses["s4"] = {"error": 3}  # A liar's own word.
    (found,) = (f for f in around.examine() if f.what == "peers")

    assert around.seconds == 1
    assert found.sentence == (
        f"3 of 11 that serve HTTP answer; s4: 3; w0, w1, w2, w3, w4, w6: {refused}; w5: {busy}"
    )


def test_a_cluster_file_that_too_many_do_not_have(around: Surroundings) -> None:
    """Of two servers one is correct."""
    around.shows("s1", "s2", cluster="00")
    assert [bad[:2] for bad in around.bad()] == [(PROBLEM, "cluster file")]


# The command


def test_an_operator_has_no_ports_and_no_memory(around: Surroundings) -> None:
    """Only a key, and servers."""
    found = around.examine("operator")
    assert {f.what for f in found}.isdisjoint({"port", "memory", "file descriptors", "state"})


def test_the_command_has_one_line_a_finding_and_a_status(
    around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 where nothing is a problem, 1 where something is, 2 for wrong words."""
    words = ["doctor", str(around.file), "--id", "s0", "--parameters", str(D)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok       ") for line in lines)

    around.answers["s1"] = Knock.ANOTHER
    assert main(words) == 1
    [problem] = [x for x in capsys.readouterr().out.splitlines() if not x.startswith("ok ")]
    assert problem.startswith("problem  s1: 127.0.0.1:")

    assert main([*words[:3], "s9"]) == 2
    assert "--id s9: no such node" in capsys.readouterr().err
