"""The command: what it runs and does not run again, what it says, and how it ends."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd_daemons import cli
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.evaluate import command, daemons, memory, run
from byzsgd_daemons.evaluate.plan import GROUPS, Run, Scale, experiments, runs
from byzsgd_daemons.evaluate.results import Outcome, Record, State
from byzsgd_daemons.init import Plan, create
from byzsgd_daemons.local import Drill, Point, Training, free_addresses

SMALL = Scale(task="quadratic", steps=4)
"""Of the group ``messages`` these are four runs in daemons."""

POINT = Point(
    step=4, seconds=1.0, accuracy=0.5, accuracy_worst=0.5, drift=0, drift_ratio=0, loss=None
)
DONE = Outcome(state=State.DONE, points=(POINT,), wall_seconds=2.0)
FAILED = Outcome(state=State.FAILED, sentence="no free port", wall_seconds=1.0)


class Daemons:
    """Stands for real trainings: remembers what ran, and answers as the test has laid out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[Run] = []
        self.answers: dict[int, Outcome | BaseException] = {}
        monkeypatch.setattr(run.daemons, "train", self.train)
        monkeypatch.setattr(run, "Nursery", nullcontext)

    def train(self, each: Run, shown: Callable[[int], None], **_: object) -> Outcome:
        answer = self.answers.get(len(self.ran), DONE)
        if isinstance(answer, BaseException):
            raise answer
        self.ran.append(each)
        shown(each.steps())
        return answer


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Daemons:
    return Daemons(monkeypatch)


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs the command in a folder, and returns its status and what it said."""

    def evaluate(*groups: str, scale: Scale = SMALL, **options) -> tuple[int, str]:
        said = io.StringIO()
        console = Console(file=said, width=200)
        status = command.evaluate(scale, groups, tmp_path / "out", console, **options)
        return status, said.getvalue()

    return evaluate


def test_it_runs_everything_once_and_reports(trainings, evaluate, tmp_path: Path) -> None:
    """Progress counts every run and says how long the rest takes; the report is there."""
    status, said = evaluate("messages")

    wanted = runs(experiments(SMALL, ["messages"]))
    assert status == 0
    assert [each.key for each in trainings.ran] == list(wanted)
    assert "0 of 4 runs are on record; 4 runs to do, about" in said
    assert "1/4 messages: vanilla, nobody lies: 50.0 %  2 s; 6 s left" in said
    assert "4/4 messages: synchronous, T = 5, nobody lies: 50.0 %  2 s\n" in said
    assert (tmp_path / "out" / "report.html").exists()


def test_what_is_on_record_does_not_run_again(trainings, evaluate) -> None:
    """A second time nothing runs; one seed more runs that seed alone."""
    evaluate("messages")
    evaluate("messages")
    assert len(trainings.ran) == 4

    evaluate("messages", scale=replace(SMALL, seeds=2))
    assert [each.plan.seed for each in trainings.ran] == [1] * 4 + [2] * 4


def test_other_steps_are_other_runs(trainings, evaluate) -> None:
    """What was measured at other settings is not taken for it."""
    evaluate("messages")
    evaluate("messages", scale=replace(SMALL, steps=5))
    assert len(trainings.ran) == 8


def test_an_interrupt_loses_the_run_under_way_and_no_other(trainings, evaluate) -> None:
    """It says what is there, and the same command goes on."""
    trainings.answers[2] = KeyboardInterrupt()
    with pytest.raises(ByzsgdError, match="stopped with 2 of 4 runs on record") as stopped:
        evaluate("messages")
    assert "the same command goes on" in str(stopped.value)
    del trainings.answers[2]

    status, said = evaluate("messages")

    assert status == 0
    assert "2 of 4 runs are on record" in said
    assert len(trainings.ran) == len({each.key for each in trainings.ran}) == 4


def test_failed_runs_are_told_and_tried_again_when_asked(trainings, evaluate) -> None:
    """The rest goes on; the status says that something is missing."""
    trainings.answers[1] = FAILED
    status, said = evaluate("messages")
    assert status == 1
    assert "failed: no free port" in said
    assert "1 runs failed; --retry-failed tries again" in said

    assert evaluate("messages")[0] == 1
    assert len(trainings.ran) == 4

    del trainings.answers[1]
    assert evaluate("messages", retry_failed=True)[0] == 0
    assert len(trainings.ran) == 5


def test_a_stalled_run_is_a_result(trainings, evaluate) -> None:
    """Vanilla under attack stands still: no failure, and tried again only when asked."""
    trainings.answers[0] = Outcome(state=State.STALLED, sentence="stands still at step 0")
    assert evaluate("messages")[0] == 0
    assert len(trainings.ran) == 4

    evaluate("messages", retry_failed=True)
    assert len(trainings.ran) == 5


def test_one_record_is_of_one_device(trainings, evaluate, tmp_path: Path) -> None:
    """Another one is refused before anything runs; a failed run belongs to none."""
    trainings.answers = dict.fromkeys(range(4), FAILED)
    evaluate("messages")
    trainings.answers = {}
    evaluate("messages", retry_failed=True, device="cuda")
    assert len(trainings.ran) == 8

    with pytest.raises(ConfigError, match=r"--device cpu: the runs in .* are of cuda; give") as no:
        evaluate("messages", scale=replace(SMALL, seeds=2))

    assert "another --out" in str(no.value)
    assert len(trainings.ran) == 8
    assert "--steps 4 --device cuda`" in (tmp_path / "out" / "report.md").read_text()


def test_a_list_runs_nothing(trainings, evaluate, tmp_path: Path) -> None:
    """It counts what each group lacks, and how long that takes."""
    status, said = evaluate(scale=Scale(), listed=True)

    rows = dict(re.findall(r"^(\w+) +(\d+) ", said, re.MULTILINE))
    assert status == 0
    assert trainings.ran == []
    assert not (tmp_path / "out").exists()
    assert rows.keys() == {*GROUPS, "all"}
    assert int(rows["all"]) == sum(int(rows[group]) for group in GROUPS)
    assert int(rows["all"]) == len(runs(experiments(Scale())))


def test_a_report_alone_runs_nothing(trainings, evaluate) -> None:
    """It is made of what is there; of nothing there is none."""
    with pytest.raises(ConfigError, match="holds nothing of what was asked for; run it first"):
        evaluate("messages", report_only=True)
    evaluate("messages")

    status, said = evaluate("messages", report_only=True)

    assert status == 0
    assert "written: " in said
    assert len(trainings.ran) == 4


def test_the_report_names_the_command_that_makes_it(trainings, evaluate, tmp_path: Path) -> None:
    """With all that decides what runs."""
    evaluate("messages")
    expected = "`byzsgd evaluate --only messages --task quadratic --steps 4`"
    assert expected in (tmp_path / "out" / "report.md").read_text()


def test_the_tables_go_into_a_document(trainings, evaluate, tmp_path: Path) -> None:
    """And it says which."""
    document = tmp_path / "page.md"
    document.write_text("<!-- evaluation: messages -->\n<!-- end of evaluation -->\n")

    _, said = evaluate("messages", document=document)

    assert f"{document}: messages written anew" in said.replace("\n", "")
    assert "| vanilla |" in document.read_text()


def test_missing_data_are_missed_before_anything_runs(trainings, evaluate, tmp_path: Path) -> None:
    """In the first seconds, and not in the middle of the night."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from byzsgd.tasks.quadratic import Quadratic\n"
        "class Mine(Quadratic):\n"
        "    def accuracy(self, vector):\n"
        "        raise FileNotFoundError('no images')\n"
        "def task():\n"
        "    return Mine(100, 1.0)\n"
    )
    with pytest.raises(ConfigError, match=r"no images.*; or give --task, or leave its groups out"):
        evaluate("messages", scale=replace(SMALL, task=f"{file}:task"))
    assert trainings.ran == []
    assert not (tmp_path / "out").exists()


