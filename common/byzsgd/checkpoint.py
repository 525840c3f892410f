"""Step and model on disk: whole or not at all, with a checksum.

A checkpoint is one safetensors file, ``step-<12 digits>.safetensors``, with the tensor ``vector``
and its step, checksum and digest as metadata; any reader of safetensors can open it.
"""

import errno
import hashlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialized

from byzsgd.cluster import Cluster
from byzsgd.errors import CheckpointError
from byzsgd.files import PARTIAL, folder_to_disk, make_folder, write_whole
from byzsgd.vectors import Vector, is_finite, is_vector

KEEP = 3
"""Checkpoints that stay on disk: should the newest be damaged, an older one is there."""


class Failure(StrEnum):
    """Why a checkpoint was not written: a closed set, the label of every failure counted."""

    FULL = "full"
    """No room is left on the disk, or of what this user may fill."""
    READ_ONLY = "read-only"
    """The disk takes nothing: mounted so, or gone bad."""
    PERMISSION = "permission"
    """The folder is not this user's to write to."""
    OTHER = "other"
    """Anything else that the system says."""


FAILURES = {
    errno.ENOSPC: Failure.FULL,
    errno.EDQUOT: Failure.FULL,
    errno.EROFS: Failure.READ_ONLY,
    errno.EACCES: Failure.PERMISSION,
    errno.EPERM: Failure.PERMISSION,
}

WORDS = {
    Failure.FULL: "the disk is full: ",
    Failure.READ_ONLY: "the disk is read-only: ",
    Failure.PERMISSION: "no permission: ",
    Failure.OTHER: "",
}


@dataclass(slots=True)
class Saves:
    """What became of a node's checkpoints since it started; read when somebody looks."""

    written: int = 0
    """Checkpoints that are on disk since."""
    failed: Counter[Failure] = field(default_factory=Counter)
    """Those that are not, by reason."""
    step: int | None = None
    """Of the newest on disk, by which the node would resume; None while there is none."""
    at: float = 0.0
    """Instant of the last one written, or of the start."""
    error: str | None = None
    """Why the last one was not written; None if it was."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model as it was saved."""

    step: int
    """The learning step that begins with the model."""
    vector: Vector
    """``(d,)`` float32."""


def digest_of(cluster: Cluster) -> bytes:
    """What the checkpoints of a cluster belong to: its task, and no number that may be tuned."""
    return cluster.digest("task", "task_options")


def prepare(folder: Path) -> None:
    """Make a folder for checkpoints, and see whether it takes any.

    Raises:
        CheckpointError: If it cannot be made, or takes nothing.
    """
    probe = folder / PARTIAL
    try:
        make_folder(folder)
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise _refused(folder, error) from None


def save(folder: Path, step: int, vector: Vector, *, digest: bytes, keep: int = KEEP) -> None:
    """Write a checkpoint, the one that a load will take, then remove all but the newest.

    A crash at any moment leaves either the whole new file or none. What a load would take of later
    steps is of before the training went back to an earlier one, for it begins at the newest: it
    goes. What else is of later steps is another training's, or damaged: it neither counts nor goes.

    Args:
        folder: Made if it is not there.
        step: Learning step of the model.
        vector: ``(d,)`` float32.
        digest: Of what the model belongs to; only a load with the same one takes it.
        keep: How many checkpoints stay, at least 1.

    Raises:
        CheckpointError: If the disk refuses; older checkpoints are then untouched. Its ``failure``
            is one of ``Failure``.
    """
    path = folder / f"step-{step:012}.safetensors"
    metadata = {"step": str(step), "digest": digest.hex(), "checksum": _checksum(step, vector)}
    try:
        # Not by safetensors itself: what it leaves of a file when it is killed has chance names.
        write_whole(path, serialized({"vector": vector}, metadata=metadata))
        _abandon([each for each in _newest_first(folder) if each > path], vector.size, digest)
        ours = [each for each in _newest_first(folder) if each <= path and each.is_file()]
        for old in ours[keep:]:
            old.unlink()
    except OSError as error:
        raise _refused(path, error) from None


def _abandon(later: list[Path], d: int, digest: bytes) -> None:
    """Remove for good, of some files, those that a load would take."""
    for path in later:
        with suppress(CheckpointError):
            load(path, d=d, digest=digest)
            path.unlink()
            folder_to_disk(path.parent)


def load_newest(folder: Path, *, d: int, digest: bytes) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole and fits, and what is wrong with those passed over.

    Args:
        folder: Where checkpoints were saved; it need not exist.
        d: Coordinates that the model must have.
        digest: Of what the model must belong to.
    """
    problems: list[str] = []
    for path in _newest_first(folder):
        try:
            return load(path, d=d, digest=digest), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems


def load(path: Path, *, d: int, digest: bytes) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        CheckpointError: If it cannot be read, is damaged, or belongs to something else.
    """
    if path.exists() and not path.is_file():  # A pipe would be waited for.
        raise CheckpointError(f"{path}: is no file, so it is passed over")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            vector = file.get_tensor("vector")
        step = int(metadata["step"])
        whole = is_vector(vector, vector.size) and metadata["checksum"] == _checksum(step, vector)
        belongs = metadata["digest"] == digest.hex() and vector.size == d
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read, so it is passed over: {error}") from None
    if not whole or not is_finite(vector):
        raise CheckpointError(f"{path}: is damaged, so it is passed over")
    if not belongs:
        raise CheckpointError(f"{path}: belongs to another task or model, so it is passed over")
    return Checkpoint(step, vector)


def _refused(path: Path, error: OSError) -> CheckpointError:
    """What the system said about a file that was to be written."""
    failure = FAILURES.get(error.errno or 0, Failure.OTHER)
    return CheckpointError(f"{path}: cannot be written: {WORDS[failure]}{error}", failure)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _checksum(step: int, vector: Vector) -> str:
    digest = hashlib.blake2b(str(step).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(vector).data)
    return digest.hexdigest()
