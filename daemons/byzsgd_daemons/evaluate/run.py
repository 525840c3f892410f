"""Runs whatever a record lacks: in memory several at a time, in daemons one after the other.

Whoever is interrupted loses the runs that are under way, and goes on with the next call.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TypeAlias

from rich.console import Console

from byzsgd.errors import ByzsgdError
from byzsgd_daemons.evaluate import daemons
from byzsgd_daemons.evaluate.plan import Experiment, Run
from byzsgd_daemons.evaluate.results import Outcome, Record, State
from byzsgd_daemons.local import ONE_THREAD
from byzsgd_daemons.nursery import Nursery

STARTS_SECONDS = {True: 0.5, False: 8.0}
"""What a run takes besides its steps, in memory or in daemons, until it was measured."""

STEP_SECONDS = {True: 0.01, False: 0.05}
"""What a step takes, likewise."""

ERROR_CHARS = 500
"""Of what a process says that ended before its time."""

Process: TypeAlias = "subprocess.Popen[bytes]"

Kind: TypeAlias = tuple[bool, str, int]
"""Runs that take about as long as one another: where, which task, how many steps."""


class Estimate:
    """How long runs take, from those that are done."""

    def __init__(self, record: Record, cores: int) -> None:
        self._cores = cores
        self._seconds: dict[Kind, list[float]] = defaultdict(list)
        for key, outcome in record.outcomes.items():
            self.add(record.runs[key], outcome)

    def add(self, run: Run, outcome: Outcome) -> None:
        """A run is done."""
        if outcome.state is not State.FAILED:
            self._seconds[_kind(run)].append(outcome.wall_seconds)

    def of(self, run: Run) -> float:
        """Seconds that a run takes: as long as those of its kind, or a guess."""
        seconds = self._seconds.get(_kind(run))
        if seconds:
            return sum(seconds) / len(seconds)
        return STARTS_SECONDS[run.in_memory] + run.steps() * STEP_SECONDS[run.in_memory]

    def left(self, runs: Mapping[str, Experiment]) -> float:
        """Seconds until all of these are done."""
        return sum(
            self.of(each.run) / (self._cores if each.run.in_memory else 1) for each in runs.values()
        )


def _kind(run: Run) -> Kind:
    return run.in_memory, run.plan.task, run.steps()


def cores() -> int:
    """How many runs in memory go on at a time."""
    return len(os.sched_getaffinity(0))


def span(seconds: float) -> str:
    """A time for a person: 40 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def lacking(
    record: Record, wanted: Mapping[str, Experiment], *, retry_failed: bool
) -> dict[str, Experiment]:
    """What there is no outcome of yet, or one that is worth another try.

    Args:
        record: What is there.
        wanted: All runs by key.
        retry_failed: Whether failed and stalled runs are tried again.
    """
    return {
        key: experiment
        for key, experiment in wanted.items()
        if key not in record.outcomes
        or (retry_failed and record.outcomes[key].state is not State.DONE)
    }


class Progress:
    """Tells a person what has been done, and how long the rest will take."""

    def __init__(self, console: Console, record: Record, wanted: Mapping[str, Experiment]) -> None:
        self._console = console
        self._record = record
        self._left = dict(wanted)
        self._total = len(wanted)
        self._estimate = Estimate(record, cores())

    def done(self, key: str, experiment: Experiment, outcome: Outcome) -> None:
        """A run has ended: put it on record, and say so."""
        self._record.add(experiment.run, outcome)
        self._estimate.add(experiment.run, outcome)
        del self._left[key]
        left = self._estimate.left(self._left)
        count = self._total - len(self._left)
        words = f"{count:>{len(str(self._total))}}/{self._total} {experiment.group}: "
        words += f"{experiment.name()}: {said(outcome)}  {outcome.wall_seconds:.0f} s"
        if self._left:
            words += f"; {span(left)} left"
        self._console.print(words, highlight=False, markup=False, soft_wrap=True)


def said(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.state is State.DONE:
        return f"{100 * outcome.accuracy():.1f} %"
    return f"{outcome.state.value}: {outcome.sentence.splitlines()[0][:160]}"


def run(
    record: Record,
    wanted: Mapping[str, Experiment],
    console: Console,
    *,
    device: str = "cpu",
) -> None:
    """Run all that is wanted, and put every outcome on record as it comes.

    Args:
        record: Open.
        wanted: What to run, by key.
        console: Where progress is told.
        device: Where the workers of daemons compute.

    Raises:
        ConfigError: If a run cannot be described to daemons: no such task, no such attack.
    """
    progress = Progress(console, record, wanted)
    in_memory = {key: each for key, each in wanted.items() if each.run.in_memory}
    in_daemons = {key: each for key, each in wanted.items() if not each.run.in_memory}
    if in_memory:
        asyncio.run(_in_memory(in_memory, progress))
    if in_daemons:
        with Nursery() as nursery:
            for key, each in in_daemons.items():
                with console.status(each.name()) as status:
                    shown = _step_of(each, status.update)
                    outcome = daemons.train(each.run, shown, device=device, nursery=nursery)
                progress.done(key, each, outcome)


def _step_of(experiment: Experiment, update: Callable[[str], None]) -> Callable[[int], None]:
    def shown(step: int) -> None:
        update(f"{experiment.name()}: step {step} of {experiment.run.steps()}")

    return shown


async def _in_memory(wanted: Mapping[str, Experiment], progress: Progress) -> None:
    """Share the runs out to as many processes as there are cores."""
    left = iter(wanted.items())
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(cores(), len(wanted))):
                group.create_task(_one_after_another(left, progress))
    except* (ByzsgdError, OSError) as errors:
        raise errors.exceptions[0] from None  # Each would say the same: the disk.


async def _one_after_another(left: Iterator[tuple[str, Experiment]], progress: Progress) -> None:
    process = _start()
    try:
        for key, experiment in left:
            outcome = await asyncio.to_thread(_ask, process, experiment.run)
            if outcome is None:
                outcome = Outcome(state=State.FAILED, sentence=_last_words(process))
                _end(process)
                process = _start()
            progress.done(key, experiment, outcome)
    finally:
        _end(process)


def _start() -> Process:
    return subprocess.Popen(
        [sys.executable, "-m", "byzsgd_daemons.evaluate.memory"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # A Ctrl-C is this process's to answer.
        env=os.environ | ONE_THREAD,
    )


def _ask(process: Process, run: Run) -> Outcome | None:
    """The outcome of a run in a process, or None if the process ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(run.description()).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    return Outcome.from_json(json.loads(line)) if line.endswith(b"\n") else None


def _last_words(process: Process) -> str:
    assert process.stderr is not None
    text = process.stderr.read().decode(errors="replace").strip()
    return f"its process ended with status {process.wait()}: {text[-ERROR_CHARS:]}"


def _end(process: Process) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()
