"""``byzsgd evaluate``: runs what is lacking, says how far it is, and writes the report."""

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from byzsgd.cluster import nearest
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd.tasks import TASKS, load_task
from byzsgd_daemons.evaluate import memory, report, run
from byzsgd_daemons.evaluate.cells import Found, under_words, verdicts
from byzsgd_daemons.evaluate.margins import Verdict
from byzsgd_daemons.evaluate.plan import GROUPS, Experiment, Scale, experiments, runs
from byzsgd_daemons.evaluate.results import CPU, Record, State


def evaluate(
    scale: Scale,
    groups: Sequence[str],
    folder: Path,
    console: Console,
    *,
    listed: bool = False,
    report_only: bool = False,
    retry_failed: bool = False,
    document: Path | None = None,
    device: str = CPU,
) -> int:
    """Run whatever is not on record yet, and write the report; return an exit status.

    Args:
        scale: What the runs share.
        groups: Which of them; none for all.
        folder: Holds the record and the report.
        console: Where progress is told.
        listed: Say what would run, and do no more.
        report_only: Write the report of what is there.
        retry_failed: Run again what failed or stood still.
        document: Also write the tables into this document.
        device: Where the workers of daemons compute.

    Raises:
        ConfigError: If a word is wrong, or if the record is damaged.
        ByzsgdError: If it is interrupted, or if another evaluation writes to the folder.
    """
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(f"--only {group}: {nearest(group, GROUPS)}")
    chosen = experiments(scale, groups)
    wanted = runs(chosen)
    _check(chosen)
    if listed:
        _list(chosen, Record(folder), console)
        return 0
    if not report_only:
        _check_data(run.lacking(Record(folder), wanted, retry_failed=retry_failed).values())
        with Record(folder) as record:
            _check_device(record, wanted, device)
            missing = run.lacking(record, wanted, retry_failed=retry_failed)
            _begin(record, wanted, missing, console)
            try:
                run.run(record, missing, console, device=device)
            except KeyboardInterrupt:
                there = len(wanted) - len(run.lacking(record, wanted, retry_failed=False))
                raise ByzsgdError(
                    f"stopped with {there} of {len(wanted)} runs on record in {record.path}; "
                    "the same command goes on from there"
                ) from None
    record = Record(folder)
    words = command_line(scale, groups, record.devices())
    written = report.write(chosen, record, folder, command=words)
    if document:
        names = report.into(document, chosen, record)
        console.print(f"{document}: {', '.join(names) or 'nothing'} written anew", highlight=False)
    return _end(chosen, record, written, console)


def command_line(scale: Scale, groups: Sequence[str], devices: Collection[str] = ()) -> str:
    """The words that make the same report.

    Args:
        scale: What the runs share.
        groups: Which of them.
        devices: Where the workers of daemons computed.
    """
    words = ["byzsgd", "evaluate"]
    for group in groups:
        words += ["--only", group]
    if scale.task:
        words += ["--task", scale.task]
    if scale.steps:
        words += ["--steps", str(scale.steps)]
    if scale.seeds > 1:
        words += ["--seeds", str(scale.seeds)]
    if scale.in_memory:
        words.append("--in-memory")
    for device in sorted(devices):
        words += ["--device", device] if device != CPU else []
    return shlex.join(words)


def _check(chosen: Sequence[Experiment]) -> None:
    """Whatever is wrong is found now, and not in the middle of the night.

    Raises:
        ConfigError: If a task, an attack or a cluster of a run does not exist.
    """
    for task in dict.fromkeys(each.run.plan.task for each in chosen):
        if task not in TASKS:
            load_task(task, {}, directory=Path())
    for each in chosen:
        each.run.drill.check()
        each.run.drill.liars(memory.cluster_of(each.run))


def _check_device(record: Record, wanted: Mapping[str, Experiment], device: str) -> None:
    """One record, one device: another one rounds, and takes its time, otherwise.

    Raises:
        ConfigError: If runs in daemons would be mixed.
    """
    others = record.devices() - {device}
    if others and not all(each.run.in_memory for each in wanted.values()):
        found = ", ".join(sorted(others))
        raise ConfigError(
            f"--device {device}: the runs in {record.path} are of {found}; give another --out"
        )


def _check_data(missing: Iterable[Experiment]) -> None:
    """Whatever data are not there are missed now, too.

    Raises:
        ConfigError: If a data set is not there.
    """
    for task in dict.fromkeys(each.run.plan.task for each in missing):
        loaded = load_task(task, {}, directory=Path())
        try:
            loaded.accuracy(loaded.initial(1))
        except ConfigError as error:
            rest = "or give --task, or leave its groups out with --only"
            raise ConfigError(f"{error}; {rest}") from None


def _list(chosen: Sequence[Experiment], record: Record, console: Console) -> None:
    """Say what each group would run, and how long it would take; what several share counts once."""
    estimate = run.Estimate(record, run.cores())
    total, seconds, seen = 0, 0.0, set[str]()
    for group in dict.fromkeys(each.group for each in chosen):
        of = {
            key: each
            for key, each in runs([e for e in chosen if e.group == group]).items()
            if key not in seen
        }
        seen |= of.keys()
        missing = run.lacking(record, of, retry_failed=False)
        in_memory = Counter(each.run.in_memory for each in missing.values())
        words = f"{group:<10} {len(missing):4} of {len(of)} runs to do, {in_memory[True]} in memory"
        console.print(f"{words}; {run.span(estimate.left(missing))}", highlight=False)
        total += len(missing)
        seconds += estimate.left(missing)
    console.print(f"{'all':<10} {total:4} runs to do; {run.span(seconds)}", highlight=False)


def _begin(
    record: Record,
    wanted: Mapping[str, Experiment],
    missing: Mapping[str, Experiment],
    console: Console,
) -> None:
    there = len(wanted) - len(missing)
    left = run.Estimate(record, run.cores()).left(missing)
    words = f"{len(missing)} runs to do, about {run.span(left)}" if missing else "nothing to run"
    console.print(f"{there} of {len(wanted)} runs are on record; {words}", highlight=False)


def _end(
    chosen: Sequence[Experiment], record: Record, written: Sequence[Path], console: Console
) -> int:
    """Say what was found and written; 1 if a run failed."""
    judged = list(verdicts(Found(chosen, record)))
    beyond = [each for each in judged if each.verdict is Verdict.BEYOND]
    if any(each.verdict is not Verdict.UNKNOWN for each in judged):
        within = sum(each.verdict is Verdict.WITHIN for each in judged)
        words = f"{within} of {len(judged)} attacks stay within their margins"
        console.print(words, highlight=False)
    for each in beyond:
        experiment = each.cell.experiment
        words = f"BEYOND {each.margin:g}: {experiment.system}, {under_words(experiment.under())}: "
        words += f"{each.gap:.1f} points" if each.cell.done() else each.cell.text()
        console.print(words, highlight=False, markup=False)
    failed = [
        each
        for key, each in runs(chosen).items()
        if key in record.outcomes and record.outcomes[key].state is State.FAILED
    ]
    if failed:
        console.print(f"{len(failed)} runs failed; --retry-failed tries again", highlight=False)
    names = ", ".join(str(path) for path in written if path.suffix != ".svg")
    console.print(f"written: {names}", highlight=False, soft_wrap=True)
    return 1 if failed else 0
