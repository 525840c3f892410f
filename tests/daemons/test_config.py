"""One node's settings: every wrong word is named, with what would be right."""

import re
from pathlib import Path
from typing import Any

import pytest

from byzsgd.aggregation import RULES
from byzsgd.cluster import Member, Role
from byzsgd.errors import ConfigError
from byzsgd.transport import keys
from byzsgd_daemons.config import Settings, http_address, member, read_cluster, secret_key


def settings(path: Path, identity: str = "s1", **changes: Any) -> Settings:
    return Settings(id=identity, cluster=path, **changes)


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        read_cluster(path)
    assert error.value.exit_status == 2
    return str(error.value)


# The file


def test_a_cluster_file_is_read(files: Any) -> None:
    """As TOML, with every check of the cluster."""
    cluster = read_cluster(files.path)

    assert (cluster.servers, cluster.workers) == (("s1",), ("w1",))
    assert (cluster.task, cluster.seed) == ("quadratic", 3)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or a folder."""
    path = tmp_path / "none.toml"

    assert problem(path) == f"{path}: cannot be read: No such file or directory"
    assert problem(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe", "is not UTF-8 text, so not a cluster file"),
        (b"f_servers = ", "is not valid TOML: Invalid value"),
        (b"seed = 1" + b"0" * 5000, "is not valid TOML: Exceeds the limit"),
        (b"seed = " + b"[" * 100_000, "is not valid TOML: maximum recursion depth"),
        (b"seed = 2024-02-30", "is not valid TOML: "),
    ],
    ids=["bytes", "words", "a long number", "deep", "a day that was not"],
)
def test_what_is_no_toml_is_refused_with_the_reason(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    """Whatever it is that the parser stumbles over: one line, no traceback."""
    path = tmp_path / "cluster.toml"
    path.write_bytes(content)

    assert problem(path).startswith(f"{path}: {sentence}")
    assert len(problem(path).splitlines()) == 1


def test_every_problem_has_a_line_of_its_own(files: Any) -> None:
    """Which begins with the file's name."""
    files.change("f_servers = 0", "f_servers = 1\nstep = 5")

    lines = problem(files.path).splitlines()
    assert lines == [
        f"{files.path}: step: unknown key; did you mean steps?",
        f"{files.path}: f_servers: n_ps >= 3 f_ps + 2, but 1 < 5 (f_ps = 1)",
        f"{files.path}: server_quorum: q_ps >= 2 f_ps + 2, but 0 < 4",
    ]


# The rule


def workers(files: Any, count: int) -> None:
    """Add workers to a file that has one, so that there are so many."""
    with files.path.open("a") as file:
        for n in range(2, count + 1):
            file.write(f'\n[[nodes]]\nid = "w{n}"\nrole = "worker"\n')
            file.write(f"public_key = '{keys.generate().public}'\n")


def test_an_unknown_rule_names_the_nearest(files: Any) -> None:
    """When the file is loaded, not at the first update."""
    files.change("seed = 3", 'rule = "xyz"')

    assert problem(files.path) == (
        f"{files.path}: rule: 'xyz' is unknown; known: {', '.join(sorted(RULES))}"
    )
    files.change('"xyz"', '"krumm"')
    assert problem(files.path) == f"{files.path}: rule: 'krumm' is unknown; did you mean krum?"


def test_unknown_pre_steps_name_the_nearest(files: Any) -> None:
    """All of them, and an unknown rule as well."""
    files.change("seed = 3", 'rule = "mdaa"\npre_steps = ["nmn", "xyz", "nnm"]')

    assert problem(files.path).splitlines() == [
        f"{files.path}: rule: 'mdaa' is unknown; did you mean mda?",
        f"{files.path}: pre_steps: 'nmn' is unknown; did you mean nnm?",
        f"{files.path}: pre_steps: 'xyz' is unknown; known: bucketing, clipping, nnm",
    ]


def test_a_pre_step_is_there_once(files: Any) -> None:
    """Twice would not help and cost a multiple."""
    files.change("seed = 3", 'pre_steps = ["nnm", "clipping", "nnm"]')

    assert problem(files.path) == f"{files.path}: pre_steps: 'nnm' is there twice; leave one out"


@pytest.mark.parametrize(
    ("rule", "n", "f", "sentence"),
    [
        ("krum", 2, 0, "krum needs n >= 2 f + 3, but 2 < 3"),
        ("krum", 3, 0, ""),
        ("krum", 7, 2, "krum needs n >= 2 f + 3, but 5 < 7"),
        ("krum", 9, 2, ""),
        ("multi_krum", 7, 2, "multi_krum needs n >= 2 f + 3, but 5 < 7"),
        ("bulyan", 12, 2, "bulyan needs n >= 4 f + 3, but 10 < 11"),
        ("bulyan", 13, 2, ""),
    ],
)
def test_a_rule_needs_its_own_bound_at_the_quorum(
    files: Any, rule: str, n: int, f: int, sentence: str
) -> None:
    """Krum needs q_w >= 2 f_w + 3, which is more than ByzSGD's smallest quorum, 2 f_w + 1."""
    files.change("seed = 3", f'rule = "{rule}"')
    files.change("f_workers = 0", f"f_workers = {f}")
    workers(files, n)
    if sentence:
        assert problem(files.path) == (
            f"{files.path}: rule: {sentence}, where n is worker_quorum and f is f_workers = {f}"
        )
    else:
        assert read_cluster(files.path).rule == rule


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule not in ("bulyan", "krum", "multi_krum")]
)
def test_every_other_rule_fits_every_cluster(files: Any, rule: str) -> None:
    """Their bounds are the cluster's own, or less, and so they are after clipping and nnm."""
    files.change("seed = 3", f'rule = "{rule}"\npre_steps = ["clipping", "nnm"]')
    files.change("f_workers = 0", "f_workers = 2")
    workers(files, 7)

    assert read_cluster(files.path).rule == rule


