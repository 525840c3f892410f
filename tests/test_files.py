"""Files are on disk whole or not at all, in folders that are there to stay."""

import os
import stat
from pathlib import Path

import pytest

from byzsgd.files import PUBLIC, make_folder, write_whole


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What has been put to disk, in that order."""
    paths: list[Path] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return paths


def test_a_folder_made_is_there_to_stay(tmp_path: Path, synced: list[Path]) -> None:
    """Each one that is made is put to disk where it lies; none that was there is touched."""
    make_folder(tmp_path / "a" / "b")
    assert set(synced) == {tmp_path, tmp_path / "a"}

    synced.clear()
    make_folder(tmp_path / "a" / "b")
    assert synced == []


def test_a_file_in_a_new_folder_is_there_to_stay(tmp_path: Path, synced: list[Path]) -> None:
    """Its folder's name, its content, and then its own name."""
    write_whole(tmp_path / "a" / "file", b"x")

    assert synced == [tmp_path, tmp_path / "a" / "saving.partial", tmp_path / "a"]


def test_a_file_is_private_unless_it_is_said(tmp_path: Path) -> None:
    """Others may read what is public, and only read it."""
    private, public = tmp_path / "private", tmp_path / "public"
    umask = os.umask(0)
    try:
        write_whole(private, b"x")
        write_whole(public, b"x", mode=PUBLIC)
    finally:
        os.umask(umask)

    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, public)] == [0o600, 0o644]


def test_two_may_write_in_one_folder_under_two_names(tmp_path: Path) -> None:
    """What another process writes is not this one's to take."""
    other = tmp_path / "saving.partial"
    other.write_bytes(b"another's")
    write_whole(tmp_path / "ours", b"x", partial="ours.partial")

    assert other.read_bytes() == b"another's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "saving.partial"]


def test_a_name_that_does_not_reach_the_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file is there and whole all the same, and nothing else."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
