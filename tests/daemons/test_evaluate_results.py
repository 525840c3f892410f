"""The record of an evaluation: what is on it stays, and what is damaged is named."""

import errno
import json
import os
from math import isnan, nan
from pathlib import Path

import pytest

from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd_daemons.evaluate.plan import Run
from byzsgd_daemons.evaluate.results import Outcome, Record, State
from byzsgd_daemons.init import Plan
from byzsgd_daemons.local import Drill, Point

RUN = Run(plan=Plan(task="digits"), drill=Drill(attack="alie", options={"z": 1.0}))
OTHER = Run(plan=Plan(task="mnist"))


def point(step: int, accuracy: float = 0.5, *, drift: float = 0.25) -> Point:
    return Point(
        step=step,
        seconds=step / 10,
        accuracy=accuracy,
        accuracy_worst=accuracy / 2,
        drift=drift,
        drift_ratio=drift / 4,
        loss=None,
    )


def outcome(*points: Point) -> Outcome:
    return Outcome(
        state=State.DONE,
        wall_seconds=2.0,
        points=points,
        drift=((0, 0.0), (1, 0.5)),
        messages={"model": 7},
        bytes={"model": 700},
        pulls=3,
        parameters=10,
    )


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With its run, under its run's key."""
    written = outcome(point(0), point(12, 0.75))

    with Record(tmp_path) as record:
        record.add(RUN, written)

    read = Record(tmp_path)
    assert read.outcomes == {RUN.key: written}
    assert read.runs == {RUN.key: RUN}


def test_every_number_of_the_liars_is_on_record(tmp_path: Path) -> None:
    """Given or not: a default that changes later leaves it as it was."""
    with Record(tmp_path) as record:
        record.add(RUN, outcome(point(0)))

    lies = json.loads(record.path.read_text())["lies"]
    assert lies["attack"] == "alie"
    assert lies["attack_options"] == {"z": 1.0, "ddof": 0, "sign": -1}


def test_a_line_without_device_or_lies_is_read(tmp_path: Path) -> None:
    """As it was written before there were such words: it ran on the CPU."""
    with Record(tmp_path) as record:
        record.add(RUN, outcome(point(0)), device="cuda")
    assert Record(tmp_path).devices() == {"cuda"}
    line = json.loads(record.path.read_text())
    del line["device"], line["lies"]
    record.path.write_text(json.dumps(line) + "\n")

    read = Record(tmp_path)

    assert read.outcomes.keys() == {RUN.key}
    assert read.devices() == {"cpu"}


def test_what_is_not_finite_is_no_number_in_the_record(tmp_path: Path) -> None:
    """JSON knows no NaN and no infinity: they come back as NaN."""
    with Record(tmp_path) as record:
        record.add(RUN, outcome(point(0, drift=nan), point(1, drift=float("inf"))))

    [line] = record.path.read_text().splitlines()
    json.loads(line, parse_constant=lambda constant: pytest.fail(constant))
    assert all(isnan(each.drift) for each in Record(tmp_path).outcomes[RUN.key].points)


def test_the_last_outcome_of_a_run_counts(tmp_path: Path) -> None:
    """A run that failed and was tried again."""
    with Record(tmp_path) as record:
        record.add(RUN, Outcome(state=State.FAILED, sentence="no port"))
        record.add(RUN, outcome(point(0)))

    assert Record(tmp_path).outcomes[RUN.key].state is State.DONE


def test_a_line_that_was_being_written_is_taken_off(tmp_path: Path) -> None:
    """What is whole stays, and the next line is whole again."""
    with Record(tmp_path) as record:
        record.add(RUN, outcome(point(0)))
    whole = record.path.read_bytes()
    record.path.write_bytes(whole + whole[: len(whole) // 2])

    assert Record(tmp_path).outcomes.keys() == {RUN.key}
    with Record(tmp_path) as again:
        again.add(OTHER, outcome(point(0)))

    assert Record(tmp_path).outcomes.keys() == {RUN.key, OTHER.key}
    assert record.path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"key": "a", "run": {}, "outcome": {"state": "done"}}',
        '{"key": "a", "run": {"plan": {}, "drill": {}}, "outcome": {"state": "well"}}',
        '{"key": "a", "run": {"plan": {}, "drill": {}}, "outcome": {"state": "done", "z": 1}}',
    ],
)
def test_any_other_damage_is_named(tmp_path: Path, line: str) -> None:
    """The file, the line, and what to do about it."""
    with Record(tmp_path) as record:
        record.add(RUN, outcome(point(0)))
    record.path.write_text(record.path.read_text() + line + "\n")

    with pytest.raises(ConfigError, match=r"results\.jsonl: line 2: .*; remove it"):
        Record(tmp_path)


@pytest.mark.parametrize("written", [0, 40])
def test_a_full_disk_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """It is named; and once there is room, the next line is whole."""
    write = os.write

    def full(file: int, line: bytes) -> int:
        if not written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, line[:written])

    with Record(tmp_path) as record:
        record.add(RUN, outcome(point(0)))
        whole = record.path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(ByzsgdError, match=r"results\.jsonl: No space left on device; mend"):
            record.add(OTHER, outcome(point(0)))
        assert record.path.read_bytes() == whole
        monkeypatch.setattr(os, "write", write)
        record.add(OTHER, outcome(point(0)))

    assert Record(tmp_path).outcomes.keys() == {RUN.key, OTHER.key}


def test_a_damaged_record_stays_closed(tmp_path: Path) -> None:
    """Damage that came after it was first read: whoever opens it is told, and holds no lock."""
    record = Record(tmp_path)
    record.path.write_text("{\n")
    with pytest.raises(ConfigError, match="line 1: "):
        record.__enter__()
    record.path.write_text("")

    with Record(tmp_path) as again:
        again.add(RUN, outcome(point(0)))


def test_two_evaluations_never_write_to_one_record(tmp_path: Path) -> None:
    """The second is told so."""
    with Record(tmp_path), pytest.raises(ByzsgdError, match="another evaluation writes to it"):
        Record(tmp_path).__enter__()

    with Record(tmp_path) as record:
        record.add(RUN, outcome(point(0)))


def test_a_folder_that_cannot_be_written_to() -> None:
    """It is named, before anything runs."""
    with pytest.raises(ConfigError, match="/proc/nowhere"):
        Record(Path("/proc/nowhere")).__enter__()


def test_accuracy_is_the_mean_of_the_last_five_evaluations() -> None:
    """Of all where there are fewer; NaN where there is none."""
    accuracies = [0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9]
    found = outcome(*(point(step, accuracy) for step, accuracy in enumerate(accuracies)))

    assert found.accuracy() == pytest.approx(0.7)
    assert found.accuracy_worst() == pytest.approx(0.35)
    assert outcome(point(0, 0.25)).accuracy() == 0.25
    assert isnan(Outcome(state=State.FAILED).accuracy())


def test_throughput_is_measured_from_the_first_evaluation_to_the_last() -> None:
    """Ten steps a second; nothing is known from a single one."""
    assert outcome(point(0), point(50), point(100)).steps_per_second() == pytest.approx(10)
    assert isnan(outcome(point(0)).steps_per_second())