# Estimates


def test_an_estimate_is_the_mean_of_runs_of_the_same_kind(tmp_path: Path) -> None:
    """Where, which task and how many steps; a guess before there is one."""
    record = Record(tmp_path)
    one, other = Run(plan=Plan(task="digits")), Run(plan=Plan(task="digits", seed=2))
    estimate = run.Estimate(record, cores=2)
    assert estimate.of(one) > 0

    estimate.add(one, replace(DONE, wall_seconds=10.0))
    estimate.add(one, replace(DONE, wall_seconds=20.0))
    estimate.add(one, replace(FAILED, wall_seconds=500.0))

    assert estimate.of(other) == 15.0
    assert estimate.of(replace(other, in_memory=True)) != 15.0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (1500, "25 min"), (11_100, "3 h 05 min")]
)
def test_spans_of_time(seconds: float, words: str) -> None:
    """As a person says them."""
    assert run.span(seconds) == words


# In memory


def test_runs_in_memory_have_processes_of_their_own(evaluate, tmp_path: Path) -> None:
    """The whole way: description, training, outcome, record, report."""
    status, _ = evaluate("messages", scale=replace(SMALL, in_memory=True))

    record = Record(tmp_path / "out")
    assert status == 0
    assert len(record.outcomes) == 4
    for key, outcome in record.outcomes.items():
        here = memory.train(record.runs[key])
        assert outcome.points == here.points, "the same run, wherever it is made"
        assert outcome.points[-1].step == 4
        assert outcome.messages == here.messages


