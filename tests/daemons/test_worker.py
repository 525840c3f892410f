"""A worker daemon is built from its files."""

import asyncio
from typing import Any

import numpy as np
import pytest

from byzsgd.errors import ConfigError, TaskError
from byzsgd.protocol import Worker
from byzsgd.tasks import Share
from byzsgd.tasks.quadratic import quadratic
from byzsgd_daemons import daemon, worker
from byzsgd_daemons.config import Settings
from byzsgd_daemons.host import Host


@pytest.fixture
def served(files: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serves with some settings, and returns the host that would run and its HTTP address."""
    found: list[Any] = []

    async def run(host: Host, transport: Any, http: Any, reload: Any) -> None:
        found.append((host, http))

    monkeypatch.setattr(daemon, "run", run)

    def serve(identity: str = "w1", **changes: Any) -> tuple[Host, Any]:
        asyncio.run(worker.serve(Settings(id=identity, cluster=files.path, **changes)))
        host: tuple[Host, Any] = found.pop()
        return host

    return serve


def test_a_worker_computes_its_own_share(served: Any) -> None:
    """The gradient is the task's, on the batches of its place among the workers."""
    host, http = served(pull_after=7.0)

    assert isinstance(host.node, Worker)
    assert (host.node.identity, host.node.pull_after, http) == ("w1", 7.0, None)
    model = np.ones(100, np.float32)
    expected = quadratic().source(Share("w1", 0, 1, seed=3, batch_size=32)).gradient(model, 5)
    gradient, loss = host._gradient(model, 5)
    assert np.array_equal(gradient, expected[0])
    assert loss == expected[1]


@pytest.mark.parametrize(
    ("identity", "changes"),
    [("w9", {}), ("s1", {}), ("w1", {"http": "9100"}), ("w1", {"key": "no such file"})],
)
def test_wrong_settings_are_refused(
    served: Any, identity: str, changes: dict[str, Any], tmp_path: Any
) -> None:
    """As errors of the files."""
    if "key" in changes:
        changes = {"key": tmp_path / changes["key"]}
    with pytest.raises(ConfigError):
        served(identity, **changes)


def test_a_device_that_the_task_cannot_use_is_refused(served: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(TaskError, match=r"computes on the CPU alone, not on 'cuda'$"):
        served(device="cuda")


def test_a_task_that_is_not_there_is_refused(served: Any, files: Any) -> None:
    """With the nearest name."""
    files.change('"quadratic"', '"quadratics"')
    with pytest.raises(TaskError, match=r"did you mean quadratic\?"):
        served()
