"""The floors hold, the heart stays pure, and everything that a reader relies on is documented."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("common", "daemons") for path in (ROOT / folder).rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in SOURCES]

every_module = pytest.mark.parametrize("path", SOURCES, ids=IDS)


def loaded(module: str) -> set[str]:
    """The modules that a fresh Python has once it has imported a module."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return set(done.stdout.split())


def below(modules: set[str], *packages: str) -> list[str]:
    """Those of the modules that are one of the packages or in one."""
    return sorted(
        module
        for module in modules
        for package in packages
        if module == package or module.startswith(f"{package}.")
    )


# Who imports whom


def test_import_contracts_hold() -> None:
    """Those of pyproject.toml: floors, and who alone may know zmq, msgpack or attacks."""
    command = shutil.which("lint-imports", path=Path(sys.executable).parent)
    assert command, "import-linter belongs to the extra dev"
    done = subprocess.run(
        [command, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "common"), str(ROOT / "daemons")]),
        },
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken." in done.stdout


def test_the_heart_loads_no_input_or_output() -> None:
    """Importing the protocol brings in no event loop, socket, thread pool, ZeroMQ or torch."""
    modules = loaded("byzsgd.protocol")

    assert "byzsgd.protocol.server" in modules
    # numpy and the standard library's own startup import os, threading and the like.
    before = loaded("numpy, enum, dataclasses, json, hashlib, difflib, statistics")
    assert below(modules - before, "asyncio", "socket", "selectors", "ssl", "threading") == []
    assert below(modules - before, "concurrent", "multiprocessing", "logging", "random") == []
    assert below(modules, "asyncio", "socket", "zmq", "torch", "msgpack", "prometheus_client") == []
    assert below(modules, "byzsgd.transport", "byzsgd.tasks", "byzsgd_daemons") == []


@pytest.mark.parametrize("daemon", ["server", "worker"])
def test_correct_daemons_carry_no_attack_code(daemon: str) -> None:
    """Nor the simulation: what can lie is not in the process."""
    modules = loaded(f"byzsgd_daemons.{daemon}")

    assert f"byzsgd_daemons.{daemon}" in modules
    assert "byzsgd.protocol" in modules
    assert below(modules, "byzsgd.attacks", "byzsgd.simulation", "byzsgd_daemons.adversary") == []


@pytest.mark.parametrize("module", ["byzsgd_daemons.server", "byzsgd_daemons.cli"])
def test_a_server_starts_without_the_learning_libraries(module: str) -> None:
    """Neither torch nor what the demo draws with."""
    assert below(loaded(module), "torch", "sklearn", "matplotlib", "mlxtend", "pandas") == []


def test_source_roots_are_no_packages() -> None:
    """No __init__.py directly in a root: nobody ever imports ``common``."""
    assert not (ROOT / "common" / "__init__.py").exists()
    assert not (ROOT / "daemons" / "__init__.py").exists()
    assert sorted(path.name for path in (ROOT / "common").iterdir() if path.is_dir()) == ["byzsgd"]


@every_module
def test_nothing_is_unpickled(path: Path) -> None:
    """No name of pickle, and none of what is built on it, in any source."""
    forbidden = {"pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                assert not forbidden & {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module)):
                assert module.partition(".")[0] not in forbidden
            case ast.Attribute(value=ast.Name(id="torch"), attr=attribute):
                assert attribute not in ("load", "save")
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=value)):
                assert value is False


@every_module
def test_a_bug_is_caught_in_one_place(path: Path) -> None:
    """``except Exception`` stands where it is raised again, and in one line of host.py."""
    handlers = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]

    assert len(handlers) == (path.name == "host.py")


# What is documented


@every_module
def test_a_module_says_in_its_first_line_what_it_is(path: Path) -> None:
    """One sentence of at most a line: it is what maps of the code show."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring, "no docstring"
    first = docstring.splitlines()[0]
    assert first.endswith((".", ":")), first
    assert len(first) <= 100


def documented_fields(path: Path, name: str) -> Iterator[tuple[str, str | None]]:
    """The fields of a dataclass, each with the docstring below it."""
    [found] = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    for node, following in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield node.target.id, text
                case _:
                    yield node.target.id, None


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("common/byzsgd/cluster.py", "Cluster"),
        ("common/byzsgd/cluster.py", "Member"),
        ("daemons/byzsgd_daemons/config.py", "Settings"),
    ],
)
def test_every_field_of_the_configuration_is_documented(module: str, name: str) -> None:
    """Each has a string below it that ends as a sentence does."""
    fields = dict(documented_fields(ROOT / module, name))

    assert len(fields) > 4
    assert [field for field, text in fields.items() if not text] == []
    assert [field for field, text in fields.items() if text and not text.endswith(".")] == []


def _members(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    [found] = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    for node, following in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(node, ast.Assign):
            yield ast.unparse(node.targets[0]), isinstance(following, ast.Expr)


def test_every_reason_to_refuse_is_documented() -> None:
    """Reasons are labels of a metric: each says what it means."""
    members = dict(_members(ROOT / "common/byzsgd/messages.py", "Reason"))

    assert len(members) > 5
    assert all(members.values())
