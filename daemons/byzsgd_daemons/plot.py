"""Draws what trainings left in their folders: accuracy, loss, drift and speed."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from byzsgd.errors import ConfigError
from byzsgd_daemons.evaluate.plots import Line, Panel, draw
from byzsgd_daemons.folder import POINTS, read_points
from byzsgd_daemons.local import Point

FILES = (POINTS, "demo.csv")
"""Where points are found: of ``byzsgd local --out``, and of ``byzsgd demo``."""

Trainings = Mapping[str, Sequence[Point]]
"""Points by the name of their training."""


def plot(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write a plot of each figure that the trainings in some folders have, and return the files.

    Raises:
        ConfigError: If a folder holds no points, or matplotlib is not installed.
    """
    trainings = _trainings(folders)
    written = []
    out.mkdir(parents=True, exist_ok=True)
    for name, (value, label, y_range) in FIGURES.items():
        lines = {each: value(points) for each, points in trainings.items()}
        if not any(lines.values()):
            continue
        svg = draw(_panels(lines, label, y_range))
        if svg is None:
            raise ConfigError("plots need matplotlib: pip install 'byzsgd[demo]'")
        written.append(out / f"{name}.svg")
        written[-1].write_text(svg)
    return written


def _trainings(folders: Sequence[Path]) -> Trainings:
    found = {}
    for folder in folders:
        file = next((folder / name for name in FILES if (folder / name).is_file()), None)
        if file is None:
            raise ConfigError(
                f"{folder}: no {' or '.join(FILES)} there, as byzsgd local --out or byzsgd demo "
                "leave it"
            )
        for name, points in read_points(file).items():
            words = [name] if name and len(folders) == 1 else [str(folder), name]
            found[" ".join(filter(None, words))] = points
    if not any(found.values()):
        raise ConfigError(f"{', '.join(map(str, folders))}: no model was evaluated there yet")
    return found


Values = list[tuple[Point, float]]


def _of_each(value: Callable[[Point], float | None]) -> Callable[[Sequence[Point]], Values]:
    def of_each(points: Sequence[Point]) -> Values:
        return [(point, found) for point in points if (found := value(point)) is not None]

    return of_each


def _drift(points: Sequence[Point]) -> Values:
    """Nothing where there is but one server, or all were of one mind."""
    return [(point, point.drift) for point in points] if any(p.drift for p in points) else []


def _speed(points: Sequence[Point]) -> Values:
    """Steps a second since the point before; after a stop that time is unknown."""
    return [
        (now, (now.step - before.step) / (now.seconds - before.seconds))
        for before, now in pairwise(points)
        if now.seconds > before.seconds
    ]


FIGURES: Mapping[
    str, tuple[Callable[[Sequence[Point]], Values], str, tuple[float, float] | None]
] = {
    "accuracy": (
        _of_each(lambda point: 100 * point.accuracy),
        "accuracy on held-out data, %",
        (0, 100),
    ),
    "loss": (_of_each(lambda point: point.loss), "loss on mini-batches", None),
    "drift": (_drift, "drift (L2) between correct servers", None),
    "speed": (_speed, "steps per second", None),
}
"""What is drawn, by file name: the values, and the axis that they are on."""


def _panels(
    lines: Mapping[str, Values], label: str, y_range: tuple[float, float] | None
) -> list[Panel]:
    over: Mapping[str, Callable[[Point], float]] = {
        "step": lambda point: point.step,
        "seconds since the first step": lambda point: point.seconds,
    }
    return [
        Panel(
            title="",
            lines=[
                Line(label=name, style=place, points=[(where(p), y) for p, y in values])
                for place, (name, values) in enumerate(lines.items(), start=1)
            ],
            x=x,
            y=label,
            y_range=y_range,
        )
        for x, where in over.items()
    ]