@pytest.mark.parametrize(("n", "fits"), [(10, False), (11, True)])
def test_pre_steps_may_need_more(files: Any, n: int, fits: bool) -> None:
    """Bucketing leaves half of the vectors and all of the liars."""
    files.change("seed = 3", 'rule = "mda"\npre_steps = ["nnm", "bucketing"]')
    files.change("f_workers = 0", "f_workers = 2")
    workers(files, n)
    if fits:
        assert read_cluster(files.path).pre_steps == ("nnm", "bucketing")
    else:
        assert problem(files.path) == (
            f"{files.path}: pre_steps: nnm + bucketing + mda needs n >= 4 f + 1, but 8 < 9, where "
            "n is worker_quorum and f is f_workers = 2"
        )


@pytest.mark.parametrize(("n", "fits"), [(6, False), (7, True)])
def test_a_synchronous_cluster_counts_all_workers(files: Any, n: int, fits: bool) -> None:
    """Who is silent there is known to lie, so Krum needs n_w >= 2 f_w + 3 and not q_w."""
    files.change("seed = 3", 'rule = "krum"\nvariant = "synchronous"')
    files.change("f_workers = 0", "f_workers = 2")
    workers(files, n)
    if fits:
        assert read_cluster(files.path).worker_quorum == 5
    else:
        assert problem(files.path) == (
            f"{files.path}: rule: krum needs n >= 2 f + 3, but 6 < 7, where n is the number of "
            "workers and f is f_workers = 2"
        )


# The node


def test_a_node_is_found_in_the_file(files: Any) -> None:
    """By its identity and role."""
    cluster = read_cluster(files.path)

    found = member(cluster, settings(files.path, "w1"), Role.WORKER)
    assert (found.id, found.role) == ("w1", Role.WORKER)


@pytest.mark.parametrize(
    ("identity", "role", "sentence"),
    [
        ("s2", Role.SERVER, "no such node in {path}; known: s1"),
        ("w-1", Role.WORKER, "no such node in {path}; did you mean w1?"),
        ("s1", Role.WORKER, "{path} says that it is a server, not a worker"),
        ("op", Role.SERVER, "{path} says that it is a operator, not a server"),
    ],
)
def test_a_node_that_is_not_there_or_another_is_named(
    files: Any, identity: str, role: Role, sentence: str
) -> None:
    """With the file, and with the nearest of the role."""
    cluster = read_cluster(files.path)

    with pytest.raises(ConfigError) as error:
        member(cluster, settings(files.path, identity), role)
    assert str(error.value) == f"--id {identity}: {sentence.format(path=files.path)}"


def test_the_key_lies_beside_the_cluster_file(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In keys/<id>.key, also where the cluster file is named by a relative path."""
    monkeypatch.chdir(files.path.parent)
    beside = settings(Path("cluster.toml"))
    node = member(read_cluster(beside.cluster), beside, Role.SERVER)

    assert beside.key_file == files.secret("s1").resolve()
    assert beside.folder == files.path.parent.resolve()
    assert secret_key(node, beside) == files.secrets["s1"]


def test_another_nodes_key_is_refused(files: Any) -> None:
    """Both public keys are named, and no secret one."""
    mixed = settings(files.path, key=files.secret("w1"))
    cluster = read_cluster(files.path)
    node, other = cluster.node("s1"), cluster.node("w1")
    assert node is not None
    assert other is not None

    with pytest.raises(ConfigError) as error:
        secret_key(node, mixed)
    assert str(error.value) == (
        f"{files.secret('w1')}: is the secret key of {other.public_key}, but {files.path} gives "
        f"s1 the public key {node.public_key}"
    )
    assert files.secrets["w1"] not in str(error.value)


# HTTP


@pytest.mark.parametrize(
    ("in_file", "given", "expected"),
    [
        ("", None, None),
        ("127.0.0.1:9100", None, ("127.0.0.1", 9100)),
        ("127.0.0.1:9100", "0.0.0.0:9101", ("0.0.0.0", 9101)),
        ("", "localhost:1", ("localhost", 1)),
        ("[::1]:65535", None, ("[::1]", 65535)),
    ],
)
def test_http_is_answered_where_the_flag_or_the_file_says(
    files: Any, in_file: str, given: str | None, expected: tuple[str, int] | None
) -> None:
    """The flag goes before the file, and without either there is none."""
    node = Member(id="s1", role=Role.SERVER, http=in_file)

    assert http_address(node, settings(files.path, http=given)) == expected


@pytest.mark.parametrize("given", ["9100", ":9100", "h:", "h:0", "h:65536", "h:x", "h:-1", "::1:1"])
def test_an_http_address_has_a_host_and_a_port(files: Any, given: str) -> None:
    """A port alone would listen to the whole world, and one out of range would raise later."""
    node = Member(id="s1", role=Role.SERVER)

    with pytest.raises(ConfigError, match=f"^--http {re.escape(given)}: must be host:port"):
        http_address(node, settings(files.path, http=given))
