"""Checkpoints: whole or not at all, and what is damaged or foreign is passed over by name."""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from byzsgd import checkpoint, files
from byzsgd.checkpoint import (
    KEEP,
    Checkpoint,
    Failure,
    digest_of,
    load,
    load_newest,
    prepare,
    save,
)
from byzsgd.cluster import Cluster
from byzsgd.errors import CheckpointError
from byzsgd.vectors import Vector

OURS, THEIRS = b"our task's 16 b.", b"another's 16 by."
D = 5


def model(step: int) -> Vector:
    return np.random.default_rng(step).standard_normal(D, np.float32)


def keep_model(folder: Path, step: int, *, digest: bytes = OURS, keep: int = KEEP) -> Path:
    """Save a step's model, and return its file."""
    save(folder, step, model(step), digest=digest, keep=keep)
    return folder / f"step-{step:012}.safetensors"


def newest(folder: Path, *, d: int = D, digest: bytes = OURS) -> tuple[int | None, list[str]]:
    """Step of the newest fitting checkpoint, whose model must be that step's, and all problems."""
    found, problems = load_newest(folder, d=d, digest=digest)
    if found is not None:
        assert np.array_equal(found.vector, model(found.step))
    return found.step if found else None, problems


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What is saved is loaded


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Step and model, bit for bit, from a folder that save has made."""
    path = keep_model(tmp_path / "a" / "b", 7)

    found = load(path, d=D, digest=OURS)
    assert isinstance(found, Checkpoint)
    assert found.step == 7
    assert found.vector.tobytes() == model(7).tobytes()
    assert found.vector.dtype == np.float32


def test_the_newest_is_taken(tmp_path: Path) -> None:
    """By step, whatever the number of its digits."""
    for step in (9, 10, 99, 100):
        keep_model(tmp_path, step)

    assert newest(tmp_path) == (100, [])


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    """Nor does one that is not there, or one with other files."""
    assert newest(tmp_path / "missing") == (None, [])
    (tmp_path / "initial-1.safetensors").write_bytes(b"x")
    assert newest(tmp_path) == (None, [])


def test_any_reader_of_safetensors_can_open_it(tmp_path: Path) -> None:
    """The file holds one float32 tensor named vector: no pickle, no format of our own."""
    path = keep_model(tmp_path, 7)

    tensors = load_file(path)
    assert list(tensors) == ["vector"]
    assert np.array_equal(tensors["vector"], model(7))
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert path.read_bytes()[8:9] == b"{"
    assert path.stat().st_size == 8 + header + 4 * D


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    """A node that restarted from an older checkpoint comes by the same step again."""
    keep_model(tmp_path, 7, digest=THEIRS)
    keep_model(tmp_path, 7)

    assert newest(tmp_path) == (7, [])
    assert len(names(tmp_path)) == 1


# How many stay


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_stay(tmp_path: Path, keep: int) -> None:
    """Nothing else is left of ten."""
    for step in range(10):
        keep_model(tmp_path, step, keep=keep)

    assert names(tmp_path) == [f"step-{step:012}.safetensors" for step in range(10 - keep, 10)]


def test_other_files_stay(tmp_path: Path) -> None:
    """What is no checkpoint is not touched."""
    (tmp_path / "notes.txt").write_text("mine")
    for step in range(5):
        keep_model(tmp_path, step, keep=1)

    assert names(tmp_path) == ["notes.txt", "step-000000000004.safetensors"]


def test_a_new_training_is_kept_beside_later_steps_of_an_old_one(tmp_path: Path) -> None:
    """A checkpoint is never removed by the very save that wrote it."""
    for step in (800, 900, 1000):
        keep_model(tmp_path, step, digest=THEIRS)
    for step in (100, 200, 300, 400):
        keep_model(tmp_path, step)

    step, problems = newest(tmp_path)
    assert step == 400
    assert [problem.endswith("passed over") for problem in problems] == [True] * 3
    assert len(names(tmp_path)) == 6


# Going back


def test_what_was_before_going_back_is_gone(tmp_path: Path) -> None:
    """A server at 103 goes back to 80: the checkpoint of 90 is the one that a restart takes."""
    for step in (101, 102, 103):
        keep_model(tmp_path, step)
    keep_model(tmp_path, 90)

    assert newest(tmp_path) == (90, [])
    assert names(tmp_path) == ["step-000000000090.safetensors"]


def test_what_no_load_takes_is_not_gone(tmp_path: Path) -> None:
    """Of later steps: another task's, another model's, and what is damaged or no file."""
    keep_model(tmp_path, 100, digest=THEIRS)
    save(tmp_path, 101, np.zeros(D + 1, np.float32), digest=OURS)
    keep_model(tmp_path, 102).write_bytes(b"half")
    (tmp_path / "step-000000000103.safetensors").mkdir()
    before = names(tmp_path)
    keep_model(tmp_path, 90)

    assert newest(tmp_path)[0] == 90
    assert names(tmp_path) == sorted([*before, "step-000000000090.safetensors"])


# Damage


def test_a_damaged_newest_is_passed_over_with_a_problem(tmp_path: Path) -> None:
    """The next one is taken, and the file at fault is named."""
    keep_model(tmp_path, 1)
    path = keep_model(tmp_path, 2)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)

    assert newest(tmp_path) == (1, [f"{path}: is damaged, so it is passed over"])


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    """In any byte of the file: it is passed over with a problem that names the file."""
    path = keep_model(tmp_path, 7)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"^{path}: .*so it is passed over"):
            load(path, d=D, digest=OURS)


def test_no_truncated_file_is_taken(tmp_path: Path) -> None:
    """Wherever it ends, and also when something follows."""
    path = keep_model(tmp_path, 7)
    whole = path.read_bytes()
    for content in [whole[:end] for end in range(len(whole))] + [whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"^{path}: cannot be read"):
            load(path, d=D, digest=OURS)


@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"\xff" * 200, b"PK\x03\x04", b"\x80\x04."])
def test_what_is_no_checkpoint_is_passed_over(tmp_path: Path, content: bytes) -> None:
    """Empty, zeros, or another format, pickle's included."""
    keep_model(tmp_path, 1)
    path = keep_model(tmp_path, 2)
    path.write_bytes(content)

    step, [problem] = newest(tmp_path)
    assert step == 1
    assert problem.startswith(f"{path}: cannot be read, so it is passed over")


