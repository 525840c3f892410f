"""Runs whatever a record lacks: in memory several at a time, in daemons one after the other.

Whoever is interrupted loses the runs that are under way, and goes on with the next call.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from rich.console import Console

from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd_daemons.evaluate import daemons
from byzsgd_daemons.evaluate.plan import Experiment, Run
from byzsgd_daemons.evaluate.results import CPU, Outcome, Record, State
from byzsgd_daemons.local import ONE_THREAD
from byzsgd_daemons.nursery import Nursery

STARTS_SECONDS = {True: 0.5, False: 8.0}
"""What a run takes besides its steps, in memory or in daemons, until it was measured."""

STEP_SECONDS = {True: 0.01, False: 0.05}
"""What a step of the smallest task takes, likewise."""

TASK_FACTOR = {"mnist": 2, "fashion-mnist": 30}
"""How many times as long a step of a larger task takes on two cores, likewise."""

ERROR_BYTES = 500
"""Of what a process says that ended before its time: the last ones."""

SENTENCE_CHARS = 160
"""Of why a run did not get to its last step, in a line of progress."""

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
        step = STEP_SECONDS[run.in_memory] * TASK_FACTOR.get(run.plan.task, 1)
        return STARTS_SECONDS[run.in_memory] + run.steps() * step

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

    def __init__(
        self, console: Console, record: Record, wanted: Mapping[str, Experiment], device: str
    ) -> None:
        self._console = console
        self._record = record
        self._device = device
        self._left = dict(wanted)
        self._total = len(wanted)
        self._estimate = Estimate(record, cores())

    def done(self, key: str, experiment: Experiment, outcome: Outcome) -> None:
        """A run has ended: put it on record, and say so."""
        device = CPU if experiment.run.in_memory else self._device
        self._record.add(experiment.run, outcome, device=device)
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
    first = next(iter(outcome.sentence.splitlines()), "")
    return f"{outcome.state.value}: {first[:SENTENCE_CHARS]}"


def run(
    record: Record,
    wanted: Mapping[str, Experiment],
    console: Console,
    *,
    device: str = CPU,
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
    progress = Progress(console, record, wanted, device)
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
            outcome = await asyncio.to_thread(process.outcome, experiment.run)
            if process.ended:
                process = _start()
            progress.done(key, experiment, outcome)
    finally:
        process.end()


class Process:
    """A process that makes one run after the other in memory, and ends with this one."""

    def __init__(self, words: Sequence[str]) -> None:
        """Start it.

        Args:
            words: A program that answers as ``memory`` does.
        """
        self.ended = False
        """Whether it has ended, and what it was asked has failed."""
        # No pipe: nobody reads it while a run goes on, and a full one would stop the run.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - until the process ends.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # A Ctrl-C is this process's to answer.
            env=os.environ | ONE_THREAD,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked, self._answers = self._process.stdin, self._process.stdout

    def outcome(self, run: Run) -> Outcome:
        """The outcome of a run; after a failure of the process itself it has ended."""
        line = b""
        with suppress(BrokenPipeError):
            self._asked.write(json.dumps(run.description()).encode() + b"\n")
            self._asked.flush()
            line = self._answers.readline()
        try:
            if line.endswith(b"\n"):
                return Outcome.from_json(json.loads(line))
            sentence = self._last_words()
        except (ConfigError, ValueError) as error:
            sentence = f"its process gave no answer: {error}"
        self.end()
        return Outcome(state=State.FAILED, sentence=sentence)

    def _last_words(self) -> str:
        status = self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - ERROR_BYTES, 0))
        text = self._errors.read().decode(errors="replace").strip()
        return f"its process ended with status {status}: {text}"

    def end(self) -> None:
        """End it, whatever it does."""
        self.ended = True
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._asked.close()
        self._answers.close()
        self._errors.close()


def _start() -> Process:
    return Process([sys.executable, "-m", "byzsgd_daemons.evaluate.memory"])
