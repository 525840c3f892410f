"""What ``byzsgd plot`` draws of the points in a folder."""

import sys
from pathlib import Path

import pytest

from byzsgd.errors import ConfigError
from byzsgd_daemons import plot
from byzsgd_daemons.cli import main
from byzsgd_daemons.folder import COLUMNS

ROWS = ("0,0,.1,.1,0,0,", "10,5,.5,.5,.25,.1,2", "10,5,.5,.5,.25,.1,2", "30,9,.9,.8,.5,.1,1")


def run(folder: Path, rows: tuple[str, ...] = ROWS, *, name: str = "points.csv") -> Path:
    folder.mkdir(exist_ok=True)
    head = ",".join(COLUMNS if name == "points.csv" else ("training", *COLUMNS))
    (folder / name).write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_each_figure_is_drawn_over_steps_and_over_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracy, loss, drift and speed, into the training's own folder."""
    folder = run(tmp_path / "run")
    assert main(["plot", str(folder)]) == 0

    names = ("accuracy", "loss", "drift", "speed")
    assert {path.name for path in folder.glob("*.svg")} == {f"{name}.svg" for name in names}
    assert capsys.readouterr().out == (
        "written: " + ", ".join(str(folder / f"{name}.svg") for name in names) + "\n"
    )
    text = (folder / "accuracy.svg").read_text()
    assert text.startswith("<?xml")
    for words in (">step<", ">seconds since the first step<", "accuracy on held-out data"):
        assert words in text


def test_equal_points_make_equal_files(tmp_path: Path) -> None:
    """So that a report under version control changes when its figures do."""
    folder = run(tmp_path / "run")
    first = [path.read_bytes() for path in plot.plot([folder], tmp_path / "a")]
    again = [path.read_bytes() for path in plot.plot([folder], tmp_path / "b")]

    assert first == again


def test_several_trainings_are_drawn_together(tmp_path: Path) -> None:
    """Each by the name of its folder."""
    one = run(tmp_path / "one")
    rows = ("byzsgd,0,0,.5,.5,0,0,", "vanilla,0,0,.25,.25,0,0,2")
    other = run(tmp_path / "other", rows, name="demo.csv")
    plot.plot([one, other], tmp_path)
    text = (tmp_path / "accuracy.svg").read_text()

    assert [label in text for label in (f"{one}", f"{other} byzsgd", f"{other} vanilla")] == [
        True
    ] * 3


def test_what_there_is_none_of_is_not_drawn(tmp_path: Path) -> None:
    """No drift of one server, no loss that no worker told, no speed of one point."""
    folder = run(tmp_path / "run", ("0,0,.1,.1,0,0,",))

    assert [path.name for path in plot.plot([folder], folder)] == ["accuracy.svg"]


def test_speed_is_what_was_done_since_the_point_before(tmp_path: Path) -> None:
    """Where a training was stopped, the time to the next point is unknown, and so is the speed."""
    points = plot._trainings([run(tmp_path / "run")])[str(tmp_path / "run")]

    assert [value for _, value in plot._speed(points)] == [2, 5]


def test_a_folder_without_points_is_refused(tmp_path: Path) -> None:
    """With what would be there."""
    with pytest.raises(ConfigError) as error:
        plot.plot([tmp_path], tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: no points.csv or demo.csv there, as byzsgd local --out or byzsgd demo leave "
        "it"
    )
    with pytest.raises(ConfigError, match="no model was evaluated there yet"):
        plot.plot([run(tmp_path / "run", ())], tmp_path)


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"^plots need matplotlib: pip install 'byzsgd\[demo\]'$"):
        plot.plot([run(tmp_path / "run")], tmp_path)
