"""A server daemon is built from its files: initial model, checkpoint, and everything refused."""

import asyncio
import errno
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byzsgd import checkpoint
from byzsgd.errors import ConfigError
from byzsgd.protocol import ParameterServer
from byzsgd.tasks.quadratic import quadratic
from byzsgd_daemons import daemon, initial, server
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.host import Host


@pytest.fixture
def served(files: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serves with some settings, and returns the node that would run and its HTTP address."""
    found: list[Any] = []

    async def run(host: Host, transport: Any, http: Any, reload: Any) -> None:
        found.append((host.node, http))

    def built(settings: Settings) -> initial.Initial:
        return initial.build(read_cluster(settings.cluster), settings.folder)

    monkeypatch.setattr(daemon, "run", run)
    monkeypatch.setattr(initial, "_built_elsewhere", built)

    def serve(identity: str = "s1", **changes: Any) -> tuple[ParameterServer, Any]:
        asyncio.run(server.serve(Settings(id=identity, cluster=files.path, **changes)))
        node: tuple[ParameterServer, Any] = found.pop()
        return node

    return serve


def save(files: Any, state: Path, step: int, value: float) -> None:
    digest = checkpoint.digest_of(read_cluster(files.path))
    vector = np.full(100, value, np.float32)
    checkpoint.save(state / "checkpoints", step, vector, digest=digest)


def test_a_server_begins_with_the_tasks_model(served: Any) -> None:
    """At step 0, seeded by the cluster file, without HTTP if no address is given."""
    node, http = served()

    assert (node.identity, node.step, http) == ("s1", 0, None)
    assert np.array_equal(node.vector, quadratic().initial(3))


def test_settings_reach_the_node(served: Any) -> None:
    """The times and the address that the flags give."""
    node, http = served(pull_after=7.0, http="127.0.0.1:9100")

    assert node.pull_after == 7.0
    assert http == ("127.0.0.1", 9100)


def test_a_server_resumes_from_its_newest_checkpoint(
    served: Any, files: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Step and model, and says so."""
    caplog.set_level(logging.INFO)
    save(files, tmp_path / "state", 100, 1)
    save(files, tmp_path / "state", 200, 2)
    node, _ = served(state=tmp_path / "state")

    assert node.step == 200
    assert (node.vector == 2).all()
    assert caplog.messages == ["resumes from the checkpoint of step 200"]


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    served: Any, files: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server goes on from an older one."""
    state = tmp_path / "state"
    save(files, state, 100, 1)
    save(files, state, 200, 2)
    damaged = state / "checkpoints" / "step-000000000200.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    node, _ = served(state=state)

    assert node.step == 100
    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith(f"{damaged}: cannot be read, so it is passed over")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_holds_no_start_up(
    served: Any,
    files: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """One silent server more would be worse: it resumes from what it can read, and says so."""
    save(files, tmp_path, 100, 1)

    def refused(path: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refused)
    node, _ = served(state=tmp_path)

    assert node.step == 100
    [error] = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert error.startswith("checkpoint not saved, training goes on: ")


def test_a_state_folder_that_cannot_be_made_is_refused(served: Any, tmp_path: Path) -> None:
    """It was asked for, and is not to be had: at the start, where the operator looks."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=rf"^--state {tmp_path}/file/state: .*cannot be written"):
        served(state=tmp_path / "file" / "state")


def test_a_state_folder_without_permission_is_refused(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permission comes back by itself."""

    def refused(path: Path, data: bytes) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(ConfigError, match=rf"^--state {tmp_path}: .*no permission: "):
        served(state=tmp_path)


def test_a_resumed_server_may_write_into_nothing_of_the_file(
    served: Any, files: Any, tmp_path: Path
) -> None:
    """The file may be removed while the server runs: the model is in memory."""
    save(files, tmp_path / "state", 100, 1)
    node, _ = served(state=tmp_path / "state")
    for path in (tmp_path / "state" / "checkpoints").iterdir():
        path.write_bytes(b"")

    assert (node.vector == 1).all()


def test_an_unwise_file_is_warned_of(
    served: Any, files: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, at the start."""
    files.change("seed = 3", "seed = 3\nworker_momentum = 0")
    text = files.path.read_text().replace("f_workers = 0", "f_workers = 1")
    nodes = "".join(
        f"\n[[nodes]]\nid = 'w{n}'\nrole = 'worker'\npublic_key = '{n}{'0' * 39}'\n"
        for n in (2, 3, 4)
    )
    files.path.write_text(text + nodes)
    served()

    [warning] = caplog.messages
    assert warning.startswith("worker_momentum = 0: ")


def test_wrong_files_are_refused_before_the_task_is_built(
    served: Any, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Identity, role, key and HTTP address are looked at first: they take no time."""

    def built(settings: Settings) -> initial.Initial:
        raise AssertionError

    monkeypatch.setattr(initial, "_built_elsewhere", built)
    for identity, changes in (
        ("s9", {}),
        ("w1", {}),
        ("s1", {"key": files.secret("w1")}),
        ("s1", {"http": "9100"}),
    ):
        with pytest.raises(ConfigError):
            served(identity, **changes)
