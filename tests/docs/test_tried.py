"""What the documents tell a user to type does what they say: typed line by line, in a new clone."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.docs import blocks
from tests.docs.blocks import DOCUMENTS, ROOT

PATIENCE_SECONDS = 600.0
"""Far above what a document takes: only a command that never ends runs into it."""

SHOWN_CHARACTERS = 5000

FUNCTIONS = r"""
after() {
    local status=$?
    [ $status = 0 ] || { echo "@@ $1 ended with status $status"; exit 1; }
}
"""
"""What the shell does after each line, as nobody is there to look."""

ISOLATED = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
ISOLATED += ["--map-root-user"] if os.geteuid() else []
ISOLATED += ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""Ports of its own, so that documents name real ones; and nothing stays behind."""

TRIED = {
    document: tried
    for document in DOCUMENTS
    if (tried := [block for block in blocks.shell(document) if not block.reason])
}

pytestmark = pytest.mark.processes


def script(found: list[blocks.Block]) -> str:
    """A program for bash that stops at the first line that fails, and says where it stands."""
    lines = [FUNCTIONS]
    for block in found:
        for offset, line in blocks.whole_lines(block.text):
            place = f"{block.document.relative_to(ROOT)}:{block.line + offset}"
            lines += [f"echo '@@ {place}'", line, f"after '{place}'"]
    return "\n".join(lines) + "\n"


def isolated() -> list[str]:
    """The words before a command that give it ports of its own, where this machine can do so."""
    done = subprocess.run([*ISOLATED, "true"], capture_output=True, check=False)
    return ISOLATED if done.returncode == 0 else []


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project as a user has it after `make install`."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "node_modules", "run",
                                     "targets", "tests")  # fmt: skip
    clone = tmp_path / "byzsgd"
    shutil.copytree(ROOT, clone, ignore=ignored)
    (clone / ".venv").symlink_to(sys.prefix)
    return clone


@pytest.mark.parametrize("document", TRIED, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_document_do_what_it_says(document: Path, clone: Path) -> None:
    """One after another, in one shell, each with status 0; what a comment takes out is left out."""
    home, log = clone.parent / "home", clone.parent / "log"
    home.mkdir()
    file = clone.parent / "commands.sh"
    file.write_text(script(TRIED[document]))
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("BYZSGD_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(clone.parent),
        "EDITOR": "true",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("wb") as output:
        shell = subprocess.Popen(
            [*isolated(), "bash", file],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status: int | str = shell.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            status = f"does not end within {PATIENCE_SECONDS:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    shown = log.read_text(errors="replace")[-SHOWN_CHARACTERS:]

    assert status == 0, f"{shown}\nHow to take a block out stands in CONTRIBUTING.md."


def test_what_is_tried_ends_by_itself() -> None:
    """A daemon in the foreground would be waited for: put & after it, or take the block out."""
    found = [
        str(block)
        for tried in TRIED.values()
        for block in tried
        for line in block.text.replace("\\\n", " ").splitlines()
        if blocks.FOREVER.search(line)
    ]
    assert found == []


def test_a_line_that_fails_is_named(tmp_path: Path) -> None:
    """Also within a list of commands; the lines before it have been run, and those after not."""
    text = "a=1\ncd /tmp && echo $a\nfalse && true\necho never\n"
    program = script([blocks.Block(ROOT / "page.md", 7, "sh", text)])
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert re.sub(r"^@@ page.md:\d+\n", "", done.stdout, flags=re.MULTILINE) == (
        "1\n@@ page.md:9 ended with status 1\n"
    )
