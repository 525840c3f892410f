"""SIGHUP changes who may connect, and nothing else."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from byzsgd.cluster import Cluster
from byzsgd.transport import keys
from byzsgd_daemons import init
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.local import free_addresses
from byzsgd_daemons.reload import Reload

OP2 = f'id = "op2"\nrole = "operator"\npublic_key = "{"0" * 40}"'
DECAY = "learning_rate_decay_steps"


@dataclass
class Rosters:
    """A transport that remembers what it was asked to admit."""

    admitted: list[Cluster] = field(default_factory=list)

    def admit(self, cluster: Cluster) -> frozenset[str]:
        self.admitted.append(cluster)
        return frozenset()


@dataclass
class Rig:
    """A daemon's reload of a file that a test changes."""

    file: Path
    before: Cluster
    transport: Rosters
    reload: Reload
    caplog: pytest.LogCaptureFixture

    def change(self, old: str, new: str) -> list[str]:
        """Change the file, reload it, and return what was logged above INFO."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new, 1))
        self.caplog.clear()
        self.reload()
        return [r.getMessage() for r in self.caplog.records if r.levelno > logging.INFO]

    def key(self, identity: str) -> str:
        node = self.before.node(identity)
        assert node is not None
        return node.public_key


@pytest.fixture
def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Rig:
    caplog.set_level(logging.INFO)
    plan = init.Plan(task="digits", servers=2, workers=2, f_servers=0, f_workers=0)
    file = init.create(tmp_path / "cluster", plan, free_addresses(plan))
    before, transport = read_cluster(file), Rosters()
    reload = Reload(Settings(id="s0", cluster=file), before, transport)
    return Rig(file, before, transport, reload, caplog)


def test_another_nodes_key_changes_and_nothing_needs_a_restart(rig: Rig) -> None:
    """The new key is admitted, and so is the old one when the file is as it was."""
    new = keys.generate().public
    assert rig.change(rig.key("w1"), new) == []
    assert rig.transport.admitted[-1].node("w1").public_key == new
    assert rig.change(new, rig.key("w1")) == []
    assert rig.transport.admitted[-1] == rig.before


def test_who_is_not_admitted_or_gone_is_kept_out(rig: Rig) -> None:
    """Both are kept out; that a node is gone needs a restart besides."""
    assert rig.change('id = "w1"', 'id = "w1"\nadmitted = false') == []
    assert not rig.transport.admitted[-1].node("w1").admitted

    text = rig.file.read_text()
    entry = text[text.rindex("[[nodes]]") :]
    gone = entry.split('id = "')[1].split('"')[0]
    assert rig.change(entry, "") == [f"nodes: {gone} is gone: needs a restart"]
    assert not rig.transport.admitted[-1].node(gone).admitted


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (f"\n{DECAY} = 0", f"\n{DECAY} = 7", DECAY),
        ('id = "s0"', 'id = "s0"\nadmitted = false', "nodes: admitted of s0"),
        ("[[nodes]]", f"[[nodes]]\n{OP2}\n[[nodes]]", "nodes: op2 is new"),
    ],
)  # fmt: skip
def test_all_else_is_named_and_stays_as_it_was(rig: Rig, old: str, new: str, words: str) -> None:
    """Settings, new nodes, addresses, and the node's own entry."""
    assert rig.change(old, new) == [f"{words}: needs a restart"]
    assert rig.transport.admitted == [rig.before]


def test_an_address_needs_a_restart(rig: Rig) -> None:
    """The node goes on to dial the old one."""
    old = rig.before.node("s1").address
    assert rig.change(old, "elsewhere:7000") == ["nodes: address of s1: needs a restart"]
    assert rig.transport.admitted == [rig.before]


def test_the_own_key_needs_a_restart(rig: Rig) -> None:
    """The secret key was read when the daemon started."""
    found = rig.change(rig.key("s0"), keys.generate().public)

    assert found == ["nodes: public_key of s0: needs a restart"]
    assert rig.transport.admitted == [rig.before]


@pytest.mark.parametrize("broken", ["[[[", "f_servers = 7"])
def test_a_broken_file_changes_nothing(rig: Rig, broken: str) -> None:
    """It is an error in the log that says what is wrong, and the old roster stays."""
    [error] = rig.change("\nf_servers = 0", f"\n{broken}")

    assert error.startswith(f"the cluster file stays as it was: {rig.file}: ")
    assert not rig.transport.admitted


def test_a_file_that_is_gone_changes_nothing(rig: Rig) -> None:
    """Nor one that gives this node's key to another node."""
    other = keys.generate().public
    rig.file.write_text(
        rig.file.read_text().replace(rig.key("s0"), other).replace(rig.key("w0"), rig.key("s0"))
    )
    rig.reload()
    rig.file.unlink()
    rig.reload()

    errors = [r.getMessage() for r in rig.caplog.records if r.levelno >= logging.ERROR]
    assert "w0 has the key of s0" in errors[0]
    assert "cannot be read" in errors[1]
    assert not rig.transport.admitted
