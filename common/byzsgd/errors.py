"""The suite's own exceptions, one tree.

::

    ByzsgdError                 base of all: one clear line for a person, no traceback
    ├── ConfigError             a file, a flag or a word is wrong: exit status 2
    │   ├── ClusterError        the cluster file, every problem in one report
    │   └── TaskError           the task cannot be found, raises, or breaks its contract
    ├── CheckpointError         a checkpoint is damaged, foreign, or cannot be written
    └── WireError               bytes that are no message; carries a Reason, never leaves transport

A peer's fault is data (a refusal), never an exception out of the protocol; a bug of ours is an
assertion. These are for the operator's and the machine's faults.
"""

from collections.abc import Sequence


class ByzsgdError(Exception):
    """Something the operator can mend; its text is shown as it stands."""

    exit_status = 1


class ConfigError(ByzsgdError):
    """Wrong files or words: names the field, what was found, and what would be right."""

    exit_status = 2


class ClusterError(ConfigError):
    """A cluster file that cannot be used; ``problems`` holds every reason, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class TaskError(ConfigError):
    """A task that cannot be found, raises, or breaks the contract of ``byzsgd.tasks``."""


class CheckpointError(ByzsgdError):
    """A checkpoint that is damaged, belongs to another cluster, or cannot be written.

    ``failure`` is the closed label that one that cannot be written is counted under.
    """

    def __init__(self, text: str, failure: str = "other") -> None:
        self.failure = failure
        super().__init__(text)


class WireError(ByzsgdError):
    """Frames that are not a message this node may read.

    ``reason`` is the closed label that the refusal is counted under.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)
