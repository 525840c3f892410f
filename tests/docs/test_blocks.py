"""Code in the documents is what its program takes: commands, cluster files, Python."""

import ast
import importlib
import json
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from tests.docs import blocks
from tests.docs.blocks import DOCUMENTS, NAMES, ROOT, Block

from byzsgd.cluster import Cluster
from byzsgd.errors import ClusterError, TaskError
from byzsgd.tasks import load_task
from byzsgd_daemons import cli, config

LANGUAGES = frozenset({"hex", "ini", "json", "python", "text", "toml", "yaml"}) | blocks.SHELL

FOLDERS = frozenset(
    {"benchmarks", "common", "daemons", "deploy", "docs", "examples", "systemd", "tests"}
)
"""Of a clone: a path that begins with one is a file of this project."""

FILES = [str(file.relative_to(ROOT)) for folder in sorted(FOLDERS)
         for file in (ROOT / folder).rglob("*.py")]  # fmt: skip

WRITTEN_AFTER = frozenset({"--out", "--into", "--output", "-o", "--tag", "-t"})
"""Flags whose file need not be there yet."""

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = frozenset(re.findall(r"^([\w./-]+):(?!=)", MAKEFILE, re.MULTILINE))
SETTINGS = frozenset(re.findall(r"\$\(([A-Z_]+)\)|\$\((?:if|or) \$\(([A-Z_]+)\)", MAKEFILE)) | (
    frozenset(re.findall(r"^([A-Z_]+) \??=", MAKEFILE, re.MULTILINE))
)

WHOLE = re.compile(r"All of \[(examples/\w+\.py)\]\([^)]*\):\n\n```python\n(.*?)```", re.DOTALL)

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)


def of_language(document: Path, *languages: str) -> list[Block]:
    """The blocks of some languages that no comment takes out."""
    return [
        block
        for block in blocks.blocks(document)
        if block.language in languages and not block.why_not
    ]


def wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What byzsgd's own parser says against a command, wherever in it byzsgd is called."""
    parser = cli._parser()
    known = parser._subparsers._group_actions[0].choices
    program = next((n for n, word in enumerate(words) if "=" not in word), 0)
    found = []
    for index, word in enumerate(words):
        rest = [re.sub(r".*\$.*", "1", each) for each in words[index + 1 :]]
        if word.rpartition("/")[2] != "byzsgd" or not rest:
            continue
        if index != program and rest[0] not in known:
            continue  # The name of an image or a folder.
        try:
            parser.parse_args(rest)
        except SystemExit as end:
            if end.code != 0:
                found.append(f"{shlex.join(words)}: {capsys.readouterr().err.strip()}")
    return found


def wrong_targets(words: list[str]) -> list[str]:
    """The targets and settings of a call of make that the Makefile does not have."""
    if words[0] != "make":
        return []
    names = [word.partition("=")[0] for word in words[1:]]
    known = TARGETS | {"PYTHON", "TORCH_FROM"} | set(map("".join, SETTINGS))
    return [name for name in names if not name.startswith("-") and name not in known]


def program(words: list[str]) -> Path | None:
    """The file of this project that a call of python runs, there or not; None for any other."""
    call = next((n for n, word in enumerate(words) if re.search(r"(^|/)python3?$", word)), None)
    if call is None or call + 1 >= len(words):
        return None
    name = words[call + 1]
    if name == "-m" and call + 2 < len(words):
        name = f"{words[call + 2].replace('.', '/')}.py"
    file = ROOT / name
    if name.partition("/")[0].removesuffix(".py") not in FOLDERS:
        return None
    return file.with_suffix("") / "__main__.py" if file.with_suffix("").is_dir() else file


def wrong_flags(words: list[str]) -> list[str]:
    """The program of a call of python that is not there, or the flags that it does not know."""
    file = program(words)
    if file is None:
        return []
    if not file.exists():
        return [str(file.relative_to(ROOT))]
    known = file.read_text()
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [f"{file.name} {flag}" for flag in flags if f'"{flag}"' not in known]


def missing_files(words: list[str]) -> list[str]:
    """The files of this project that a command names and that are not there."""
    pairs = list(zip(["", *words], words, strict=False))
    if words[0] == "kubectl":  # Its deploy/x is no file.
        named = [word for before, word in pairs if before in ("-f", "-k", "--filename")]
    else:
        named = [word for before, word in pairs if before not in WRITTEN_AFTER]
    paths = [re.sub(r"\$\w+", "*", word.partition("=")[2] or word) for word in named]
    return [
        path
        for path in paths
        if path.partition("/")[0] in FOLDERS and "/" in path and not list(ROOT.glob(path))
    ]


def code_in_words(document: Path) -> list[str]:
    """The code within the sentences and tables of a document."""
    return [
        child.content
        for token in MarkdownIt().enable("table").parse(document.read_text())
        for child in token.children or ()
        if child.type == "code_inline"
    ]


