"""``byzsgd check``: what it says of a cluster file that is fine."""

from pathlib import Path

import pytest
from tests.daemons import buffered

from byzsgd import memory
from byzsgd.cluster import Role
from byzsgd_daemons import init
from byzsgd_daemons.cli import main
from byzsgd_daemons.config import read_cluster

MIB = 1 << 20


def made(folder: Path, task: str) -> Path:
    plan = init.Plan(task=task)
    return init.create(folder, plan, init.Addresses.consecutive(plan, "127.0.0.1", 5000, 9100))


def check(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[str]:
    assert main(["check", *map(str, words)]) == 0
    return capsys.readouterr().out.splitlines()


def expected(file: Path, d: int, buffers: int = 0) -> list[str]:
    cluster, lines = read_cluster(file), []
    for role, most, besides in (
        (Role.SERVER, memory.server_bytes(cluster, d, buffers=buffers), ""),
        (Role.WORKER, memory.worker_bytes(cluster, d, buffers=buffers), " and its data set"),
    ):
        limit = -(-(most + memory.kernel_bytes(cluster, role)) // MIB)
        lines.append(
            f"  a {role} takes {-(-most // MIB)} MB at worst{besides}; with the kernel's buffers "
            f"for it: MemoryMax={limit}M"
        )
    return lines


def test_it_computes_the_memory_of_the_task_s_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Per role: the bound, and the MemoryMax to give."""
    file = made(tmp_path, "quadratic")
    *_, head, server, worker = check(capsys, file)

    assert head == "memory: 100 parameters, 1 MB a vector"
    assert [server, worker] == expected(file, 100)


def test_the_models_size_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then the task is not loaded: here there is none."""
    file = made(tmp_path, "model.py:task")
    *_, head, server, worker = check(capsys, file, "--parameters", "25000000")

    assert head == "memory: 25000000 parameters, 96 MB a vector"
    assert [server, worker] == expected(file, 25_000_000)


def test_half_a_wire_type_is_shown_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what a vector takes on its way to a worker, and the bounds that follow."""
    full = made(tmp_path, "model.py:task")
    *_, _, worker = check(capsys, full, "--parameters", "25000000")
    half = tmp_path / "half.toml"
    half.write_text(full.read_text().replace('wire_type = "float32"', 'wire_type = "bfloat16"'))
    *_, head, server, less = check(capsys, half, "--parameters", "25000000")

    assert head == (
        "memory: 25000000 parameters, 96 MB a vector, 48 MB between servers and workers (bfloat16)"
    )
    assert [server, less] == expected(half, 25_000_000)
    assert less != worker


def test_buffers_are_not_halved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The task says how many coordinates are."""
    buffered.write_task(tmp_path, 900_000, 1_000_000)
    file = made(tmp_path, buffered.NAME)
    file.write_text(file.read_text().replace('wire_type = "float32"', 'wire_type = "float16"'))
    *_, head, server, worker = check(capsys, file)

    assert head == (
        "memory: 1000000 parameters, 4 MB a vector, 4 MB between servers and workers (float16)"
    )
    assert [server, worker] == expected(file, 1_000_000, 900_000)
    assert worker != expected(file, 1_000_000)[1]


MOVABLE = """
from byzsgd.tasks.quadratic import Quadratic
class Mine(Quadratic):
    def to(self, device): return self
def mine(): return Mine(10, noise=1.0)
"""


def test_a_device_is_tried_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a task that can move, by the task; nothing is said where nobody asked."""
    (tmp_path / "own.py").write_text(MOVABLE)
    file = made(tmp_path, "own.py:mine")

    assert not [line for line in check(capsys, file) if line.startswith("device")]
    *_, line, _, _, _ = check(capsys, file, "--device", "cpu:0")
    assert line.startswith("device: cpu")


def test_a_device_that_workers_would_not_find_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence that a worker would end with, and its exit status."""
    file = made(tmp_path, "digits")

    assert main(["check", str(file), "--device", "cuda:99"]) == 2
    assert capsys.readouterr().err.startswith(
        "byzsgd: task digits: device 'cuda:99' is not available to torch "
    )


def test_a_task_that_cannot_be_loaded_here_is_no_mistake_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says why the memory is unknown, and what to give instead."""
    *_, last = check(capsys, made(tmp_path, "model.py:task"))

    assert last.startswith("memory: unknown, for ")
    assert last.endswith("; give the model's size with --parameters")
