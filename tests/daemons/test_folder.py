"""What a local training leaves in its folder, and how the next one goes on from there."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from byzsgd.errors import ConfigError
from byzsgd_daemons import folder, init
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.folder import Keeping, cluster_file, read_points
from byzsgd_daemons.local import Drill, Point, Training

PLAN = init.Plan(task="quadratic", steps=40)


def point(step: int, **changes: float | None) -> Point:
    usual = {"seconds": step / 2, "accuracy": 0.5, "accuracy_worst": 0.25, "drift": 1e-3}
    more: dict[str, float | None] = {**usual, "drift_ratio": 0.125, "loss": 1.5, **changes}
    return Point(step=step, **more)  # type: ignore[arg-type]


class Shown:
    """A view that notes what it is shown."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.looks = 0

    def refresh(self, training: Training) -> None:
        self.looks += 1

    def evaluated(self, training: Training) -> None:
        self.steps.append(training.points[-1].step)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    cluster = read_cluster(cluster_file(tmp_path / "run", PLAN, planned=True))
    return Training(cluster=cluster, lying=frozenset())


# The cluster file


def test_a_new_folder_gets_a_cluster_of_the_plan(tmp_path: Path) -> None:
    """With keys, and on ports that are free."""
    file = cluster_file(tmp_path / "a" / "run", PLAN, planned=True)

    assert file == tmp_path / "a" / "run" / "cluster.toml"
    assert read_cluster(file).steps == 40
    assert (file.parent / "keys" / "s0.key").is_file()


def test_the_same_words_find_the_same_cluster(tmp_path: Path) -> None:
    """And so do no words at all: what is there counts."""
    file = cluster_file(tmp_path, PLAN, planned=True)
    before = file.read_bytes()
    cluster_file(tmp_path, PLAN, planned=True)
    cluster_file(tmp_path, init.Plan(), planned=False)

    assert file.read_bytes() == before


def test_other_words_are_refused(tmp_path: Path) -> None:
    """A training must not go on as another one unseen; what differs is named."""
    file = cluster_file(tmp_path, PLAN, planned=True)

    with pytest.raises(ConfigError) as error:
        cluster_file(tmp_path, replace(PLAN, steps=50, servers=8, f_servers=1), planned=True)
    assert str(error.value) == (
        f"{file}: is there, and says something else of nodes, server_quorum, steps; to go on with "
        "it leave the flags of a new cluster out, to begin anew give another folder"
    )


# Points


def test_every_point_is_on_disk_before_it_is_shown(tmp_path: Path, training: Training) -> None:
    """Whatever ends the process then, nothing that was seen is lost."""
    path, seen = tmp_path / "points.csv", []

    class Looking(Shown):
        def evaluated(self, training: Training) -> None:
            seen.append(read_points(path)[""])

    keeping = Keeping(Looking(), path)
    for step in (0, 10):
        training.points.append(point(step, loss=None if step else 1.5))
        keeping.evaluated(training)
    keeping.close()

    assert seen == [[point(0)], [point(0), point(10, loss=None)]]
    assert keeping.training is training


