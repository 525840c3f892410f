"""The formula for memory: what docs/reliability.md says is what the functions compute."""

import re
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from byzsgd import memory
from byzsgd.cluster import Cluster, Role, WireType

MIB = 1 << 20
TEXT = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text()
SECTION = TEXT.partition("\n## Memory")[2].partition("\n## ")[0]


def documented(cluster: Cluster, d: int, buffers: int = 0) -> dict[str, Any]:
    """Every quantity of the documented formula, computed from its text."""
    text = "".join(re.findall(r"```text\n(.*?)```", SECTION, re.DOTALL))
    found: dict[str, Any] = {
        "d": d, "n": len(cluster.nodes), "n_ps": cluster.n_servers, "n_w": cluster.n_workers,
        "f_ps": cluster.f_servers, "f_w": cluster.f_workers, "q_ps": cluster.server_quorum,
        "q_w": cluster.worker_quorum, "B": cluster.wire_type.itemsize, "u": buffers,
        "MiB": MIB, "KiB": 1024, "ceil": ceil, "min": min,
    }  # fmt: skip
    # A line's words come after two spaces; a line that is indented goes on with a sum.
    lines = [re.split(r"(?<=\S)  +", line.rstrip())[0] for line in text.splitlines()]
    for statement in re.sub(r"\n +", " ", "\n".join(lines)).splitlines():
        if statement:
            name, _, expression = statement.partition(" = ")
            found[name] = eval(expression, {"__builtins__": {}}, found)
    return found


@pytest.mark.parametrize("d", [1, 102_964, 1_750_000, 8 * MIB, 8 * MIB + 1, 25_000_000])
@pytest.mark.parametrize("shape", [(5, 4, 1, 1), (8, 13, 2, 4), (2, 1, 0, 0)])
@pytest.mark.parametrize("wire_type", WireType)
def test_the_documented_formula_is_what_is_computed(
    cluster: Callable[..., Cluster],
    shape: tuple[int, int, int, int],
    d: int,
    wire_type: WireType,
) -> None:
    """To the byte, on both sides of where a vector is large, and where some of it is buffers."""
    made = cluster(*shape, wire_type=wire_type)

    for buffers in {0, d // 3}:
        said = documented(made, d, buffers)
        assert memory.server_bytes(made, d, buffers=buffers) == said["server"]
        assert memory.worker_bytes(made, d, buffers=buffers) == said["worker"]
        assert memory.server_usual_bytes(made, d, buffers=buffers) == said["usual"]


def test_the_documented_differences_of_the_synchronous_variant(
    cluster: Callable[..., Cluster],
) -> None:
    """Of a server max(3, f_ps + 2) n_w and n_w at work, of a worker 11 vectors more.

    And 7 rounded ones, where it rounds.
    """
    one = cluster(7, 9, 2, 2, variant="synchronous")
    rounding = cluster(7, 9, 2, 2, variant="synchronous", wire_type="bfloat16")
    said, v = documented(one, 1000), 4000

    gradients = (max(3, 2 + 2) - 3) * 9 + 2 * (9 - one.worker_quorum)
    assert memory.server_bytes(one, 1000) == said["server"] + gradients * v
    assert memory.worker_bytes(one, 1000) == said["worker"] + 11 * v
    expected = documented(rounding, 1000)["worker"] + 11 * v + 7 * 2000
    assert memory.worker_bytes(rounding, 1000) == expected


@pytest.mark.parametrize("wire_type", ["float16", "bfloat16"])
def test_two_bytes_a_coordinate_cost_less_memory(
    cluster: Callable[..., Cluster], wire_type: str
) -> None:
    """Of large vectors, on both sides."""
    d = 1_750_000
    full, half = cluster(5, 7, 1, 2), cluster(5, 7, 1, 2, wire_type=wire_type)

    assert memory.wire_bytes(half, d) == memory.wire_bytes(full, d) // 2
    assert memory.server_bytes(half, d) < memory.server_bytes(full, d)
    assert memory.worker_bytes(half, d) < 0.8 * memory.worker_bytes(full, d)


@pytest.mark.parametrize("count", [memory.wire_bytes, memory.server_bytes,
                                   memory.server_usual_bytes, memory.worker_bytes])  # fmt: skip
def test_buffers_cost_as_much_as_in_float32(
    cluster: Callable[..., Cluster], count: Callable[..., int]
) -> None:
    """Where all else is halves; where nothing is, they cost what parameters do."""
    d = 1_750_000
    full, half = cluster(5, 7, 1, 2), cluster(5, 7, 1, 2, wire_type="bfloat16")

    assert count(half, d) < count(half, d, buffers=d // 2) < count(half, d, buffers=d - 1)
    assert count(full, d) == count(full, d, buffers=d // 2)


def examples(cluster: Callable[..., Cluster]) -> list[str]:
    made = cluster(5, 7, 1, 2)
    rows = []
    for d, size, vector in (
        (100_000, "0.1 M", "0.4 MB"),
        (1_750_000, "1.75 M", "7 MB"),
        (25_000_000, "25 M", "100 MB"),
    ):
        amounts = [
            f"{count(made, d) / 1e9:.2g} GB"
            for count in (memory.server_usual_bytes, memory.server_bytes, memory.worker_bytes)
        ]
        rows.append(f"| {size} | {vector} | {' | '.join(amounts)} |")
    return rows


def test_the_documented_examples_are_computed(cluster: Callable[..., Cluster]) -> None:
    """The table for 5 servers and 7 workers."""
    rows = examples(cluster)

    assert [line for line in SECTION.splitlines() if line.startswith("| ")][2:] == rows, rows


def test_the_kernels_part_grows_with_connections(cluster: Callable[..., Cluster]) -> None:
    """10 MB each: of a server 2 c + n_ps - 1, of a worker 2 n_ps."""
    made = cluster(5, 7, 1, 2)
    c = documented(made, 1)["c"]

    assert memory.kernel_bytes(made, Role.SERVER) == 10 * MIB * (2 * c + 4)
    assert memory.kernel_bytes(made, Role.WORKER) == 10 * MIB * 10


@pytest.mark.parametrize("role", [Role.SERVER, Role.WORKER])
def test_few_thousand_descriptors_do_for_a_usual_cluster(
    cluster: Callable[..., Cluster], role: Role
) -> None:
    """As documented; a hundred nodes more take more."""
    assert memory.descriptors(cluster(8, 13, 2, 4), role) <= 4096
    assert "Allow 4,096 file descriptors" in SECTION
    more = memory.descriptors(cluster(50, 100, 16, 33), role)
    assert more > memory.descriptors(cluster(8, 13, 2, 4), role)
