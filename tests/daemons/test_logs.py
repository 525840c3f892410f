"""One line an event: JSON for machines, short for people, and never a flood."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from byzsgd_daemons.logs import Limiter, configure, logger


class Terminal(io.StringIO):
    """Standard error that says it is, or is not, a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # What pytest put there is not to be closed.
    yield
    root.handlers, root.level = handlers, level


def configured(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, level: str) -> Terminal:
    stream = Terminal(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    configure(level)
    return stream


def test_a_line_of_json_carries_what_the_call_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, level, node and message always; step, peer and reason where they are given."""
    stream = configured(monkeypatch, terminal=False, level="INFO")
    log = logger("s1")
    log.info("starts at step %d", 7, extra={"step": 7})
    log.warning("refused", extra={"peer": "w1", "reason": "stale"})

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "INFO", "message": "starts at step 7", "node": "s1", "step": 7}
    del second["time"]
    assert second == {
        "level": "WARNING",
        "message": "refused",
        "node": "s1",
        "peer": "w1",
        "reason": "stale",
    }


def test_one_event_is_one_line_of_json_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Line ends, quotes, characters of any language, and a traceback."""
    stream = configured(monkeypatch, terminal=False, level="INFO")
    try:
        raise ValueError("deep")
    except ValueError:
        logger("s1").exception('a\nb"c\u2028é')
    logging.getLogger("zmq").warning("not ours")

    ours, theirs = map(json.loads, stream.getvalue().splitlines())
    assert ours["message"] == 'a\nb"c\u2028é'
    assert "ValueError: deep" in ours["exception"]
    assert "node" not in theirs
    assert stream.getvalue().isascii()


def test_people_read_time_node_and_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the level where it is worth a look."""
    stream = configured(monkeypatch, terminal=True, level="INFO")
    logger("s1").info("starts")
    logger("w12").warning("slow")
    logger("worker7").error("bad")
    logging.getLogger("zmq").info("not ours")

    lines = stream.getvalue().splitlines()
    assert [line[8:] for line in lines] == [
        " s1   starts",
        " w12  warning: slow",
        " worker7 error: bad",
        " zmq  not ours",
    ]
    assert all(line[2] == line[5] == ":" for line in lines)


def test_people_see_a_traceback_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that is logged is never without its place."""
    stream = configured(monkeypatch, terminal=True, level="INFO")
    try:
        raise ValueError("deep")
    except ValueError:
        logger("s1").exception("a bug")

    assert "error: a bug\nTraceback" in stream.getvalue()
    assert "ValueError: deep" in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "count"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)]
)
def test_a_level_is_where_the_log_begins(
    monkeypatch: pytest.MonkeyPatch, level: str, count: int
) -> None:
    """What is below it is not written."""
    stream = configured(monkeypatch, terminal=False, level=level)
    log = logger("s1")
    for say in (log.debug, log.info, log.warning, log.error):
        say("x")

    assert len(stream.getvalue().splitlines()) == count


def test_configuring_again_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is written twice."""
    configured(monkeypatch, terminal=False, level="INFO")
    stream = configured(monkeypatch, terminal=False, level="INFO")
    logger("s1").info("once")

    assert len(stream.getvalue().splitlines()) == 1


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_limiter_lets_one_through_and_counts_the_rest() -> None:
    """The next that comes after the time says how many were held back."""
    clock = Clock()
    limiter = Limiter(clock, 1.0)

    assert limiter.let("a") == 0
    assert [limiter.let("a") for _ in range(3)] == [None] * 3
    clock.now += 0.999
    assert limiter.let("a") is None
    clock.now += 0.001
    assert limiter.let("a") == 4
    assert limiter.let("a") is None
    clock.now += 60
    assert limiter.let("a") == 1


def test_keys_do_not_hold_one_another_back() -> None:
    """One peer's flood hides no other's first."""
    limiter = Limiter(Clock(), 1.0)

    assert limiter.let("a") == 0
    assert limiter.let("a") is None
    assert limiter.let("b") == 0
