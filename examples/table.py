"""A table of your own: a CSV file with a header, and a perceptron that foretells one column.

byzsgd local --task examples/table.py:table --task-option path=machines.csv \
    --task-option target=state --steps 300 --attack sign-flip --server-attack equivocate
"""

import csv
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from byzsgd.errors import TaskError
from byzsgd.tasks import Share
from byzsgd.tasks.shards import Split
from byzsgd.tasks.torch_task import Examples, TorchTask

HELD_OUT = 5
"""Every fifth row is for testing."""

LARGEST = torch.finfo(torch.float32).max


def read(path: Path, target: str) -> tuple[Tensor, Tensor]:
    """The numbers ``(n, columns)`` of a table, and the class of each row, from 0.

    Raises:
        TaskError: If a cell is no number, or a row or a column is missing; it says which.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if target not in header or len(set(header)) < len(header):
                raise TaskError(
                    f"{path}, line 1: must name each column once, and {target!r} among them; "
                    f"found {', '.join(header) or 'nothing'}"
                )
            rows = [
                _row(f"{path}, line {lines.line_num}", header, line, target)
                for line in lines
                if line
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from None
    classes = sorted({name for _, name in rows})
    if len(classes) < 2 or len(rows) < HELD_OUT:
        raise TaskError(f"{path}: {len(rows)} rows of {len(classes)} classes are too few")
    numbers = torch.tensor([numbers for numbers, _ in rows])
    return numbers, torch.tensor([classes.index(name) for _, name in rows])


def _row(where: str, header: list[str], cells: list[str], target: str) -> tuple[list[float], str]:
    """The numbers of a row, and its class."""
    if len(cells) != len(header):
        raise TaskError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
    row = dict(zip(header, cells, strict=True))
    name = row.pop(target)
    return [_number(f"{where}, column {column!r}", cell) for column, cell in row.items()], name


def _number(where: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST:  # Nor is NaN.
        raise TaskError(f"{where}: {cell!r} is no number")
    return number


class Perceptron(nn.Module):
    """Takes rows as they stand in the file: it knows how to standardise them.

    Mean and deviation are buffers that nothing changes: they leave with the model.
    """

    def __init__(self, numbers: Tensor, classes: int, hidden: int) -> None:
        super().__init__()
        deviation = numbers.std(dim=0)
        self.register_buffer("mean", numbers.mean(dim=0))
        self.register_buffer("deviation", torch.where(deviation > 0, deviation, 1))
        self.layers = nn.Sequential(
            nn.Linear(numbers.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, numbers: Tensor) -> Tensor:
        """Scores ``(n, classes)``."""
        scores: Tensor = self.layers((numbers - self.mean) / self.deviation)
        return scores


def table(path: str, target: str, hidden: int = 32, split: str = "iid") -> TorchTask:
    """The task; its arguments stand in the cluster file, under ``[task_options]``.

    Args:
        path: The CSV file, from this file's folder.
        target: The column to foretell: its words are the classes. All others are numbers.
        hidden: Width of the hidden layer.
        split: ``iid``: all rows for every worker. ``shards``: a part of its own for each.
    """
    numbers, classes = read(Path(__file__).parent / path, target)
    tested = torch.arange(len(numbers)) % HELD_OUT == 0
    train, labels = numbers[~tested], classes[~tested]
    how = Split(split)

    def part(share: Share) -> Examples:
        rows = torch.from_numpy(how.rows(labels.numpy(), share))
        return train[rows], labels[rows]

    return TorchTask(
        model=lambda: Perceptron(train, int(classes.max()) + 1, hidden),
        data=part,
        loss=nn.functional.cross_entropy,
        test_data=lambda: (numbers[tested], classes[tested]),
    )