@pytest.mark.parametrize("first", [True, False], ids=["at first", "later"])
def test_points_that_a_full_disk_did_not_take_are_written_later(
    first: bool, tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are shown meanwhile, with why they are not on disk; then all of them are there."""
    path, shown = tmp_path / "points.csv", Shown()
    keeping = Keeping(shown, path)
    with monkeypatch.context() as full:
        if first:
            full.setattr(folder, "write_whole", refused)
        else:
            opened = partial(Path.open, Path("/dev/full"))
            full.setattr(Path, "open", lambda _, mode: opened(mode))
        for step in (0, 10):
            training.points.append(point(step))
            keeping.evaluated(training)
        why = f"{path}: not written, training goes on: No space left on device"
        assert training.troubles() == [why]
    training.points.append(point(20))
    keeping.evaluated(training)

    assert training.troubles() == []
    assert keeping.close() == []
    assert shown.steps == [0, 10, 20]
    assert read_points(path)[""] == training.points


def refused(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_points_that_no_disk_took_are_said_to_be_missing(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those of the training before, none is; if there is room at the end, nothing is."""
    path, earlier = tmp_path / "points.csv", [point(0), point(10)]
    keeping = Keeping(Shown(), path, earlier)
    training.points = list(earlier)
    with monkeypatch.context() as full:
        full.setattr(folder, "write_whole", refused)
        keeping.evaluated(training)
        assert keeping.close() == [], "the last of those of before was made again"
        training.points.append(point(20))
        keeping.evaluated(training)
        assert keeping.close() == [f"{path}: lacks the last point: No space left on device"]
        training.points.append(point(30))
        keeping.evaluated(training)

        lacking = f"{path}: lacks the last 2 points: No space left on device"
        assert keeping.close() == [lacking]
    assert keeping.close() == []
    assert read_points(path)[""] == training.points


def test_points_that_were_made_again_count_once(tmp_path: Path, training: Training) -> None:
    """Whoever goes on from a checkpoint makes steps anew: what is there is written over."""
    path = tmp_path / "points.csv"
    for last in (20, 15):
        keeping = Keeping(Shown(), path)
        training.points = [point(0), point(10), point(last)]
        keeping.evaluated(training)
        keeping.close()

    assert [found.step for found in read_points(path)[""]] == [0, 10, 15]


def test_what_is_shown_is_handed_on(tmp_path: Path, training: Training) -> None:
    """A training without a point leaves what was there."""
    shown, path = Shown(), tmp_path / "points.csv"
    path.write_text("kept")
    keeping = Keeping(shown, path)
    keeping.refresh(training)
    keeping.close()

    assert (shown.looks, shown.steps, path.read_text()) == (1, [], "kept")


def test_points_of_a_demo_are_read_by_name(tmp_path: Path) -> None:
    """Its file has two trainings."""
    head = "training," + ",".join(folder.COLUMNS)
    rows = ("byzsgd,0,0,.5,.5,0,0,", "vanilla,0,0,.25,.25,0,0,2", "byzsgd,9,1,.75,.5,0,0,1")
    (tmp_path / "demo.csv").write_text("\n".join([head, *rows, ""]))
    found = read_points(tmp_path / "demo.csv")

    assert {name: [p.step for p in points] for name, points in found.items()} == {
        "byzsgd": [0, 9],
        "vanilla": [0],
    }
    assert found["byzsgd"][0].loss is None
    assert found["byzsgd"][1] == point(9, seconds=1, accuracy=0.75, accuracy_worst=0.5, drift=0,
                                       drift_ratio=0, loss=1)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "key," + ",".join(folder.COLUMNS), ",".join(folder.COLUMNS) + "\n1,2\n"],
)
def test_what_holds_no_points_is_refused(text: str, tmp_path: Path) -> None:
    """Named, in one line."""
    path = tmp_path / "points.csv"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"points.csv: holds no points of a training: "):
        read_points(path)
    with pytest.raises(ConfigError, match=r"none.csv: cannot be read: No such file"):
        read_points(tmp_path / "none.csv")


# One training, one folder


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], None]:
    """Trains in a folder by a cluster file, but that nothing is learned."""

    async def nothing(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr(folder.local, "train", nothing)

    def train(out: Path, file: Path) -> None:
        folder.train(out, file, Drill(), Shown(), logs=out, device="cpu", stays=True)

    return train


def test_a_folder_is_one_trainings_alone(
    train: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """A second one would write over the points of the first."""
    file = cluster_file(tmp_path, PLAN, planned=True)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError, match=r"another training goes on there"):
            train(tmp_path, file)
    finally:
        os.close(held)


def test_a_folder_does_not_go_on_by_another_cluster_file(
    train: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """Of the same length, it may be: that changes nothing of what was done."""
    out = tmp_path / "out"
    one, longer, other = (
        cluster_file(tmp_path / name, plan, planned=True)
        for name, plan in (
            ("one", PLAN),
            ("longer", replace(PLAN, steps=80)),
            ("other", replace(PLAN, seed=7)),
        )
    )
    train(out, one)
    train(out, longer)
    with pytest.raises(ConfigError, match=r"something else of seed than .*give another folder"):
        train(out, other)


def test_a_folder_does_not_go_on_without_a_key_of_before(
    train: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """Another version of byzsgd may have had one: what it said is not known here."""
    out, file = tmp_path / "out", cluster_file(tmp_path / "one", PLAN, planned=True)
    train(out, file)
    told = out / "cluster.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"once": "00"}))
    with pytest.raises(ConfigError, match=r"something else of once than "):
        train(out, file)


def test_a_line_that_was_cut_off_is_no_point(tmp_path: Path, training: Training) -> None:
    """The power went, or the disk was full: what is before it counts."""
    path = tmp_path / "points.csv"
    keeping = Keeping(Shown(), path)
    for step in (0, 10):
        training.points.append(point(step))
        keeping.evaluated(training)
    keeping.close()
    path.write_bytes(path.read_bytes()[:-5])

    assert read_points(path) == {"": [point(0)]}
