"""The data sets are the real ones, and files that are damaged are refused by name."""

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from byzsgd.errors import TaskError
from byzsgd.tasks import digits, fashion_mnist, mnist
from byzsgd.tasks.images import Images, from_idx, from_package, read_idx


def idx(*shape: int) -> bytes:
    """An IDX file of bytes 0, 1, 2, ... in some shape."""
    head = bytes((0, 0, 8, len(shape))) + b"".join(side.to_bytes(4, "big") for side in shape)
    return head + bytes(n % 251 for n in range(math.prod(shape)))


def plain(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def zipped(path: Path, content: bytes) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))


def write_pair(folder: Path, name: str, n: int, write: Callable[[Path, bytes], None]) -> None:
    write(folder / f"{name}-images-idx3-ubyte", idx(n, 2, 3))
    write(folder / f"{name}-labels-idx1-ubyte", idx(n))


# The real ones


@pytest.mark.parametrize(
    ("read", "n_train", "n_test", "pixels", "largest"),
    [(digits.read, 1437, 360, 64, 16), (mnist.read, 4000, 1000, 784, 255)],
    ids=["digits", "mnist"],
)
def test_the_data_sets_are_real(
    read: Callable[[], tuple[Images, Images]], n_train: int, n_test: int, pixels: int, largest: int
) -> None:
    """All images, all ten classes in both parts, and no image in both."""
    train, test = read()

    for images, n in ((train, n_train), (test, n_test)):
        assert images.pixels.shape == (n, pixels)
        assert images.pixels.dtype == np.uint8
        assert images.labels.shape == (n,)
        assert images.labels.dtype == np.int64
        assert set(images.labels.tolist()) == set(range(10))
        assert images.pixels.max() == largest
        assert images.pixels.min() == 0
    seen = {row.tobytes() for row in train.pixels}
    # MNIST and the digits hold no image twice, so the parts share none.
    assert len(seen) == n_train
    assert not any(row.tobytes() in seen for row in test.pixels)


@pytest.mark.skipif(
    not Path(fashion_mnist.FOLDER).is_dir(),
    reason="apt-get install dataset-fashion-mnist to test this",
)
def test_fashion_mnist_is_real() -> None:
    """60,000 images and 10,000 more, as many of each class."""
    train, test = fashion_mnist.read(Path(fashion_mnist.FOLDER))

    for images, n in ((train, 60_000), (test, 10_000)):
        assert images.pixels.shape == (n, 784)
        assert np.array_equal(np.bincount(images.labels), [n // 10] * 10)


def test_the_split_is_the_same_on_every_node() -> None:
    """A fixed order: two readings give the same parts, which together are the whole."""
    images = Images(np.arange(20, dtype=np.uint8).reshape(10, 2), np.arange(10))
    train, test = images.split(7)

    assert sorted([*train.labels, *test.labels]) == list(range(10))
    assert train.labels.tolist() == images.split(7)[0].labels.tolist() != list(range(7))
    assert np.array_equal(train.pixels[:, 0], 2 * train.labels)
    assert np.array_equal(test.pixels[:, 0], 2 * test.labels)


@pytest.mark.parametrize(
    ("package", "path"), [("no_such_package", "x.csv"), ("numpy", "no/such.csv"), ("this", "x.csv")]
)
def test_a_package_without_the_data_is_named_with_the_remedy(package: str, path: str) -> None:
    """Whether the package is missing, or the file in it, or it is a single module."""
    with pytest.raises(TaskError) as error:
        from_package(package, path)

    assert str(error.value) == (
        f"the data set is missing, {path} of the package {package}: pip install 'byzsgd[demo]'"
    )


# IDX


@pytest.mark.parametrize("write", [plain, zipped])
def test_idx_files_are_read_gzipped_or_not(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    """Images row after row, and the class of each."""
    write_pair(tmp_path, "train", 4, write)

    images = from_idx(tmp_path, "train")
    assert images.pixels.tolist() == np.arange(24).reshape(4, 6).tolist()
    assert images.labels.tolist() == [0, 1, 2, 3]
    assert images.pixels.flags.writeable


def test_the_task_reads_all_four_files(tmp_path: Path) -> None:
    """Training and test set."""
    write_pair(tmp_path, "train", 4, plain)
    write_pair(tmp_path, "t10k", 2, zipped)

    train, test = fashion_mnist.read(tmp_path)
    assert (len(train.labels), len(test.labels)) == (4, 2)


def test_a_missing_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    """Which package has it, and which option names another."""
    with pytest.raises(TaskError) as error:
        fashion_mnist.read(tmp_path / "none")

    assert str(error.value) == (
        f"the data set is missing, no folder {tmp_path}/none: apt-get install "
        "dataset-fashion-mnist, or set task_options.folder"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Under both of its names."""
    write_pair(tmp_path, "train", 4, plain)

    path = tmp_path / "t10k-images-idx3-ubyte"
    with pytest.raises(TaskError, match=f"^the data set is missing, no {path} or {path.name}.gz$"):
        fashion_mnist.read(tmp_path)


def test_as_many_labels_as_images(tmp_path: Path) -> None:
    """Files that do not belong together are refused with both numbers."""
    write_pair(tmp_path, "train", 4, plain)
    plain(tmp_path / "train-labels-idx1-ubyte", idx(5))

    with pytest.raises(TaskError, match=f"^{tmp_path}: 4 images of train, but 5 labels$"):
        from_idx(tmp_path, "train")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        idx(4),
        idx(4, 2),
        idx(4, 2, 3)[:15],
        b"\0\0\x0d" + idx(4, 2, 3)[3:],
        b"\1" + idx(4, 2, 3)[1:],
        b"<html>no such page</html>",
    ],
)
def test_what_is_no_idx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Other dimensions, other types than bytes, a head cut short, or another format."""
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(TaskError, match=f"^{path}: no IDX file of bytes in 3 dimensions$"):
        read_idx(path, 3)


@pytest.mark.parametrize(("content", "found"), [(idx(4, 2, 3)[:-1], 23), (idx(4, 2, 3) + b"x", 25)])
def test_a_file_holds_what_its_head_announces(tmp_path: Path, content: bytes, found: int) -> None:
    """No byte less and none more."""
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(
        TaskError, match=f"^{path}: its header announces 24 bytes, but {found} follow$"
    ):
        read_idx(path, 3)


def test_a_head_that_announces_more_than_there_is_memory_is_refused(tmp_path: Path) -> None:
    """Nothing is allocated for it."""
    path = tmp_path / "x"
    path.write_bytes(bytes((0, 0, 8, 3)) + b"\xff" * 12 + b"x")

    with pytest.raises(TaskError, match=f"announces {(2**32 - 1) ** 3} bytes, but 1 follow"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-9],
        lambda whole: b"\0" + whole[1:],
        lambda whole: whole[:12] + b"\xff\xff\xff" + whole[15:],
        lambda whole: whole[:-8] + b"\0\0\0\0" + whole[-4:],
    ],
    ids=["truncated", "no gzip", "content", "checksum"],
)
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Cut short, no gzip at all, or with another content than was packed."""
    path = tmp_path / "x.gz"
    path.write_bytes(damage(gzip.compress(idx(40, 2, 3))))

    with pytest.raises(TaskError, match=f"^{path}: damaged gzip file: "):
        read_idx(path, 3)
