"""Step and model on disk: whole or not at all, with a checksum.

A checkpoint is one safetensors file, ``step-<12 digits>.safetensors``, with the tensor ``vector``
and its step, checksum and digest as metadata; any reader of safetensors can open it.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from byzsgd.cluster import Cluster
from byzsgd.errors import CheckpointError
from byzsgd.vectors import Vector, is_finite, is_vector

KEEP = 3
"""Checkpoints that stay on disk: should the newest be damaged, an older one is there."""


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


def save(folder: Path, step: int, vector: Vector, *, digest: bytes, keep: int = KEEP) -> None:
    """Write a checkpoint, then remove all but the newest.

    A crash at any moment leaves either the whole new file or none: it is written under another
    name, brought to disk, and renamed. Checkpoints of later steps are another training's, or
    damaged, or else this one would have begun there: they neither count nor go.

    Args:
        folder: Made if it is not there.
        step: Learning step of the model.
        vector: ``(d,)`` float32.
        digest: Of what the model belongs to; only a load with the same one takes it.
        keep: How many checkpoints stay, at least 1.

    Raises:
        CheckpointError: If the disk refuses; older checkpoints are then untouched.
    """
    path = folder / f"step-{step:012}.safetensors"
    partial = folder / "saving.partial"  # One name: crashes never leave more than one.
    metadata = {"step": str(step), "digest": digest.hex(), "checksum": _checksum(step, vector)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"vector": vector}, partial, metadata=metadata)
        _to_disk(partial)
        partial.replace(path)
        _to_disk(folder)
        for old in [each for each in _newest_first(folder) if each <= path][keep:]:
            old.unlink()
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink()
        raise CheckpointError(f"{path}: cannot be written: {error}") from None


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


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _checksum(step: int, vector: Vector) -> str:
    digest = hashlib.blake2b(str(step).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(vector).data)
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
