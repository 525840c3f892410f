"""One line an event: for people on a terminal, JSON everywhere else.

ERROR: act now. WARNING: worse, but it goes on. INFO: beginnings, ends and recoveries, not every
step. A condition is logged when it changes, refusals once a second, peer and reason at most.
"""

import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

KEYS = ("node", "step", "peer", "reason")
"""What a record may carry besides its message; keys of the JSON line."""


class _Node(logging.LoggerAdapter[logging.Logger]):
    """A logger with the node's identity on every record, besides what the call adds."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


def logger(identity: str) -> logging.LoggerAdapter[logging.Logger]:
    """The logger of a node."""
    return _Node(logging.getLogger("byzsgd"), {"node": identity})


def configure(level: str) -> None:
    """Log to standard error, from a level on.

    Args:
        level: ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_ForPeople() if sys.stderr.isatty() else _Json())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _ForPeople(logging.Formatter):
    """Time, node and message; the level where it is worth a look."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        node = getattr(record, "node", record.name)
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{time} {node:<4} {level}{record.getMessage()}{trace}"


class _Json(logging.Formatter):
    """One JSON object a line, on one line whatever the message holds."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        line |= {key: getattr(record, key) for key in KEYS if hasattr(record, key)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Limiter:
    """Lets one event of a key through in a while, and counts those that it holds back."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        """Begin with every key free.

        Args:
            clock: Seconds that never go back.
            seconds: Least time between two events of a key that are let through.
        """
        self._clock = clock
        self._seconds = seconds
        self._let: dict[str, tuple[float, int]] = {}

    def let(self, key: str) -> int | None:
        """How many events of the key were held back since the last; None to hold this one too.

        Args:
            key: From a closed set: every key is remembered.
        """
        now = self._clock()
        last, held = self._let.get(key, (float("-inf"), 0))
        if now - last < self._seconds:
            self._let[key] = (last, held + 1)
            return None
        self._let[key] = (now, 0)
        return held
