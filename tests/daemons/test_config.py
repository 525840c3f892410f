"""One node's settings: every wrong word is named, with what would be right."""

import re
from pathlib import Path
from typing import Any

import pytest

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


def test_an_unknown_rule_names_the_nearest(files: Any) -> None:
    """When the file is loaded, not at the first update."""
    files.change("seed = 3", 'rule = "xyz"')

    assert problem(files.path) == (
        f"{files.path}: rule: 'xyz' is unknown; known: average, coordinate_median, krum, mda"
    )
    files.change('"xyz"', '"krumm"')
    assert problem(files.path) == f"{files.path}: rule: 'krumm' is unknown; did you mean krum?"


@pytest.mark.parametrize(("workers", "fits"), [(2, False), (3, True)])
def test_a_rule_needs_its_own_bound_at_the_quorum(files: Any, workers: int, fits: bool) -> None:
    """Krum needs q_w >= 2 f_w + 3, which is more than the cluster needs."""
    files.change("seed = 3", 'rule = "krum"')
    for n in range(2, workers + 1):
        with files.path.open("a") as file:
            file.write(f'\n[[nodes]]\nid = "w{n}"\nrole = "worker"\n')
            file.write(f"public_key = '{keys.generate().public}'\n")
    if fits:
        assert read_cluster(files.path).rule == "krum"
    else:
        assert problem(files.path) == (
            f"{files.path}: rule: krum needs n >= 2 f + 3, but 2 < 3, where n is worker_quorum "
            "and f is f_workers = 0"
        )


@pytest.mark.parametrize("rule", ["average", "coordinate_median", "mda"])
def test_every_other_rule_fits_every_cluster(files: Any, rule: str) -> None:
    """Their bounds are the cluster's own, or less."""
    files.change("seed = 3", f'rule = "{rule}"')

    assert read_cluster(files.path).rule == rule


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
