"""Files that are on disk whole or not at all, whatever ends the process that writes them."""

import os
from contextlib import suppress
from pathlib import Path

PARTIAL = "saving.partial"
"""A file of a folder that is being written. One name: crashes never leave more than one."""

PRIVATE, PUBLIC = 0o600, 0o644
"""Modes of a file that only this user may read, and of one that is for others too."""


def write_whole(path: Path, content: bytes, *, mode: int = PRIVATE, partial: str = PARTIAL) -> None:
    """Write a file: under another name, to disk, and renamed.

    Args:
        path: What was there before stays until the new file is on disk. Its folder is made if it
            is not there.
        content: All of it.
        mode: Who may read the file.
        partial: The other name. Nobody else may be writing under it.

    Raises:
        OSError: If the disk refuses. What was there before is then still there, or the new file is,
            whole, though a power cut may undo that.
    """
    make_folder(path.parent)
    other = path.with_name(partial)
    try:
        _write(other, content, mode)
        other.replace(path)
        folder_to_disk(path.parent)
    except OSError:
        with suppress(OSError):
            other.unlink()
        raise


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that no power cut takes away again.

    Raises:
        OSError: If it cannot be made, or the disk refuses.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        folder_to_disk(each.parent)


def folder_to_disk(folder: Path) -> None:
    """Put to disk which files a folder has.

    Raises:
        OSError: If the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, mode: int) -> None:
    def opened(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    with open(path, "wb", opener=opened) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
