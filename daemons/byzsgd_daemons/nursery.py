"""Daemons that start fast: forked from a process that has imported what every daemon needs.

Most of what a daemon does at its start is importing torch, numpy and ZeroMQ. A *nursery* is a
process that has done so once and does nothing else: no thread, no socket of ZeroMQ, no device, no
gradient. It forks a child for each command line that it is asked for, and the child runs that
command as any other process does, with a session, an input, a log, sockets and signals of its own.

What a child shares with its siblings are pages of memory that none of them writes to, and the
environment and working folder that the nursery was started with. So a server has torch in its
memory, which it never uses: in ``/metrics`` its resident memory is larger than that of a server on
its own. Attack code is imported by the liars' own process alone.

The nursery and its children end with whoever started them, whatever ends that one: a child's input
is a pipe whose other end only the starter holds, and the nursery kills what does not heed that.
"""

import asyncio
import atexit
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from byzsgd.errors import ByzsgdError
from byzsgd.tasks import TASKS
from byzsgd_daemons.config import VARIABLE_PREFIX

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Many daemons share this machine's cores: more threads each would only get in each other's way.
And a process that forks must have no other."""

GRACE_SECONDS = 5.0
"""Time that children have to end after their starter has gone, before the nursery kills them."""

IMPORTED = (
    "byzsgd_daemons.cli",
    "byzsgd_daemons.logs",
    "byzsgd_daemons.server",
    "byzsgd_daemons.worker",
    "uvloop",
)
"""What daemons import at their start, and with it what that imports. Never attack code, and never a
user's task, whose import may start threads or open a device."""

IMPORTED_IF_THERE = (
    *sorted({task.factory.partition(":")[0] for task in TASKS.values()}),  # And torch with them.
    "llvmlite.binding",  # Of the extra fast.
)
"""What only some daemons need."""

READ_BYTES = 1 << 16

FDS_AT_ONCE = 64
"""Open files that are taken in with as much; two travel with a request."""

NAME_ROOM = 4096
"""Bytes of a command line that ``ps`` can show of a child."""

START, END = 48 - 3, 49 - 3
"""Where ``/proc/self/stat`` says where the command line lies: proc(5) counts from 1, and the first
two fields are cut off."""


class Child:
    """A daemon that a nursery has forked: the part of ``asyncio``'s ``Process`` that is needed."""

    def __init__(self, stdin: FileIO) -> None:
        self.pid = 0
        """0 until it is started."""
        self.returncode: int | None = None
        """Exit status, or minus the signal that ended it; None while it runs."""
        self.stdin = stdin
        """The other end of its input, never written to: once it is closed the daemon stops."""
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[int] = loop.create_future()
        self._ended: asyncio.Future[int] = loop.create_future()

    async def wait_started(self) -> None:
        """Wait until it has a pid.

        Raises:
            ByzsgdError: If it could not be started.
        """
        await asyncio.shield(self._started)

    async def wait(self) -> int:
        """Wait until it has ended, and return how."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.pid and self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end: by a signal, or before it has a pid by the end of its input."""
        self.send_signal(signal.SIGTERM)
        if not self.pid:
            self.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def started(self, pid: int) -> None:
        """What the nursery calls when it has a pid."""
        self.pid = pid
        _settle(self._started, pid)

    def ended(self, status: int) -> None:
        """What the nursery calls when it has ended."""
        self.returncode = status
        self.stdin.close()
        _settle(self._ended, status)

    def failed(self, error: ByzsgdError) -> None:
        """What the nursery calls when it could not be started."""
        self.returncode = 1
        self.stdin.close()
        if not self._started.done():
            self._started.set_exception(error)
        _settle(self._ended, 1)


def _environment() -> dict[str, str]:
    """The starter's, but for what would stand for flags of every daemon."""
    ours = {name: v for name, v in os.environ.items() if not name.startswith(VARIABLE_PREFIX)}
    return ours | ONE_THREAD


