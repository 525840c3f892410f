"""Words, variables and defaults: which of them a command takes."""

import argparse
import re
from pathlib import Path

import pytest

from byzsgd_daemons import cli, config, init, nursery
from byzsgd_daemons.cli import main
from byzsgd_daemons.config import read_cluster

VARIABLES = {
    "BYZSGD_CLUSTER": "/etc/byzsgd/cluster.toml",
    "BYZSGD_ID": "s3",
    "BYZSGD_KEY": "/run/key",
    "BYZSGD_STATE": "/state",
    "BYZSGD_HTTP": "0.0.0.0:9100",
    "BYZSGD_BIND": "0.0.0.0",
    "BYZSGD_INITIAL": "/etc/byzsgd/initial.safetensors",
    "BYZSGD_LOG_LEVEL": "DEBUG",
    "BYZSGD_DEVICE": "cuda:1",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def parsed(*words: str) -> argparse.Namespace:
    return cli._parser().parse_args(words)


def test_a_daemon_takes_all_that_differs_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read as the flag would be."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    server, worker = parsed("server"), parsed("worker")

    assert server.cluster == Path("/etc/byzsgd/cluster.toml")
    assert (server.id, server.key, server.state) == ("s3", Path("/run/key"), Path("/state"))
    assert (server.http, server.bind) == ("0.0.0.0:9100", "0.0.0.0")
    assert server.initial == Path("/etc/byzsgd/initial.safetensors")
    assert (server.log_level, worker.device) == ("DEBUG", "cuda:1")


def test_a_flag_counts_more_than_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an empty variable is none."""
    monkeypatch.setenv("BYZSGD_CLUSTER", "there.toml")
    monkeypatch.setenv("BYZSGD_KEY", "")

    assert parsed("status").cluster == Path("there.toml")
    assert parsed("status", "--cluster", "here.toml").cluster == Path("here.toml")
    assert parsed("server", "--id", "s0").key is None


@pytest.mark.parametrize(
    "words", [("check",), ("doctor", "--id", "s0"), ("keys", "rotate", "s0"), ("drain", "s0")]
)
def test_every_command_finds_the_cluster_file_by_itself(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the variable, or else in this folder."""
    assert parsed(*words).cluster == Path("cluster.toml")
    monkeypatch.setenv("BYZSGD_CLUSTER", "there.toml")
    assert parsed(*words).cluster == Path("there.toml")


@pytest.mark.parametrize("words", [("check", "x"), ("doctor", "x"), ("keys", "rotate", "x", "s0")])
def test_a_cluster_file_can_be_named(words: tuple[str, ...]) -> None:
    """First, where a command is about the file."""
    more = ("--id", "s0") if words[0] == "doctor" else ()
    assert parsed(*words, *more).cluster == Path("x")
    if words[0] == "keys":
        assert parsed(*words).id == "s0"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("hidden=32", 32),
        ("rate=1e-05", 1e-05),
        ("deep=true", True),
        ("path=my data.csv", "my data.csv"),
        ('path="32"', "32"),
        ("path=a=b", "a=b"),
        ("empty=", ""),
        ("day=2026-11-27", "2026-11-27"),
        ("list=[1, 2]", "[1, 2]"),
        ('quoted=say "é\U0001f600\\"', 'say "é\U0001f600\\"'),
    ],
)
def test_an_argument_of_the_task_reaches_its_cluster_file(
    word: str, value: object, tmp_path: Path
) -> None:
    """A number or truth value as TOML has it; anything else is a text, as it stands."""
    name = word.partition("=")[0]
    assert main(["init", str(tmp_path), "--task", "x.py:x", "--task-option", word]) == 0

    options = read_cluster(tmp_path / "cluster.toml").task_options
    assert dict(options) == {name: value}
    assert type(options[name]) is type(value)


def test_an_argument_of_the_task_has_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """And a value."""
    for word in ("hidden", "=3"):
        with pytest.raises(SystemExit):
            main(["init", "--task-option", word])
        assert f"found {word!r}; must be NAME=VALUE, such as hidden=32" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["debug", "LOUD"])
def test_a_wrong_variable_is_wrong_words(
    level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the commands that it is for, and of no other."""
    monkeypatch.setenv("BYZSGD_LOG_LEVEL", level)
    with pytest.raises(SystemExit) as end:
        main(["server", "--id", "s0"])

    assert end.value.code == 2
    assert f"argument --log-level: {level!r} is unknown; " in capsys.readouterr().err
    assert parsed("status").cluster


def test_help_names_the_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the flags that they stand for."""
    with pytest.raises(SystemExit):
        main(["server", "--help"])
    usage = capsys.readouterr().out
    assert [name for name in VARIABLES if name not in usage] == ["BYZSGD_DEVICE"]


def test_the_documented_variables_are_those_there_are() -> None:
    """All of them, and no other."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert set(re.findall(r"`(BYZSGD_\w+)`", text)) == set(VARIABLES)


def test_local_daemons_take_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or a folder is one node's, and they are started with flags of their own."""
    monkeypatch.setenv("BYZSGD_STATE", "/state")
    monkeypatch.setenv("HOME", "/home/somebody")
    environment = nursery._environment()
    assert "BYZSGD_STATE" not in environment
    assert environment["HOME"] == "/home/somebody"


def test_a_variable_does_for_a_whole_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``byzsgd check`` without a word."""
    plan = init.Plan(task="quadratic")
    addresses = init.Addresses.consecutive(plan, "127.0.0.1", 7000, 9100)
    monkeypatch.setenv("BYZSGD_CLUSTER", str(init.create(tmp_path, plan, addresses)))
    assert main(["check", "--parameters", "1000"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'cluster.toml'}: fine")


def test_every_node_of_a_new_cluster_can_have_a_host_of_its_own(tmp_path: Path) -> None:
    """Then all have the same ports, as containers do."""
    assert main(["init", str(tmp_path), "--task", "quadratic", "--host", "byzsgd-{id}.lan"]) == 0
    cluster = config.read_cluster(tmp_path / "cluster.toml")

    assert [node.address for node in cluster.nodes if node.address] == [
        f"byzsgd-s{n}.lan:7000" for n in range(5)
    ]
    assert [node.http for node in cluster.nodes if node.http] == [
        f"byzsgd-{node}.lan:9100" for node in (*cluster.servers, *cluster.workers)
    ]


def test_addresses_of_pods_are_not_to_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rather than that a word is heeded by nobody."""
    assert main(["init", str(tmp_path), "--kubernetes", "--port", "7000"]) == 2
    assert capsys.readouterr().err == (
        "byzsgd: --kubernetes says where pods are: leave out --port\n"
    )
    assert not list(tmp_path.iterdir())


def test_nodes_of_a_new_cluster_can_be_called_as_pods(tmp_path: Path) -> None:
    """Those of deploy/kubernetes, behind the Services of their roles; with a key each."""
    assert main(["init", str(tmp_path), "--task", "quadratic", "--kubernetes"]) == 0
    cluster = config.read_cluster(tmp_path / "cluster.toml")

    assert cluster.servers == tuple(f"server-{n}" for n in range(5))
    assert [node.address for node in cluster.nodes if node.address] == [
        f"server-{n}.server:7000" for n in range(5)
    ]
    assert [node.http for node in cluster.nodes if node.id in cluster.workers] == [
        f"worker-{n}.worker:9100" for n in range(7)
    ]
    for node in cluster.nodes:
        config.secret_key(node, config.Settings(id=node.id, cluster=tmp_path / "cluster.toml"))
