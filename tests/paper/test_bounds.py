"""Bounds, checked when a cluster file is loaded; a violation is a clear error."""

from collections.abc import Callable
from typing import Any

import pytest

from byzsgd.errors import ClusterError

Make = Callable[..., Any]


@pytest.mark.parametrize("f_workers", [1, 2, 3])
def test_how_many_workers_are_needed(cluster: Make, f_workers: int) -> None:
    """Asynchronous: n_w >= 3 f_w + 1."""
    needed = 3 * f_workers + 1
    assert cluster(workers=needed, f_workers=f_workers).n_workers == needed

    with pytest.raises(ClusterError, match=rf"n_w >= 3 f_w \+ 1, but {needed - 1} < {needed}"):
        cluster(workers=needed - 1, f_workers=f_workers)


@pytest.mark.parametrize("f_servers", [1, 2, 3])
def test_how_many_servers_are_needed(cluster: Make, f_servers: int) -> None:
    """Asynchronous: n_ps >= 3 f_ps + 2."""
    needed = 3 * f_servers + 2
    assert cluster(servers=needed, f_servers=f_servers).n_servers == needed

    with pytest.raises(ClusterError, match=rf"n_ps >= 3 f_ps \+ 2, but {needed - 1} < {needed}"):
        cluster(servers=needed - 1, f_servers=f_servers)


def test_the_quorum_of_workers(cluster: Make) -> None:
    """2 f_w + 1 <= q_w <= n_w - f_w (default q_w = n_w - f_w)."""
    assert cluster(workers=10, f_workers=2).worker_quorum == 8
    for quorum in (5, 8):
        assert cluster(workers=10, f_workers=2, worker_quorum=quorum).worker_quorum == quorum

    with pytest.raises(ClusterError, match=r"q_w >= 2 f_w \+ 1, but 4 < 5"):
        cluster(workers=10, f_workers=2, worker_quorum=4)
    with pytest.raises(ClusterError, match="q_w <= n_w - f_w, but 9 > 8"):
        cluster(workers=10, f_workers=2, worker_quorum=9)


def test_the_quorum_of_servers(cluster: Make) -> None:
    """2 f_ps + 2 <= q_ps <= n_ps - f_ps (default q_ps = n_ps - f_ps)."""
    assert cluster(servers=10, f_servers=2).server_quorum == 8
    for quorum in (6, 8):
        assert cluster(servers=10, f_servers=2, server_quorum=quorum).server_quorum == quorum

    with pytest.raises(ClusterError, match=r"q_ps >= 2 f_ps \+ 2, but 5 < 6"):
        cluster(servers=10, f_servers=2, server_quorum=5)
    with pytest.raises(ClusterError, match="q_ps <= n_ps - f_ps, but 9 > 8"):
        cluster(servers=10, f_servers=2, server_quorum=9)


def test_one_trusted_server(cluster: Make) -> None:
    """One trusted server: "f_ps = 0 also allows n_ps = 1"."""
    assert cluster(servers=1, f_servers=0).server_quorum == 1

    with pytest.raises(ClusterError, match="n_ps >= 3 f_ps"):
        cluster(servers=1, f_servers=1)


def test_the_vanilla_parameter_server(cluster: Make) -> None:
    """With f_w = 0 and plain averaging that is the vanilla parameter server."""
    vanilla = cluster(servers=1, f_servers=0, workers=3, f_workers=0, rule="average")

    assert (vanilla.server_quorum, vanilla.worker_quorum, vanilla.rule) == (1, 3, "average")


@pytest.mark.parametrize("f", [1, 2, 3])
def test_the_synchronous_variant_needs_fewer_nodes(cluster: Make, f: int) -> None:
    """Synchronous (delays bounded by round_timeout): n_w >= 2 f_w + 1, n_ps >= 3 f_ps + 1."""
    enough = cluster(
        variant="synchronous", servers=3 * f + 1, f_servers=f, workers=2 * f + 1, f_workers=f
    )
    assert (enough.server_quorum, enough.worker_quorum) == (2 * f + 1, f + 1)

    with pytest.raises(ClusterError, match=rf"n_ps >= 3 f_ps \+ 1, but {3 * f} < {3 * f + 1}"):
        cluster(variant="synchronous", servers=3 * f, f_servers=f)
    with pytest.raises(ClusterError, match=rf"n_w >= 2 f_w \+ 1, but {2 * f} < {2 * f + 1}"):
        cluster(variant="synchronous", workers=2 * f, f_workers=f)


def test_the_quorums_of_the_synchronous_variant(cluster: Make) -> None:
    """Synchronous: 2 f_ps + 1 <= q_ps <= n_ps - f_ps, and min(2 f_w + 1, n_w - f_w) <= q_w."""
    with pytest.raises(ClusterError, match=r"q_ps >= 2 f_ps \+ 1, but 2 < 3"):
        cluster(variant="synchronous", servers=5, f_servers=1, server_quorum=2)
    with pytest.raises(ClusterError, match=r"q_w >= min\(2 f_w \+ 1, n_w - f_w\), but 4 < 5"):
        cluster(variant="synchronous", workers=10, f_workers=2, worker_quorum=4)
    with pytest.raises(ClusterError, match=r"q_w >= min\(2 f_w \+ 1, n_w - f_w\), but 2 < 3"):
        cluster(variant="synchronous", workers=5, f_workers=2, worker_quorum=2)


def test_a_gather_compares(cluster: Make) -> None:
    """Of several servers a quorum has two at least, also where nobody may lie."""
    with pytest.raises(ClusterError, match=r"q_ps >= max\(2 f_ps \+ 1, 2\), but 1 < 2"):
        cluster(variant="synchronous", servers=3, f_servers=0, server_quorum=1)


def test_gathers_are_rarer_in_the_synchronous_variant(cluster: Make) -> None:
    """With T = 1 the filters never run, so this variant wants T of 2 to 5."""
    assert cluster(variant="synchronous").gather_period == 5
    assert not cluster(variant="synchronous").warnings()
    assert "2 to 5" in " ".join(cluster(variant="synchronous", gather_period=1).warnings())