def missing_in_words(document: Path) -> list[str]:
    """The files and folders of this project that the words of a document name, and are not there.

    A path from the root, or the name of a program or the end of its path.
    """
    return [
        name
        for name in code_in_words(document)
        if re.fullmatch(r"[\w.*/-]+", name)
        and (
            (name.partition("/")[0] in FOLDERS and "/" in name and not list(ROOT.glob(name)))
            or (name.endswith(".py") and not any(f"/{each}".endswith(f"/{name}") for each in FILES))
        )
    ]


def wrong_settings(text: str, task: str = "my_task.py:disc") -> str:
    """What the loader of cluster files says against a file, or against some lines of one.

    Args:
        text: The file or the lines.
        task: The task where the lines name none. One of a user's file is not looked for.
    """
    given = tomllib.loads(text)
    servers = [{"id": f"s{n}", "role": "server", "address": f"10.0.0.{n}:7000"} for n in range(8)]
    workers = [{"id": f"w{n}", "role": "worker"} for n in range(10)]
    rest = {"f_servers": 1, "f_workers": 2, "nodes": servers + workers, "task": task}
    try:
        cluster = Cluster.from_mapping(given if "nodes" in given else rest | given, keys=False)
        config._check_rule(cluster)
        file, _, _ = cluster.task.partition(":")
        if not file.endswith(".py") or (ROOT / "examples" / file).exists():
            load_task(cluster.task, cluster.task_options, directory=ROOT / "examples")
    except (ClusterError, TaskError) as error:
        return str(error)
    return ""


def missing_names(text: str) -> list[str]:
    """What a program imports from this project that is not there.

    Raises:
        SyntaxError: If it is no Python.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("byzsgd"):
            module = importlib.import_module(str(node.module))
            found += [name.name for name in node.names if not hasattr(module, name.name)]
    return found


def bare(text: str) -> str:
    """A program without its docstrings and comments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return ast.dump(tree)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYZSGD_ID", "")


@every_document
def test_blocks_say_what_they_are(document: Path) -> None:
    """A block without a language, or with an unknown one, would be checked by nothing."""
    found = blocks.blocks(document)
    assert [str(block) for block in found if block.language not in LANGUAGES] == []


