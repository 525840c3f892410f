"""Shows a local training to a person: a live table on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from byzsgd_daemons.local import Point, Training, View
from byzsgd_daemons.watch import remarks, sentence, table, times_left_out, waits_long

BAR_WIDTH = 40
"""Characters of a bar of progress."""

LEFT_OUT_SHOWN = 0.02
"""Workers that were left out of fewer updates than this are not worth a word."""


class Screen(View, Protocol):
    """A view that is open for a while."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""


def screen(title: str, console: Console) -> Screen:
    """The view that fits a console."""
    return LiveScreen(title, console) if console.is_terminal else PlainScreen(title, console)


class PlainScreen:
    """A line for every evaluation, and one whenever the nodes wait for somebody else."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        self._console.print(self._title, highlight=False, soft_wrap=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to leave."""

    def refresh(self, training: Training) -> None:
        """Tell what has gone wrong and which servers wait long, once each."""
        for what in (*training.troubles(), *long_waits(training)):
            key = what.partition("(")[0]  # Without how long ago a peer was seen.
            if key not in self._told:
                self._told.add(key)
                self._console.print(what, highlight=False, markup=False, soft_wrap=True)

    def evaluated(self, training: Training) -> None:
        """Tell how far the training is."""
        self._console.print(progress(training), highlight=False, markup=False, soft_wrap=True)


class LiveScreen:
    """A table of all nodes that is drawn anew while the training goes on."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._live = Live(Text(title), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def refresh(self, training: Training) -> None:
        """Draw the table with what the nodes say now."""
        parts: list[RenderableType] = [
            Text(self._title, style="bold"),
            Text(progress(training)),
            *bar(training),
            table(training.cluster, training.found, lying=training.lying),
        ]
        words = (*training.troubles(), *remarks(training.cluster, training.found))
        parts += [Text(how, style="yellow") for how in words]
        self._live.update(Group(*parts), refresh=True)

    def evaluated(self, training: Training) -> None:
        """Draw the table with the new point."""
        self.refresh(training)


def bar(training: Training) -> list[RenderableType]:
    """How much of a training is done, as a bar; nothing of one without an end."""
    if not training.cluster.steps:
        return []
    grid = Table.grid(padding=(0, 1))
    done = training.reached() / training.cluster.steps
    drawn = ProgressBar(total=1, completed=done, width=BAR_WIDTH)
    grid.add_row(drawn, f"{done:.0%}  {left(training)}")
    return [grid]


def left(training: Training) -> str:
    """How long a training still takes, such as "1:05 left"; nothing where nobody knows."""
    seconds = training.seconds_left()
    if seconds is None:
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def progress(training: Training) -> str:
    """Where a training stands, in one line."""
    if not training.points:
        nodes = sorted(set(training.cluster.servers + training.cluster.workers) - training.lying)
        return f"{len(training.found)} of {len(nodes) + len(training.lying)} nodes answer"
    words = [point_line(training.points[-1], training.cluster.steps)]
    words.append(f"{training.steps_per_second():.1f} steps/s")
    if remaining := left(training):
        words.append(remaining)
    left_out = times_left_out(training.cluster, training.found)
    shown = [f"{w} {share:.0%}" for w, share in left_out.items() if share >= LEFT_OUT_SHOWN]
    if shown:
        words.append("left out " + ", ".join(shown))
    return "  ".join(words)


def long_waits(training: Training) -> list[str]:
    """What correct servers say that have waited long, each in its own words."""
    return [
        f"{server} {sentence(training.found[server])}"
        for server in training.cluster.servers
        if server not in training.lying and waits_long(training.found.get(server, {}))
    ]


def point_line(point: Point, steps: int) -> str:
    """An evaluation in a few words."""
    step = f"step {point.step}/{steps}" if steps else f"step {point.step}"
    loss = f"  loss {point.loss:.3g}" if point.loss is not None else ""
    return f"{step:<13} accuracy {point.accuracy:.3f}{loss}  drift {point.drift:.2g}"
