"""theta_0 without torch in the server: built elsewhere, kept, and built again when damaged."""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.daemons import buffered

from byzsgd.errors import ByzsgdError, ConfigError, TaskError
from byzsgd.tasks.quadratic import quadratic
from byzsgd_daemons import initial
from byzsgd_daemons.cli import main
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.initial import Initial, build, cache_file, initial_model, read, write


def model_of(files: Any, **settings: Any) -> Initial:
    return initial_model(
        Settings(id="s1", cluster=files.path, **settings), read_cluster(files.path)
    )


def kept(state: Path) -> list[Path]:
    return sorted(state.glob("initial-*"))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Whoever lets a process build the model, which here happens in this one."""
    asked: list[Settings] = []

    def built(settings: Settings) -> Initial:
        asked.append(settings)
        return build(read_cluster(settings.cluster), settings.folder)

    monkeypatch.setattr(initial, "_built_elsewhere", built)
    return asked


# Another process


def test_a_server_imports_no_torch(python: Callable[[str], str]) -> None:
    """Nor does it read a task's data: the modules of a server daemon load without."""
    code = "import sys, byzsgd_daemons.server; print('torch' in sys.modules)"

    assert python(code) == "False\n"


def test_a_servers_model_is_built_without_importing_torch(
    python: Callable[[str], str], files: Any
) -> None:
    """A shipped task of torch, from the cluster file to the vector: another process loads it."""
    files.change('"quadratic"', '"digits"')
    code = f"""
import sys
from pathlib import Path
from byzsgd_daemons import server
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.initial import initial_model
path = Path({str(files.path)!r})
model = initial_model(Settings(id="s1", cluster=path), read_cluster(path))
print(model.vector.shape, model.vector.dtype, model.gather_period, "torch" in sys.modules)
"""

    assert python(code) == "(4810,) float32 1 False\n"


