"""Files that are on disk whole or not at all, whatever ends the process that writes them."""

import os
from contextlib import suppress
from pathlib import Path

PARTIAL = "saving.partial"
"""A file of a folder that is being written. One name: crashes never leave more than one."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that only this user may read: under another name, to disk, and renamed.

    Args:
        path: What was there before stays until the new file is on disk. Nobody else may be
            writing in its folder, which is made if it is not there.
        content: All of it.

    Raises:
        OSError: If the disk refuses; nothing is left of the new file then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(PARTIAL)
    try:
        _write(partial, content)
        partial.replace(path)
        _folder_to_disk(path.parent)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb", opener=_private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _folder_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