@every_document
def test_commands_are_words_that_byzsgd_takes(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its own parser reads them, those too that are not tried."""
    found = [
        f"{block}: {problem}"
        for block in blocks.shell(document)
        for words in blocks.commands(block.text)
        for problem in wrong_words(words, capsys)
    ]
    assert found == []


@every_document
def test_commands_name_targets_and_files_that_exist(document: Path) -> None:
    """Targets and settings of the Makefile; scripts and folders of a clone."""
    found = [
        f"{block}: {problem}"
        for block in blocks.shell(document)
        for words in blocks.commands(block.text)
        for problem in wrong_targets(words) + wrong_flags(words) + missing_files(words)
    ]
    assert found == []


@every_document
def test_words_name_files_that_exist(document: Path) -> None:
    """In code within sentences and tables; and targets of make, and flags of programs."""
    found = [
        problem
        for code in code_in_words(document)
        for words in blocks.commands(code)
        for problem in wrong_targets(words) + wrong_flags(words)
    ]
    assert missing_in_words(document) + found == []


@every_document
def test_settings_are_those_of_a_cluster_file(document: Path) -> None:
    """A whole file, or lines of one; a task's options are those that it takes."""
    found, task = [], "my_task.py:disc"
    for block in of_language(document, "toml"):
        task = tomllib.loads(block.text).get("task", task)  # That of the lines before.
        if problem := wrong_settings(block.text, task):
            found.append(f"{block}: {problem}")
    assert found == []


@every_document
def test_python_compiles_and_imports_what_there_is(document: Path) -> None:
    """From this project."""
    found = [f"{block}: {missing}" for block in of_language(document, "python")
             if (missing := missing_names(block.text))]  # fmt: skip
    assert found == []


@every_document
def test_examples_stand_in_documents_as_they_are(document: Path) -> None:
    """But for docstrings and comments, where a document says that it shows all of a file."""
    for file, text in WHOLE.findall(document.read_text()):
        assert bare(text) == bare((ROOT / file).read_text()), file


@every_document
def test_data_can_be_read(document: Path) -> None:
    """JSON and YAML."""
    for block in of_language(document, "json"):
        json.loads(block.text)
    if found := of_language(document, "yaml"):
        if find_spec("yaml") is None:
            pytest.skip("NOT TESTED: no PyYAML here; make docs")
        yaml: Any = importlib.import_module("yaml")
        for block in found:
            assert list(yaml.safe_load_all(block.text)), str(block)


# What the checks find


def document(tmp_path: Path, text: str) -> Path:
    """A document of its own."""
    file = tmp_path / "page.md"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("byzsgd check cluster.toml && byzsgd chekc", 1),
        ("sudo /opt/byzsgd/bin/byzsgd server --id s0 --bnid 0.0.0.0", 1),
        ("for id in s0 s1; do BYZSGD_BIND=::1 byzsgd server --id $id --pull-after $n & done", 0),
        ("podman run -v x:/cluster:ro byzsgd \\\n  server --id s0 --sate /state", 1),
        ("kubectl exec s-0 -- byzsgd status --cluster /etc/x.toml 2>&1 > log | grep x", 0),
        ("podman build --tag byzsgd . # byzsgd chekc", 0),
        ("echo 'two\nlines' && byzsgd fetch", 1),
    ],
)
def test_wrong_words_are_found(line: str, wrong: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever in a line byzsgd is called."""
    found = [each for words in blocks.commands(line) for each in wrong_words(words, capsys)]
    assert len(found) == wrong, found


def test_missing_targets_flags_and_files_are_found() -> None:
    """And no others."""
    assert wrong_targets(["make", "soak", "SEEDS=10", "PLANT=x"]) == []
    assert wrong_targets(["make", "-j2", "soka", "SEDES=10"]) == ["soka", "SEDES"]
    assert wrong_flags(["sudo", "python3", "-m", "benchmarks.halves", "--accuracy", "--no"]) == [
        "halves.py --no"
    ]
    assert wrong_flags(["python", "benchmarks/none.py", "--x"]) == ["benchmarks/none.py"]
    assert wrong_flags([".venv/bin/python", "-m", "benchmarks", "--only", "x"]) == []
    assert wrong_flags(["python3", "-m", "venv", ".venv"]) == []
    assert missing_files(["cp", "deploy/*/*.yml", "systemd/", "keys/s0.key"]) == []
    assert missing_files(["x", "deploy/none.yml", "--out", "deploy/new.yml"]) == ["deploy/none.yml"]
    assert missing_files(["kubectl", "exec", "deploy/operator", "-f", "deploy/no"]) == ["deploy/no"]
    assert missing_files(["x", "--config.file=deploy/none.yml"]) == ["deploy/none.yml"]


def test_missing_files_in_words_are_found(tmp_path: Path) -> None:
    """Those of this project, and not a user's."""
    words = "`deploy/none.yml` `deploy/grafana` `keys/s0.key` `protocol/server.py` `sever.py`"
    assert missing_in_words(document(tmp_path, f"{words}\n\n| a |\n|---|\n| `docs/no.md` |\n")) == [
        "deploy/none.yml", "sever.py", "docs/no.md",
    ]  # fmt: skip


def test_wrong_settings_and_programs_are_found() -> None:
    """Keys, values, options of a task; names that are imported."""
    assert "rool" in wrong_settings('rool = "mda"')
    assert "trimmed_mean" in wrong_settings('rule = "trimed_mean"')
    assert "hiden" in wrong_settings("[task_options]\nhiden = 3")
    assert wrong_settings("[task_options]\nhidden = 3") == ""
    assert wrong_settings("[task_options]\nhidden = 3", "mine.py:own") == ""
    assert missing_names("from byzsgd.aggregation import mda, mad") == ["mad"]


def test_comments_take_blocks_out_and_put_commands_in(tmp_path: Path) -> None:
    """In the order of the document; a block of a list, too."""
    found = blocks.blocks(
        document(
            tmp_path,
            "<!-- try\nbyzsgd init\n-->\n<!-- not tried: it takes\nan hour -->\n```sh\nmake\n```\n"
            "\n1. one\n\n   ```toml\n   a = 1\n   ```\n",
        )
    )
    assert [(block.language, block.line, block.text, block.why_not) for block in found] == [
        ("sh", 2, "byzsgd init\n", ""),
        ("sh", 7, "make\n", "it takes\nan hour"),
        ("toml", 13, "a = 1\n", ""),
    ]


@pytest.mark.parametrize(
    "text", ["<!-- not tried -->\n```sh\nmake\n```\n", "<!-- not tried: x -->\nWords\n"]
)
def test_a_comment_gives_a_reason_and_stands_above_a_block(tmp_path: Path, text: str) -> None:
    """Or else it took out nothing, or without a reason."""
    with pytest.raises(ValueError, match=r"page\.md:1: no"):
        blocks.blocks(document(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("byzsgd drain s0 && systemctl stop byzsgd-server@s0", "it needs a booted systemd"),
        ("cat x | sudo tee x", "it needs root"),
        ("cp x /etc/byzsgd/", "/etc/byzsgd/ is of the machine"),
        ("byzsgd check > /dev/null", ""),
    ],
)
def test_what_needs_another_machine_is_not_tried(text: str, reason: str) -> None:
    """Nor what might write to this one."""
    assert Block(ROOT / "page.md", 1, "sh", text).reason == reason


def test_lines_are_whole() -> None:
    """A loop is one, and what is quoted; none is lost."""
    text = "a\n\nfor x in y; do\n  b\ndone\nc \\\n  d\ncat <<E\nf\nE\n"
    assert list(blocks.whole_lines(text)) == [
        (0, "a"), (2, "for x in y; do\n  b\ndone"), (5, "c \\\n  d"), (7, "cat <<E\nf\nE"),
    ]  # fmt: skip
