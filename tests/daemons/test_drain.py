"""``byzsgd drain``: whether nodes can be stopped, by what all nodes show, of whom some may lie."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from byzsgd.cluster import Cluster
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd_daemons import drain, init, watch
from byzsgd_daemons.cli import main
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.watch import Status

GONE: Status = {"error": "no answer"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """5 servers and 7 workers, of which 1 and 2 may lie."""
    plan = init.Plan(task="quadratic")
    return init.create(tmp_path, plan, init.Addresses.consecutive(plan, "127.0.0.1", 7000, 9100))


@pytest.fixture
def cluster(file: Path) -> Cluster:
    return read_cluster(file)


def view(cluster: Cluster, **changes: Status) -> dict[str, Status]:
    """All nodes in step, but for some."""
    fine: Status = {"ready": True, "done": False, "silent": []}
    nodes = (*cluster.servers, *cluster.workers)
    return {node: fine | changes.get(node, {}) for node in nodes}


def reasons(cluster: Cluster, found: dict[str, Status], *nodes: str) -> str:
    return "; ".join(drain.reasons(cluster, found, nodes))


def test_as_many_as_may_lie_can_be_stopped(cluster: Cluster) -> None:
    """Of each role by itself."""
    for nodes in (["s0"], ["w0", "w1"], ["s4", "w3", "w6"]):
        assert reasons(cluster, view(cluster), *nodes) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"s3": GONE}, "s3 does not answer, and only 1 of 5 servers may be away"),
        ({"s3": {"ready": False}}, "s3 is not in step, and only 1 of 5 servers may be away"),
        ({"s3": {"ready": "yes"}}, "s3 is not in step, and only 1 of 5 servers may be away"),
        ({"s0": {"silent": ["s3"]}, "s1": {"silent": ["s3"]}}, "s3 is silent (so say s0, s1), "
         "and only 1 of 5 servers may be away"),
    ],
)  # fmt: skip
def test_who_is_away_already_counts(cluster: Cluster, changes: Any, words: str) -> None:
    """But not for another role, and not where it is the one to be stopped."""
    found = view(cluster, **changes)

    assert reasons(cluster, found, "s1") == words
    assert reasons(cluster, found, "w1") == ""
    assert reasons(cluster, found, "s3") == ""
    assert reasons(cluster, view(cluster, w3=GONE), "w1") == ""
    assert reasons(cluster, view(cluster, w3=GONE, w4=GONE), "w1").startswith("w3 does not answer")


@pytest.mark.parametrize(
    "lie",
    [{"silent": ["s1", "s2"]}, {"silent": 3}, {"peers": {"s1": {"last_seen_seconds": None}}},
     {"peers": 3}, {"peers": {"s1": 3}}, {"done": True}],
)  # fmt: skip
def test_one_lying_server_keeps_nobody_from_stopping(cluster: Cluster, lie: Status) -> None:
    """Nor makes it look safe: what f say of others does not count."""
    assert reasons(cluster, view(cluster, s4=lie), "s0") == ""
    waits = view(cluster, s4=lie, w0=GONE, w1=GONE)
    assert reasons(cluster, waits, "w2") != ""


def test_after_the_end_no_worker_is_needed(cluster: Cluster) -> None:
    """Servers are: byzsgd fetch wants a quorum."""
    done: Status = {"done": True}
    found = view(cluster, s0=done, s1=done, s2=GONE, w0=GONE, w1=GONE)

    assert reasons(cluster, found, "w2") == ""
    assert reasons(cluster, found, "s0") != ""


def test_a_node_without_http_is_seen_by_others_eyes(cluster: Cluster) -> None:
    """It is there unless more servers than may lie have not heard of it."""
    found = view(cluster)
    del found["s3"]
    assert reasons(cluster, found, "s0") == ""
    never: Status = {"peers": {"s3": {"last_seen_seconds": None}}}
    found = view(cluster, s1=never, s2=never)
    del found["s3"]
    assert reasons(cluster, found, "s0").startswith("s3 is silent (so say s1, s2)")


def test_where_nobody_answers_nothing_is_safe(cluster: Cluster) -> None:
    """Also not with a cluster file that names no addresses for HTTP."""
    assert reasons(cluster, {}, "w0") != ""
    assert reasons(cluster, dict.fromkeys(view(cluster), GONE), "s0") != ""


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (["s9"], "s9: no server or worker of the cluster; "),
        (["operator"], "operator: no server or worker"),
        (["s0", "s1"], "s0, s1: training stands still with more than 1 servers away "
         r"\(server_quorum = 4 of 5\): take fewer at once"),
        (["w0", "w1", "w2"], "w0, w1, w2: training stands still with more than 2 workers"),
    ],
)  # fmt: skip
def test_what_can_never_be_safe_is_refused(
    cluster: Cluster, nodes: Sequence[str], words: str
) -> None:
    """At once, and not when time is up."""
    with pytest.raises(ConfigError, match=f"^{words}"):
        drain.check(cluster, nodes)


def test_without_liars_to_tolerate_no_moment_is_better(tmp_path: Path) -> None:
    """There is no reserve to use up."""
    plan = init.Plan(task="quadratic", servers=2, workers=2, f_servers=0, f_workers=0)
    addresses = init.Addresses.consecutive(plan, "127.0.0.1", 7000, 9100)
    cluster = read_cluster(init.create(tmp_path / "small", plan, addresses))
    with pytest.raises(ConfigError, match=r"there is no better moment than another$"):
        drain.check(cluster, ["w0"])


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[dict[str, Status]]], None]:
    """What is found at each look, of which none waits for the next."""

    def lay_out(views: Sequence[dict[str, Status]]) -> None:
        left: Iterator[dict[str, Status]] = iter(views)

        async def statuses(cluster: Cluster) -> dict[str, Status]:
            return next(left)

        monkeypatch.setattr(watch, "statuses", statuses)
        monkeypatch.setattr(drain, "LOOK_SECONDS", 0.0)

    return lay_out


def test_it_waits_until_it_is_safe(
    cluster: Cluster, file: Path, looks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it waits for is said once; then the command ends with status 0."""
    away, behind = view(cluster, s3=GONE), view(cluster, s3={"ready": False})
    looks([away, away, behind, view(cluster)])

    assert main(["drain", "s0", "--cluster", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "waits: s3 does not answer, and only 1 of 5 servers may be away",
        "waits: s3 is not in step, and only 1 of 5 servers may be away",
        "s0 can be stopped: then 0 servers and 2 workers more may be away",
    ]


def test_it_does_not_wait_for_ever(cluster: Cluster, looks: Any, monkeypatch: Any) -> None:
    """It says why, with status 1."""
    looks([view(cluster, s3=GONE)])
    monkeypatch.setattr(drain, "LOOK_SECONDS", 2.0)

    with pytest.raises(ByzsgdError, match=r"^not safe within 1 s: s3 does not answer") as error:
        drain.drain(cluster, ["s0"], seconds=1.0, tell=lambda _: None)
    assert error.value.exit_status == 1