def _settle(future: "asyncio.Future[int]", number: int) -> None:
    if not future.done():
        future.set_result(number)


class Nursery:
    """A nursery, as a context manager that ends it together with its children.

    It may serve several clusters, one event loop after the other, but one at a time.
    """

    def __init__(self) -> None:
        self._asked: deque[Child] = deque()
        """Those that have no pid yet, in the order of the requests."""
        self._children: dict[int, Child] = {}
        """Those that run, by pid."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """What looks for answers, while there may be some."""
        self._heard = b""

    def __enter__(self) -> Self:
        """Start it: it takes requests at once, and answers once it has imported everything."""
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._words = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "byzsgd_daemons.nursery", " " * NAME_ROOM]
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=self._words,
                stderr=self._words,
                # A Ctrl-C is the starter's to answer, by ending the children in good order.
                start_new_session=True,
                env=_environment(),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The nursery's own."""
        return self._process.pid

    def close(self) -> None:
        """End it, and with it every child that still runs."""
        self._listen(None)
        self._control.close()
        for child in (*self._asked, *self._children.values()):
            child.stdin.close()
        try:
            self._process.wait(2 * GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def start(self, words: Sequence[str], log: BinaryIO) -> Child:
        """A child that will run a command line of ``byzsgd``; it is started when it says so.

        Args:
            words: The command and its arguments, ``--until-stdin-closes`` among them.
            log: An open file, which takes the child's output and errors.

        Raises:
            ByzsgdError: If the nursery has ended.
        """
        line = json.dumps(list(words)).encode() + b"\n"
        reader, writer = os.pipe()
        child = Child(FileIO(writer, "wb"))
        try:
            sent = socket.send_fds(self._control, [line], [reader, log.fileno()])
            assert sent == len(line), "a request is short, and few are under way"
        except ConnectionError:
            child.stdin.close()
            raise self._failure() from None
        finally:
            os.close(reader)
        self._asked.append(child)
        self._listen(asyncio.get_running_loop())
        return child

    def _listen(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Look for answers on a loop, or on none."""
        if self._loop is not None and self._loop is not loop and not self._loop.is_closed():
            self._loop.remove_reader(self._control)
        if loop is not None and self._loop is not loop:
            loop.add_reader(self._control, self._hear)
        self._loop = loop

    def _hear(self) -> None:
        """Take what the nursery says."""
        try:
            data = self._control.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._learn(**json.loads(line))
        if not data:
            self._abandon()
        if not self._asked and not self._children:
            self._listen(None)

    def _learn(self, *, pid: int = 0, status: int | None = None, error: str = "") -> None:
        if error:
            self._asked.popleft().failed(ByzsgdError(f"no process can be started: {error}"))
        elif status is None:
            child = self._asked.popleft()
            self._children[pid] = child
            child.started(pid)
        else:
            self._children.pop(pid).ended(status)

    def _abandon(self) -> None:
        """The nursery has ended: nobody would learn how its children end, so they end now."""
        failure = self._failure()
        while self._asked:
            self._asked.popleft().failed(failure)
        while self._children:
            _, child = self._children.popitem()
            child.kill()
            child.ended(-signal.SIGKILL)

    def _failure(self) -> ByzsgdError:
        status = self._process.wait()
        how = f"exit {status}" if status >= 0 else signal.Signals(-status).name
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").splitlines()
        return ByzsgdError(f"what starts the daemons has ended ({how}): " + " ".join(lines[-5:]))


# In the nursery's own process


def main() -> int:
    """Serve whoever holds the other end of standard input; in a child, run its command."""
    _show("-m", "byzsgd_daemons.nursery")
    statuses: list[int] = []
    atexit.register(_skip_teardown, statuses)  # The first to be registered is the last to run.
    gc.disable()  # What is imported stays: looking for garbage in it is in vain.
    prepare()
    gc.freeze()  # Nor do children look there, each in a copy of its own.
    words = _Nurse(socket.socket(fileno=os.dup(0))).serve()
    if words is not None:
        gc.enable()
        from byzsgd_daemons import cli

        statuses.append(cli.main(words))
    else:
        statuses.append(0)
    return statuses[0]


def prepare() -> None:
    """Import what daemons need."""
    for name in IMPORTED:
        importlib.import_module(name)
    for name in IMPORTED_IF_THERE:
        with suppress(ImportError, OSError):
            importlib.import_module(name)


def _skip_teardown(statuses: list[int]) -> None:
    """Once threads have ended and files are written, leave the memory to the system.

    Python would free one by one what was imported, each child in a copy of its own.
    """
    if statuses:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(statuses[0])


class _Nurse:
    """Forks a child for every request, and tells which have ended, and how."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._unread = b""
        self._fds: deque[int] = deque()
        self._waker, self._wakened = socket.socketpair()
        for end in (self._waker, self._wakened):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Poll and not epoll, whose set a child would share.
        self._selector = selectors.PollSelector()
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._wakened, selectors.EVENT_READ)

    def serve(self) -> list[str] | None:
        """Work until the starter and all children have gone; in a child, return its words."""
        deadline = float("inf")
        while True:
            patience = deadline - time.monotonic()
            for key, _ in self._selector.select(patience if patience < float("inf") else None):
                if key.fileobj is self._wakened:
                    with suppress(BlockingIOError):
                        self._wakened.recv(READ_BYTES)
                elif not self._read():
                    self._selector.unregister(self._control)
                    deadline = time.monotonic() + GRACE_SECONDS
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                words: list[str] = json.loads(line)
                if self._fork(words, self._fds.popleft(), self._fds.popleft()):
                    return words
            self._reap()
            if deadline < float("inf"):
                if not self._children:
                    return None
                if time.monotonic() >= deadline:
                    for pid in self._children:
                        os.kill(pid, signal.SIGKILL)
                    deadline = time.monotonic() + GRACE_SECONDS

    def _read(self) -> bool:
        """Whether there is anybody who may ask for more."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, READ_BYTES, FDS_AT_ONCE)
        except ConnectionError:
            return False
        self._unread += data
        self._fds += fds
        return bool(data)

    def _fork(self, words: list[str], stdin: int, log: int) -> bool:
        """Whether this is the child."""
        readable, ready = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            self._say(error=error.strerror)
            pid = -1
        if pid == 0:
            _show("-m", "byzsgd_daemons.cli", *words)
            self._become_child(stdin, log, readable, ready)
            return True
        for fd in (stdin, log, ready):
            os.close(fd)
        if pid > 0:
            os.read(readable, 1)  # Until it is a process of its own, or has ended.
            self._children.add(pid)
            self._say(pid=pid)
        os.close(readable)
        return False

    def _become_child(self, stdin: int, log: int, *others: int) -> None:
        """Leave nothing of the nursery but what it has imported."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for own in (self._control, self._waker, self._wakened):
            own.close()
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # Python sees to its own chance, and whoever asks the system for it needs nothing.
        np.random.seed()
        for fd in (stdin, log, *self._fds, *others):
            os.close(fd)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.remove(pid)
            self._say(pid=pid, status=os.waitstatus_to_exitcode(status))

    def _say(self, **words: Any) -> None:
        with suppress(ConnectionError):  # The starter has gone: nobody needs to know.
            self._control.sendall(json.dumps(words).encode() + b"\n")


def _show(*words: str) -> None:
    """Have ``ps`` show a command line, in the room of the one that the nursery was started with.

    Without it a child could not be told from its siblings. Where there is no ``/proc``, it cannot.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    start, room = int(fields[START]), int(fields[END]) - int(fields[START])
    if start:
        text = "\0".join((sys.executable, *words)).encode()[: room - 1]
        ctypes.memmove(start, text.ljust(room, b"\0"), room)


if __name__ == "__main__":
    sys.exit(main())
