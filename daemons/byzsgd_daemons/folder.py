"""The folder of a local training: what it leaves there, and how it goes on from there.

It holds the cluster file with its keys, ``points.csv`` with a line for every evaluation, the
servers' checkpoints under ``state``, their ``logs``, and ``model.safetensors`` at the end.
"""

import asyncio
import csv
import fcntl
import io
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TextIO

from byzsgd.cluster import Cluster, Role, differing_keys
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd.files import PUBLIC, write_whole
from byzsgd.tasks import load_task
from byzsgd_daemons import fetch, init, local
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import Drill, Point, Training, View, free_addresses

POINTS = "points.csv"
"""The name of the file of evaluations."""

COLUMNS = tuple(each.name for each in fields(Point))


def cluster_file(folder: Path, plan: init.Plan, *, planned: bool) -> Path:
    """The cluster file of a folder: the one that is there, or else a new one.

    Args:
        folder: Made if it is not there.
        plan: What a new one shall say.
        planned: Whether the one that is there must say the same.

    Raises:
        ConfigError: If it does not, or the folder cannot be written to.
    """
    file = folder / init.CLUSTER_FILE
    if not file.exists():
        return init.create(folder, plan, free_addresses(plan))
    if planned and (other := differing_keys(_digests(plan), read_cluster(file).digests())):
        raise ConfigError(
            f"{file}: is there, and says something else of {', '.join(other)}; to go on with "
            "it leave the flags of a new cluster out, to begin anew give another folder"
        )
    return file


def _digests(plan: init.Plan) -> dict[str, bytes]:
    nodes = [*init.identities(plan, Role.SERVER), *init.identities(plan, Role.WORKER)]
    addresses = init.Addresses.consecutive(plan, init.LOCALHOST, 1, 0)
    text = init.cluster_text(plan, addresses, dict.fromkeys([*nodes, init.OPERATOR], ""))
    return Cluster.from_mapping(tomllib.loads(text), keys=False).digests()


def read_points(path: Path) -> dict[str, list[Point]]:
    """The points in a file, by the name of their training; "" where there is but one.

    Raises:
        ConfigError: If the file cannot be read, or holds something else.
    """
    found: dict[str, list[Point]] = {}
    try:
        with path.open(newline="") as file:
            # A last line that was cut off, by a full disk or the power, is none.
            rows = csv.DictReader(line for line in file if line.endswith("\n"))
            names = [name for name in rows.fieldnames or () if name != "training"]
            if names != list(COLUMNS):
                raise ValueError(f"its columns are {', '.join(names) or 'none'}")
            for row in rows:
                name = row.pop("training", "")
                found.setdefault(name, []).append(_point(row))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: holds no points of a training: {error}") from None
    return found


def _point(row: dict[str, str]) -> Point:
    loss = row["loss"]
    rest = {name: float(row[name]) for name in COLUMNS if name not in ("step", "loss")}
    return Point(step=int(row["step"]), loss=float(loss) if loss else None, **rest)


