"""``byzsgd completion``: what a real shell makes of it."""

import builtins
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from byzsgd_daemons.cli import main


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script for bash."""
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "byzsgd.bash"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dra"], ["drain"]),
        (["keys", "ro"], ["rotate"]),
        (["status", "--w"], ["--watch"]),
        (["server", "--log"], ["--log-level"]),
        (["check", "clus"], ["cluster.toml"]),
        (["doctor", "--state", "chec"], ["checkpoints"]),
    ],
)
def test_bash_completes_commands_flags_and_paths(
    script: Path, tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    """As it would for somebody who presses TAB."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("NOT TESTED: no bash here; apt-get install bash")
    (tmp_path / "cluster.toml").touch()
    (tmp_path / "checkpoints").mkdir()
    line = " ".join(["byzsgd", *words])
    press = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE='{line}'; "
        '"$(complete -p byzsgd | sed "s/.* -F \\([^ ]*\\) .*/\\1/")"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [bash, "--norc", "-c", press], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_scripts_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With every command in them."""
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("byzsgd", "rotate", "drain", "log-level"))


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no dependency of a daemon."""
    real = builtins.__import__

    def without(name: str, *more: Any, **others: Any) -> Any:
        if name == "shtab":
            raise ImportError(name)
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["completion", "bash"]) == 2
    assert capsys.readouterr().err == (
        "byzsgd: completion: needs shtab; pip install 'byzsgd[completion]'\n"
    )