def processes(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Another program stands for the first process in memory; there is one at a time."""
    start, programs = run._start, [program]

    def start_other() -> run.Process:
        return run.Process([sys.executable, "-c", programs.pop()]) if programs else start()

    monkeypatch.setattr(run, "_start", start_other)
    monkeypatch.setattr(run, "cores", lambda: 1)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("input(); sys.exit('out of memory')", "its process ended with status 1: out of memory"),
        ("input(); print('hello', flush=True); input()", "its process gave no answer: "),
    ],
)
def test_a_process_that_fails_takes_one_run_with_it(
    program: str, words: str, evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others run in another one, and what it said last is on record."""
    processes(monkeypatch, f"import sys; {program}")

    status, said = evaluate("messages", scale=replace(SMALL, in_memory=True))

    states = [outcome.state for outcome in Record(tmp_path / "out").outcomes.values()]
    assert status == 1
    assert sorted(states) == [State.DONE] * 3 + [State.FAILED]
    assert f"failed: {words}" in said


def test_a_process_may_say_as_much_as_it_likes(
    evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More errors than a pipe holds stop no run; the last of them are on record."""
    processes(monkeypatch, "import sys; input(); sys.stderr.write('x' * (1 << 20)); sys.exit(3)")

    evaluate("messages", scale=replace(SMALL, in_memory=True))

    [failed] = [
        outcome.sentence
        for outcome in Record(tmp_path / "out").outcomes.values()
        if outcome.state is State.FAILED
    ]
    assert failed == f"its process ended with status 3: {'x' * run.ERROR_BYTES}"


def test_what_a_task_prints_is_no_answer(
    evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what it reads take a question away."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import os, sys\n"
        "from byzsgd.tasks.quadratic import Quadratic\n"
        "def task():\n"
        "    print('hello', flush=True)\n"
        "    os.write(1, b'and again')\n"
        "    sys.stdin.read()\n"
        "    return Quadratic(100, 1.0)\n"
    )
    small = replace(SMALL, task=f"{file}:task", in_memory=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # The command itself makes the task, too.

    status, _ = evaluate("messages", scale=small)

    assert status == 0
    assert {each.state for each in Record(tmp_path / "out").outcomes.values()} == {State.DONE}


def test_a_broken_promise_without_words_has_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an outcome without one can be told."""

    def broken(_: Run) -> Outcome:
        raise AssertionError

    monkeypatch.setattr(memory, "train", broken)

    assert memory._outcome(Run(plan=Plan()).description()).sentence == "AssertionError()"
    assert run.said(replace(FAILED, sentence="")) == "failed: "


def test_a_run_in_memory_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    """Amid a training, once its input has closed: as it is when who asked was killed."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from byzsgd.tasks.quadratic import Quadratic\n"
        "def task():\n"
        "    print('it begins', flush=True)\n"
        "    return Quadratic(100, 1.0)\n"
    )
    plan = Plan(task=f"{file}:task", steps=10**9)
    endless = Run(plan=plan, every=10**9, in_memory=True)
    words = [sys.executable, "-m", "byzsgd_daemons.evaluate.memory"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as process:
        try:
            process.stdin.write(json.dumps(endless.description()).encode() + b"\n")
            process.stdin.flush()
            begun = process.stderr.readline()
            said, _ = process.communicate(timeout=120)
        finally:
            process.kill()

    assert begun == b"it begins\n"
    assert (process.returncode, said) == (0, b"")


def test_a_record_that_cannot_be_written_ends_the_evaluation(
    evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, not one for each process."""

    def full(record: Record, *_: object, **__: object) -> None:
        raise ByzsgdError("the disk is full")

    monkeypatch.setattr(Record, "add", full)
    with pytest.raises(ByzsgdError, match=r"^the disk is full$"):
        evaluate("messages", scale=replace(SMALL, in_memory=True))


# In daemons


@pytest.mark.parametrize("stalled", ["", "stands still at step 4: s0 waits"])
def test_a_training_of_which_a_daemon_ended_has_failed(
    stalled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its liars it goes on to its last step, and says nothing of the attack."""

    async def train(file: Path, drill: Drill, *_: object, **__: object) -> Training:
        training = Training(cluster=read_cluster(file), lying=frozenset({"w6"}), points=[POINT])
        training.ended = {"adversary": "adversary has ended (SIGKILL): "}
        training.stalled = stalled
        return training

    monkeypatch.setattr(daemons.local, "train", train)
    under = Run(plan=Plan(task="quadratic", steps=4), drill=Drill(attack="sign-flip"))

    outcome = daemons.train(under, lambda _: None)

    assert outcome.state is State.FAILED
    assert outcome.sentence == "adversary has ended (SIGKILL): "
    assert outcome.points == ()


@pytest.mark.parametrize(
    ("lying", "refused", "diverged"),
    [
        (frozenset(), {}, False),
        (frozenset(), {"w0": {"flood": 9}, "w1": {"late": 9}}, False),
        (frozenset(), {"w0": {"non-finite": 1}}, True),
        (frozenset({"w0"}), {"w0": {"non-finite": 1}}, False),
    ],
)
def test_a_training_without_room_for_a_worker_diverges_with_one(
    lying: frozenset[str], refused: dict[str, dict[str, int]], diverged: bool, tmp_path: Path
) -> None:
    """A correct one whose gradient is not finite; with a liar's, or cut connections, it goes on."""
    plan = Plan(task="quadratic", servers=1, f_servers=0, f_workers=0)
    file = create(tmp_path, plan, free_addresses(plan))
    training = Training(cluster=read_cluster(file), lying=lying, points=[POINT])
    training.found["s0"] = {"peers": {peer: {"refused": why} for peer, why in refused.items()}}

    assert training.diverged() is diverged


def test_with_room_for_two_workers_a_training_diverges_with_three(tmp_path: Path) -> None:
    """As many as may be missing do not stop it."""
    file = create(tmp_path, Plan(task="quadratic"), free_addresses(Plan()))
    training = Training(cluster=read_cluster(file), lying=frozenset(), points=[POINT])
    refused = {"refused": {"non-finite": 1}}

    training.found["s0"] = {"peers": dict.fromkeys(("w0", "w1"), refused)}
    assert not training.diverged()

    training.found["s1"] = {"peers": {"w2": refused}}
    assert training.diverged()


# Words


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--only", "matrx"), "--only matrx: did you mean matrix?"),
        (("--task", "digitz"), "did you mean digits?"),
        (("--steps", "0"), "--steps: found '0'; must be a whole number of at least 1"),
        (("--seeds", "none"), "--seeds: found 'none'; must be a whole number of at least 1"),
        (("--report-only",), "run it first"),
        (("--onyl", "matrix"), "unrecognized arguments"),
    ],
)
def test_wrong_words(words, hint, tmp_path: Path, capsys, monkeypatch) -> None:
    """One line, status 2, and nothing has run."""
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(["evaluate", *words])
    except SystemExit as end:
        status = end.code
    errors = capsys.readouterr().err

    assert status == 2
    assert hint in errors
    assert errors.startswith("byzsgd: ")
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "byzsgd-evaluation").exists()