def test_what_cannot_be_opened_is_passed_over(tmp_path: Path) -> None:
    """A folder or a dangling link in its place."""
    keep_model(tmp_path, 1)
    (tmp_path / "step-000000000002.safetensors").mkdir()
    (tmp_path / "step-000000000003.safetensors").symlink_to(tmp_path / "gone")

    step, problems = newest(tmp_path)
    assert step == 1
    assert len(problems) == 2


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody will ever write into it, and nothing is ever at its end."""
    keep_model(tmp_path, 1)
    pipe = tmp_path / "step-000000000002.safetensors"
    os.mkfifo(pipe)
    (tmp_path / "step-000000000003.safetensors").symlink_to("/dev/zero")

    step, problems = newest(tmp_path)
    assert step == 1
    assert problems[1] == f"{pipe}: is no file, so it is passed over"
    assert len(problems) == 2


def test_what_is_no_file_is_no_checkpoint_to_remove(tmp_path: Path) -> None:
    """A folder with the name of an older one neither counts among those that stay nor fails."""
    (tmp_path / "step-000000000001.safetensors").mkdir()
    for step in (2, 3, 4):
        keep_model(tmp_path, step, keep=2)

    assert names(tmp_path) == [f"step-{step:012}.safetensors" for step in (1, 3, 4)]


def forged(step: int, vector: np.ndarray, digest: bytes, path: Path) -> None:
    """Write a file with the right checksum of a wrong vector."""
    checksum = checkpoint._checksum(step, vector)
    metadata = {"step": str(step), "digest": digest.hex(), "checksum": checksum}
    save_file({"vector": vector}, path, metadata=metadata)


@pytest.mark.parametrize(
    "vector",
    [
        np.full(D, np.nan, np.float32),
        np.float32([1, 2, np.inf, 4, 5]),
        np.ones(D, np.float64),
        np.ones((1, D), np.float32),
    ],
    ids=["nan", "infinite", "float64", "a matrix"],
)
def test_a_vector_that_no_server_may_begin_with_is_passed_over(
    tmp_path: Path, vector: np.ndarray
) -> None:
    """Even where the checksum is right."""
    path = tmp_path / "step-000000000001.safetensors"
    forged(1, vector, OURS, path)

    assert newest(tmp_path) == (None, [f"{path}: is damaged, so it is passed over"])


# Whose it is


def test_another_tasks_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """So is one of a model of another size."""
    path = keep_model(tmp_path, 2, digest=THEIRS)
    problem = f"{path}: belongs to another task or model, so it is passed over"

    assert newest(tmp_path) == (None, [problem])
    assert newest(tmp_path, digest=THEIRS) == (2, [])
    assert newest(tmp_path, digest=THEIRS, d=D + 1) == (None, [problem])


def test_a_checkpoint_belongs_to_a_task_and_its_options(cluster: Callable[..., Cluster]) -> None:
    """Numbers that may be tuned between two runs are left out."""
    digest = digest_of(cluster())

    assert len(digest) == 16
    assert digest_of(cluster(servers=6, workers=5, learning_rate=0.5, seed=3)) == digest
    assert digest_of(cluster(task="digits")) != digest
    assert digest_of(cluster(task_options={"d": 7})) != digest


# What the disk does


class Crash(BaseException):
    """The machine stops here: no handler of ours runs for it, as none would."""


OPERATIONS = [
    (Path, "mkdir"),
    (files, "_write"),
    (os, "fsync"),
    (Path, "replace"),
    (os, "close"),
    (Path, "unlink"),
]
"""Whatever touches the disk while a checkpoint is saved."""


class Countdown:
    """Stops the process before its n-th operation on the disk."""

    def __init__(self, left: int, patch: pytest.MonkeyPatch) -> None:
        self._left = left
        for owner, name in OPERATIONS:
            patch.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            if self._left == 0:
                raise Crash
            self._left -= 1
            return operation(*args, **options)

        return watched


def crashes(folder: Path, before: int, patch: pytest.MonkeyPatch, third: int) -> bool:
    """Save a third checkpoint, and tell whether a crash before an operation came in between."""
    for step in (1, 2):
        keep_model(folder, step, keep=2)
    with patch.context() as crash:
        Countdown(before, crash)
        try:
            keep_model(folder, third, keep=2)
        except Crash:
            return True
    return False


@pytest.mark.parametrize("third", [3, 0], ids=["later", "after going back"])
def test_a_crash_leaves_the_whole_new_file_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, third: int
) -> None:
    """Before whichever operation: the older or the new one is whole, and rests do not pile up."""
    operation, steps = 0, set()
    while crashes(tmp_path / str(operation), operation, monkeypatch, third):
        folder = tmp_path / str(operation)
        step, problems = newest(folder)
        steps.add(step)
        assert problems == []
        assert len(names(folder)) <= 3

        keep_model(folder, 4, keep=2)
        assert newest(folder) == (4, [])
        assert len(names(folder)) == 2
        operation += 1
    assert steps >= {2, third}
    assert operation >= len(OPERATIONS)


def test_a_crash_while_writing_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file is on disk under another name, and is overwritten the next time."""
    keep_model(tmp_path, 1)

    def half(path: Path, content: bytes, mode: int) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write", half)
        with pytest.raises(Crash):
            keep_model(tmp_path, 2)
    assert newest(tmp_path) == (1, [])
    keep_model(tmp_path, 3)
    assert names(tmp_path) == ["step-000000000001.safetensors", "step-000000000003.safetensors"]