def _lines(points: Iterable[Point]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(map(asdict, points))
    return text.getvalue()


class Keeping:
    """A view that puts every point on disk before another view shows it.

    A disk that takes none ends no training: they go there with a later one, or are missing.
    """

    def __init__(self, view: View, path: Path, earlier: Sequence[Point] = ()) -> None:
        """Write nothing yet.

        Args:
            view: Shows how it goes.
            path: The file of the points.
            earlier: Those that are in it.
        """
        self._view = view
        self._path = path
        self._earlier = earlier
        self._file: TextIO | None = None
        self._written = 0
        self._reason = ""
        self.training: Training | None = None
        """What was shown last."""

    def refresh(self, training: Training) -> None:
        """Show it."""
        self._view.refresh(training)

    def evaluated(self, training: Training) -> None:
        """Write the new point, then show it."""
        if self.training is None:
            steps = zip(training.points, self._earlier, strict=False)
            self._written = sum(point.step == there.step for point, there in steps)
        self.training = training
        self._write(training)
        self._view.evaluated(training)

    def close(self) -> list[str]:
        """Nothing more is written; a sentence says what the file lacks, if anything."""
        training = self.training
        if training is None:
            return []
        if training.unwritten:
            self._write(training)  # There may be room by now.
        lacking = len(training.points) - self._written
        self._close_file()
        if not lacking:
            return []
        what = "last point" if lacking == 1 else f"last {lacking} points"
        return [f"{self._path}: lacks the {what}: {self._reason}"]

    def _write(self, training: Training) -> None:
        """Write the last point, or all: those of a later step do not count, nor a line cut off."""
        try:
            if self._file is None:
                head = ",".join(COLUMNS) + "\n"
                write_whole(self._path, (head + _lines(training.points)).encode(), mode=PUBLIC)
                self._file = self._path.open("a")
            else:
                self._file.write(_lines(training.points[-1:]))
                self._file.flush()
        except OSError as error:
            self._close_file()
            self._reason = error.strerror or str(error)
            training.unwritten = f"{self._path}: not written, training goes on: {self._reason}"
        else:
            self._written = len(training.points)
            training.unwritten = ""

    def _close_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # It tries to write once more what was not taken.
                self._file.close()
            self._file = None


def train(
    folder: Path,
    file: Path,
    drill: Drill,
    view: View,
    *,
    logs: Path,
    device: str,
    stays: bool,
) -> Training:
    """Train to the last step, and leave the points and the model in a folder.

    Args:
        folder: Where they go.
        file: The cluster file.
        drill: Who lies.
        view: Shows how it goes.
        logs: Folder for a log of each daemon.
        device: Where workers compute.
        stays: Whether the folder outlives the training, so that there is something to go on from.

    Raises:
        ByzsgdError: If a file is wrong, if a daemon ends before the first step, or if the folder
            then lacks something.
        KeyboardInterrupt: After all that was reached is in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    points = folder / POINTS
    state = folder / "state" if stays else None
    with _alone(folder):
        if stays and file.resolve().parent != folder.resolve():
            _check_same(folder, file)
        earlier = read_points(points).get("", []) if points.exists() else []
        keeping = Keeping(view, points, earlier)
        failed: BaseException | None = None
        try:
            return asyncio.run(
                local.train(
                    file, drill, keeping, logs=logs, device=device, state=state, earlier=earlier
                )
            )
        except BaseException as error:
            failed = error
            raise
        finally:
            lacking = keeping.close()
            if stays:
                lacking += _leave_model(keeping.training, file, folder)
            else:
                lacking.clear()
            if lacking and isinstance(failed, ByzsgdError):
                failed.args = ("\n".join([str(failed), *lacking]),)
            elif lacking and (failed is None or isinstance(failed, KeyboardInterrupt)):
                raise ByzsgdError("\n".join(lacking))


def _leave_model(training: Training | None, file: Path, folder: Path) -> list[str]:
    """Write the model of the last point, if there is one; a sentence if it cannot be written."""
    if training is None:
        return []
    try:
        _write_model(training, file.resolve().parent, folder / "model.safetensors")
    except ByzsgdError as error:
        return [str(error)]
    return []


def _check_same(folder: Path, file: Path) -> None:
    """Make sure that a folder does not go on with the training of another cluster file.

    Raises:
        ConfigError: If it would.
    """
    digests = read_cluster(file).digests()
    now = {key: digest.hex() for key, digest in digests.items() if key != "steps"}
    told = folder / "cluster.json"
    before = json.loads(told.read_text()) if told.exists() else now
    if other := differing_keys(now, before):
        raise ConfigError(
            f"{folder}: holds a training whose cluster file says something else of "
            f"{', '.join(other)} than {file}; give another folder"
        )
    write_whole(told, json.dumps(now, indent=1).encode(), mode=PUBLIC)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder for one training: two would write over what the other one has.

    Raises:
        ConfigError: If another process holds it.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: another training goes on there") from None
        yield
    finally:
        os.close(held)


def _write_model(training: Training, folder: Path, out: Path) -> None:
    """Write the model of the last point, as ``byzsgd fetch`` does."""
    cluster = training.cluster
    assert training.vector is not None
    task = load_task(cluster.task, cluster.task_options, directory=folder)
    fetch.write(task, training.vector, out, step=training.points[-1].step)
