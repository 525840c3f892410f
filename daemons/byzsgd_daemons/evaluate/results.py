"""What came of each run, in a file that an evaluation goes on from: one line of JSON a run.

A line is on disk before the next run begins. What is left of a line that was being written when
the machine went down is taken off; any other damage is named.
"""

import errno
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from math import isfinite, nan
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from byzsgd import __version__
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd_daemons.evaluate.plan import Run
from byzsgd_daemons.local import Point

RESULTS_FILE = "results.jsonl"

CPU = "cpu"
"""The device of runs whose line names none."""

LAST = 5
"""Evaluations whose mean is a run's accuracy."""


class State(StrEnum):
    """How a run ended."""

    DONE = "done"
    """At its last step."""
    STALLED = "stalled"
    """Before its last step: no step was made any more. Of a baseline under attack, a finding."""
    FAILED = "failed"
    """Not as a training ends: worth another try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a run."""

    state: State
    sentence: str = ""
    """Why it did not get to its last step."""
    wall_seconds: float = 0.0
    """How long it took, starts and stops included."""
    points: tuple[Point, ...] = ()
    """The evaluations."""
    drift: tuple[tuple[int, float], ...] = ()
    """Step and drift, of every step, where the run asked for it."""
    messages: Mapping[str, int] = field(default_factory=dict)
    """Messages on their way to a receiver, by kind; in daemons, received by correct nodes."""
    bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of these messages."""
    pulls: int = 0
    """Pulls that correct nodes sent."""
    parameters: int = 0
    """d; 0 if unknown."""

    def accuracy(self) -> float:
        """Mean accuracy of the last evaluations, a fraction; NaN where there is none."""
        return _mean([point.accuracy for point in self.points[-LAST:]])

    def accuracy_worst(self) -> float:
        """The same of the worst correct server."""
        return _mean([point.accuracy_worst for point in self.points[-LAST:]])

    def drift_max(self) -> float:
        """Largest drift that was seen."""
        return max((point.drift for point in self.points), default=0.0)

    def steps_per_second(self) -> float:
        """Learning steps a second between the first and the last evaluation; NaN if unknown.

        In memory these seconds are virtual, and say nothing.
        """
        if len(self.points) < 2:
            return nan
        first, last = self.points[0], self.points[-1]
        return (last.step - first.step) / max(last.seconds - first.seconds, 1e-9)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not finite becomes None."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["points"] = [
            {name: _finite(value) for name, value in asdict(point).items()} for point in self.points
        ]
        values["drift"] = [(step, _finite(drift)) for step, drift in self.drift]
        return values | {"wall_seconds": round(self.wall_seconds, 3)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Outcome":
        """The outcome of JSON values.

        Raises:
            ConfigError: If they are those of no outcome.
        """
        try:
            rest = dict(values)
            points = tuple(_point(point) for point in rest.pop("points", ()))
            drift = tuple((int(step), _number(drift)) for step, drift in rest.pop("drift", ()))
            rest |= {"state": State(rest["state"]), "points": points, "drift": drift}
            return Outcome(**rest)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is no outcome of a run: {error}") from None


def _point(values: Mapping[str, Any]) -> Point:
    loss = values["loss"]
    numbers = {name: _number(value) for name, value in values.items() if name not in _WHOLE}
    return Point(**numbers | {"step": int(values["step"]), "loss": loss})


_WHOLE = ("step", "loss")


def _number(value: float | None) -> float:
    return nan if value is None else float(value)


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else nan


class Record:
    """The outcomes of all runs so far; as a context manager, open for more."""

    def __init__(self, folder: Path) -> None:
        """Read what is there.

        Raises:
            ConfigError: If a line of the file is damaged, other than the end of the last.
        """
        self.path = folder / RESULTS_FILE
        self.outcomes: dict[str, Outcome] = {}
        """By the key of the run; the last one counts."""
        self.runs: dict[str, Run] = {}
        """What ran, by the same keys."""
        self._devices: dict[str, str] = {}
        """Where workers computed, by the same keys."""
        self._whole = 0
        self._file: int | None = None
        self._read()

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written to: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._close()
            raise ByzsgdError(f"{self.path}: another evaluation writes to it") from None
        try:
            self._read()  # What was written before the lock was ours.
            os.ftruncate(self._file, self._whole)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def devices(self) -> set[str]:
        """Where the workers of all runs in daemons computed; a failed one counts for nothing."""
        return {
            self._devices[key]
            for key, outcome in self.outcomes.items()
            if outcome.state is not State.FAILED and not self.runs[key].in_memory
        }

    def add(self, run: Run, outcome: Outcome, *, device: str = CPU) -> None:
        """Put an outcome on disk, with every number of the liars.

        Args:
            run: What ran.
            outcome: What came of it.
            device: Where its workers computed.

        Raises:
            ByzsgdError: If there is no room for it, or if the disk fails otherwise.
        """
        assert self._file is not None, "not open"
        values = {
            "key": run.key,
            "version": __version__,
            "run": run.description(),
            "lies": run.drill.record(),
            "outcome": outcome.as_json(),
        }
        if device != CPU:
            values["device"] = device
        line = json.dumps(values, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError as error:
            # Half a line would spoil the next one.
            os.ftruncate(self._file, size)
            remedy = "mend that, and the same command goes on"
            raise ByzsgdError(f"{self.path}: {error.strerror}; {remedy}") from None
        self._keep(run.key, run, outcome, device)

    def _keep(self, key: str, run: Run, outcome: Outcome, device: str) -> None:
        self.runs[key], self.outcomes[key], self._devices[key] = run, outcome, device

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._whole].splitlines(), 1):
            try:
                values = json.loads(line)
                outcome = Outcome.from_json(values["outcome"])
                key, run = str(values["key"]), Run.described(values["run"])
                device = str(values.get("device", CPU))
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                raise ConfigError(f"{self.path}: line {number}: {error}; remove it") from None
            self._keep(key, run, outcome, device)