def test_without_torch_it_is_said_where_else_the_model_can_be_built(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an image for servers alone, say."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    files.change('"quadratic"', '"digits"')

    with pytest.raises(TaskError, match=r"'torch'.*; where it is, .* initial-model .* --initial$"):
        model_of(files)


def test_another_process_builds_the_same_model(files: Any) -> None:
    """Bit for bit what this one builds; a relative path to the file is enough."""
    here = build(read_cluster(files.path), files.path.parent)
    there = model_of(files)

    assert there.vector.tobytes() == here.vector.tobytes()
    assert np.array_equal(here.vector, quadratic().initial(3))


def test_what_is_written_for_others_they_can_read(files: Any, tmp_path: Path) -> None:
    """Servers may run as another user; what else lies in the folder stays as it was."""
    other, out = tmp_path / "saving.partial", tmp_path / "theta0.safetensors"
    other.write_bytes(b"another's")
    umask = os.umask(0o022)
    try:
        assert main(["initial-model", "--cluster", str(files.path), "--out", str(out)]) == 0
    finally:
        os.umask(umask)

    assert stat.S_IMODE(out.stat().st_mode) == 0o644
    assert other.read_bytes() == b"another's"
    assert np.array_equal(read(out).vector, quadratic().initial(3))


def test_the_text_of_a_task_that_fails_is_handed_on(files: Any) -> None:
    """Without what libraries write before it; the exit status stays that of a wrong file."""
    files.change('"quadratic"', '"own.py:f"')
    (files.path.parent / "own.py").write_text(
        "import sys\nprint('a library warns', file=sys.stderr)\ndef f(): return 1 / 0\n"
    )

    with pytest.raises(TaskError) as error:
        model_of(files)
    assert str(error.value) == (
        f"task own.py:f: ZeroDivisionError: division by zero ({files.path.parent}/own.py:3)"
    )


def test_a_process_that_dies_is_told_with_its_last_words(files: Any) -> None:
    """As an error of ours, not as a traceback of this process."""
    files.change('"quadratic"', '"own.py:f"')
    (files.path.parent / "own.py").write_text(
        "import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos._exit(9)\n"
    )

    with pytest.raises(ByzsgdError, match=r"^the initial model was not built: last words$"):
        model_of(files)


def test_auto_is_estimated_with_the_model(files: Any) -> None:
    """T of the quadratic at eta = 0.1 is 3: a server learns it without torch."""
    files.change("seed = 3", 'seed = 3\ngather_period = "auto"')

    assert build(read_cluster(files.path), files.path.parent).gather_period == 3


# Files


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Model and period."""
    write(Initial(np.float32([1, 2, 3]), 5), tmp_path / "x")
    found = read(tmp_path / "x")

    assert (found.vector.tolist(), found.gather_period) == ([1, 2, 3], 5)


def test_buffers_come_from_the_task(files: Any) -> None:
    """With the first model, which a server learns without torch."""
    files.change('"quadratic"', f'"{buffered.NAME}"')
    buffered.write_task(files.path.parent, 4)

    assert model_of(files).buffers == 4


@pytest.mark.parametrize("buffers", ["-1", "True", "'x'"])
def test_a_number_of_buffers_is_a_number(files: Any, buffers: str) -> None:
    """What a task returns instead is named."""
    files.change('"quadratic"', f'"{buffered.NAME}"')
    buffered.write_task(files.path.parent, buffers)

    with pytest.raises(TaskError, match=r"^task own.py:mine: n_buffers returned .*; must be a"):
        build(read_cluster(files.path), files.path.parent)


def test_the_synchronous_variant_carries_no_buffers(files: Any) -> None:
    """Its workers believe single servers within the bounds of filters that look at gradients."""
    files.change('"quadratic"', f'"{buffered.NAME}"\nvariant = "synchronous"')
    buffered.write_task(files.path.parent, 4)

    with pytest.raises(TaskError) as error:
        build(read_cluster(files.path), files.path.parent)
    assert str(error.value) == (
        "task own.py:mine: training changes 4 coordinates of its buffers (BatchNorm), which "
        'variant = "synchronous" does not carry: take "asynchronous", or torch.nn.GroupNorm'
    )


@pytest.mark.parametrize(
    ("variant", "buffers", "why"),
    [("synchronous", 1, "which variant = .* does not carry"), ("asynchronous", 3, "cannot be")],
)
def test_a_given_file_brings_no_buffers_where_they_cannot_be(
    files: Any, tmp_path: Path, variant: str, buffers: int, why: str
) -> None:
    """Whoever made it: by another variant, or another program."""
    files.change('"quadratic"', f'"quadratic"\nvariant = "{variant}"')
    path = tmp_path / "theta.safetensors"
    write(Initial(np.float32([1, 2, 3]), 5, buffers), path)

    with pytest.raises(TaskError, match=why):
        model_of(files, initial=path)


def test_a_given_file_goes_before_the_task(files: Any, tmp_path: Path, builds: Any) -> None:
    """Nothing is built, and nothing is kept."""
    path = tmp_path / "theta.safetensors"
    write(Initial(np.float32([1, 2]), 5), path)
    found = model_of(files, initial=path, state=tmp_path / "state")

    assert found.vector.tolist() == [1, 2]
    assert builds == []
    assert not (tmp_path / "state").exists()


def test_a_given_file_without_a_model_is_refused(files: Any, tmp_path: Path) -> None:
    """Whatever it is: missing, of another format, or somebody else's tensors."""
    path = tmp_path / "theta.safetensors"
    start = rf"^--initial {re.escape(str(path))}: holds no initial model: "

    with pytest.raises(ConfigError, match=start):
        model_of(files, initial=path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match=start):
        model_of(files, initial=path)
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(ConfigError, match=start):
        model_of(files, initial=path)
    save_file({"vector": np.zeros(3, np.float32)}, path)
    with pytest.raises(ConfigError, match=start):
        model_of(files, initial=path)


@pytest.mark.parametrize("buffers", [0, 2])
def test_no_flipped_bit_of_a_file_goes_unseen(buffers: int, tmp_path: Path) -> None:
    """A server must not begin from another model than its peers, nor take buffers for parameters.

    It would subtract averages from averages.
    """
    path = tmp_path / "x"
    write(Initial(np.float32([1, 2, 3]), 5, buffers), path)
    assert read(path).buffers == buffers

    whole = path.read_bytes()
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << index % 8
        path.write_bytes(damaged)
        with pytest.raises(initial.DAMAGED):
            read(path)


# The state folder


def test_a_kept_model_is_used_again(files: Any, tmp_path: Path, builds: Any) -> None:
    """One build, whatever the number of starts."""
    state = tmp_path / "a" / "state"
    first, second = model_of(files, state=state), model_of(files, state=state)

    assert len(builds) == 1
    assert len(kept(state)) == 1
    assert first.vector.tobytes() == second.vector.tobytes()
    assert first.gather_period == second.gather_period


@pytest.mark.parametrize("content", [b"", b"x" * 99], ids=["empty", "garbage"])
def test_a_damaged_file_is_built_again(
    files: Any, tmp_path: Path, builds: Any, content: bytes
) -> None:
    """And replaced."""
    first = model_of(files, state=tmp_path)
    [path] = kept(tmp_path)
    path.write_bytes(content)
    second = model_of(files, state=tmp_path)

    assert len(builds) == 2
    assert first.vector.tobytes() == second.vector.tobytes() == read(path).vector.tobytes()


def test_without_a_state_folder_nothing_is_kept(files: Any, builds: Any) -> None:
    """Each start builds."""
    before = sorted(files.path.parent.rglob("*"))
    model_of(files)
    model_of(files)

    assert len(builds) == 2
    assert sorted(files.path.parent.rglob("*")) == before


def test_a_state_folder_that_takes_nothing_is_named(
    files: Any, tmp_path: Path, builds: Any
) -> None:
    """At the start, where the operator looks, and not at the first checkpoint."""
    (tmp_path / "state").write_text("a file")

    with pytest.raises(ConfigError, match=rf"^--state {tmp_path}/state: cannot be written to: "):
        model_of(files, state=tmp_path / "state")


def test_a_full_disk_costs_no_more_than_the_next_build(
    files: Any, tmp_path: Path, builds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is there and takes nothing: the model is used, and built again another time."""

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        first = model_of(files, state=tmp_path)
    second = model_of(files, state=tmp_path)

    assert len(builds) == 2
    assert first.vector.tobytes() == second.vector.tobytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 3", "seed = 4"),
        ("seed = 3", 'seed = 3\ngather_period = "auto"'),
        ("seed = 3", "seed = 3\nbatch_size = 1"),
        ("seed = 3", "seed = 3\nlearning_rate = 1.0"),
        ("seed = 3", "seed = 3\ntask_options = {d = 5}"),
        ('"quadratic"', '"digits"'),
    ],
)
def test_what_the_model_follows_from_names_the_file(files: Any, old: str, new: str) -> None:
    """Another seed, task, or number that T depends on is another file."""
    before = cache_file(read_cluster(files.path), files.path.parent, Path("state"))
    files.change(old, new)

    assert cache_file(read_cluster(files.path), files.path.parent, Path("state")) != before


def test_what_the_model_does_not_follow_from_does_not(files: Any) -> None:
    """The length of a training changes no theta_0."""
    before = cache_file(read_cluster(files.path), files.path.parent, Path("state"))
    files.change("seed = 3", "seed = 3\nsteps = 7")

    assert cache_file(read_cluster(files.path), files.path.parent, Path("state")) == before


def test_a_file_of_the_users_own_is_kept_until_it_changes(files: Any) -> None:
    """Its content is part of the name; a package's code may change unseen, so it is not kept."""
    files.change('"quadratic"', '"own.py:f"')
    folder = files.path.parent
    cluster = read_cluster(files.path)
    assert cache_file(cluster, folder, folder) is None

    (folder / "own.py").write_text("a = 1")
    first = cache_file(cluster, folder, folder)
    (folder / "own.py").write_text("a = 2")
    second = cache_file(cluster, folder, folder)
    assert None not in (first, second)
    assert first != second

    files.change('"own.py:f"', '"own:f"')
    assert cache_file(read_cluster(files.path), folder, folder) is None