def test_the_file_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is synchronised before the rename, the folder after it."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    keep_model(tmp_path, 1)

    assert order == ["file", "rename", "folder"]


def test_a_full_disk_is_a_clear_error_and_older_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the attempt is left behind."""
    for step in (1, 2, 3):
        path = keep_model(tmp_path, step)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"step-0+4\.\w+: cannot be written: .*No space left"):
        keep_model(tmp_path, 4)
    assert names(tmp_path) == [f"step-{step:012}.safetensors" for step in (1, 2, 3)]
    assert path.is_file()


def test_a_folder_that_takes_nothing_is_a_clear_error(tmp_path: Path) -> None:
    """It becomes an error of ours, and older checkpoints stay."""
    keep_model(tmp_path, 1)
    (tmp_path / "saving.partial").mkdir()

    with pytest.raises(CheckpointError, match="cannot be written: "):
        keep_model(tmp_path, 2)
    assert newest(tmp_path) == (1, [])


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_folders_place_is_a_clear_error(tmp_path: Path, below: str) -> None:
    """Whether it is the folder itself or one above it."""
    (tmp_path / "state").write_text("a file")

    with pytest.raises(CheckpointError, match="cannot be written: "):
        keep_model(tmp_path / "state" / below, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="no folder is read-only for root")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    """The system's own words are in it, and older checkpoints can still be read."""
    keep_model(tmp_path, 1)
    tmp_path.chmod(0o500)

    with pytest.raises(CheckpointError, match=r"cannot be written: .*Permission denied"):
        keep_model(tmp_path, 2)
    assert newest(tmp_path) == (1, [])


# Why it was not written


@pytest.mark.parametrize(
    ("number", "failure", "words"),
    [
        (errno.ENOSPC, Failure.FULL, "the disk is full: "),
        (errno.EDQUOT, Failure.FULL, "the disk is full: "),
        (errno.EROFS, Failure.READ_ONLY, "the disk is read-only: "),
        (errno.EACCES, Failure.PERMISSION, "no permission: "),
        (errno.EIO, Failure.OTHER, "[Errno 5]"),
    ],
)
def test_the_reason_is_one_of_a_closed_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, failure: Failure, words: str
) -> None:
    """Whichever operation the system refuses, and in words."""

    def refused(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(CheckpointError, match=re.escape(f": cannot be written: {words}")) as found:
        keep_model(tmp_path, 1)
    assert found.value.failure is failure


def test_a_folder_is_prepared(tmp_path: Path) -> None:
    """It is made, nothing is left in it, and one that cannot be made is said with the reason."""
    prepare(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []

    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written: ") as found:
        prepare(tmp_path / "file" / "b")
    assert found.value.failure is Failure.OTHER
