"""Runs one node in this process: the only place where node, clock, network and threads meet."""

import asyncio
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from threading import Timer

from byzsgd import checkpoint
from byzsgd.checkpoint import Failure, Saves
from byzsgd.errors import ByzsgdError, CheckpointError, ConfigError, TaskError
from byzsgd.messages import Message, Reason
from byzsgd.protocol import (
    Aggregate,
    ComputeGradient,
    DeadlinePassed,
    Effect,
    Event,
    GradientComputed,
    ModelTried,
    NewLife,
    Node,
    PeerConnected,
    Publish,
    Received,
    Refuse,
    Result,
    SaveCheckpoint,
    Send,
    Stop,
    TryModel,
)
from byzsgd.protocol.variance import State, sentence
from byzsgd.protocol.work import Gradient, aggregate, compute_gradient, try_model
from byzsgd.transport import Transport
from byzsgd_daemons.logs import Limiter, logger
from byzsgd_daemons.notify import Notifier
from byzsgd_daemons.presence import Presence
from byzsgd_daemons.status import summary

INLINE_MAX = 1 << 16
"""Coordinates that are aggregated on the event loop: a trip through the thread costs more."""

QUICK_SECONDS = 0.0003
"""A gradient that takes less is computed on the event loop, for the same reason..."""

QUICK_OF = 11
"""...while most of so many before it did: other processes on the core make some take longer..."""

QUICK_SECONDS_MAX = 0.02
"""...but none took longer than this: the event loop is not to be held up now and then, either."""

SLOW_SECONDS = 3.0
"""Waiting longer than this is said in the log, unless waits usually last as long."""

SLOW_TIMES = 2.0
"""Times the usual wait, three quarters of all, that are said whatever is usual."""

WATCH_SECONDS = 0.5
"""How often the host looks at its own lag and at whom the node waits for."""

UNSAVED_SECONDS = 600.0
"""How often it is said that checkpoints still fail."""

NOTIFY_SECONDS = 2.0
"""How often systemd hears of the node, or in a quarter of what its watchdog allows, if less."""

STUCK_SECONDS = 600.0
"""Heavy work that takes longer than this..."""

STUCK_TIMES = 20.0
"""...and so many times as long as any before it is stuck: systemd's watchdog is to end it."""

Work = Callable[[], Result]
"""A piece of heavy work, done in a thread: returns the event that says so."""


class Host:
    """Receives for a node, hands it events, does its effects, arms its timer."""

    def __init__(
        self,
        node: Node,
        *,
        gradient: Gradient | None = None,
        checkpoints: Path | None = None,
        stop_seconds: float = 10.0,
    ) -> None:
        """Prepare to run a node.

        Args:
            node: The state machine.
            gradient: For a worker: the task's gradient of a vector on a step's batch, and the loss.
            checkpoints: Folder for the node's checkpoints; None for none.
            stop_seconds: Seconds that a stop may take before the process ends anyway.
        """
        self.node = node
        self.lag_seconds = 0.0
        """How late the event loop was, at the last look."""
        self.saves = Saves()
        """What became of the node's checkpoints."""
        self.presence = Presence(node)
        """Which peers are silent, and which cannot be sent to."""
        self._gradient = gradient
        self._checkpoints = checkpoints
        self._stop_seconds = stop_seconds
        self._transport: Transport | None = None
        self._log = logger(node.identity)
        self._refusals = Limiter(time.monotonic, 1.0)
        # Two threads: the work of an overtaken step must not keep the next one waiting.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="work")
        # One: a checkpoint at a time, and none that waits for heavy work.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._gradient_seconds = deque([inf] * QUICK_OF, QUICK_OF)
        self._timer: asyncio.Handle | None = None
        self._rings_at = inf
        self._stopped: asyncio.Future[None]
        self._told = ""
        self._told_done = False
        self._told_variance = State.UNKNOWN
        self._saving = False
        self._save_began = 0.0
        self._unsaved: SaveCheckpoint | None = None
        self._told_unsaved = Limiter(time.monotonic, UNSAVED_SECONDS)
        self._notifier = Notifier()
        self._notifies_at = 0.0
        self._at_work: dict[asyncio.Future[Result], float] = {}  # Since when; the oldest first.
        self._longest_work = 0.0
        self._told_stuck = False

    @property
    def transport(self) -> Transport:
        """What carries the node's messages, once it runs."""
        assert self._transport is not None
        return self._transport

    @property
    def keeps(self) -> bool:
        """Whether the node's checkpoints go to disk."""
        return self._checkpoints is not None

    @property
    def gradient(self) -> Gradient:
        """The task's gradient, of a worker."""
        assert self._gradient is not None, "only workers compute gradients"
        return self._gradient

    async def run(self, transport: Transport) -> None:
        """Run the node until a signal or the node itself ends it.

        Raises:
            ByzsgdError: If the node must not go on, or its task fails.
        """
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._stopped = loop.create_future()
        self._transport = transport
        self.saves.at = loop.time()
        await transport.open()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        tasks = [
            loop.create_task(transport.run(), name="transport"),
            loop.create_task(self._watch(), name="watch"),
        ]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            self._do(self.node.start(loop.time()))
            self._notify(loop.time())
            await self._stopped
            self._notifies_at = inf
            self._notifier.tell("STOPPING=1", "STATUS=saves its model and stops")
            await self._save_at_the_end()
        finally:
            for task in tasks:
                task.remove_done_callback(self._ended)
                task.cancel()
            await asyncio.wait(tasks)
            self._stopped.cancel()  # From here on nothing is met any more.
            transport.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._disk.shutdown(wait=False)

    # What the transport calls

    def received(self, peer: str, message: Message) -> None:
        """A message of an authenticated peer came."""
        self._meet(Received(peer, message))

    def connected(self, peer: str) -> None:
        """A connection to a peer was made."""
        self._meet(PeerConnected(peer))

    def disconnected(self, peer: str) -> None:
        """A connection to a peer was lost; the transport dials again by itself."""
        self._log.info("lost the connection to %s", peer, extra={"peer": peer})

    def refused(self, peer: str, reason: Reason, detail: str) -> None:
        """The transport took something for no message."""
        self._log_refusal(peer, reason, detail)

    # Events and effects

    def _meet(self, event: Event) -> None:
        self._guard(lambda: self._do(self.node.handle(event, self._loop.time())))

    def _guard(self, action: Callable[[], None]) -> None:
        """Do something unless the host has ended, and end it with whatever that raises."""
        if self._stopped.done():
            return
        try:
            action()
        except TaskError as error:
            # It has run before: a restart may help, which the exit status of wrong files forbids.
            self._end(ByzsgdError(str(error)))
        except ByzsgdError as error:
            self._end(error)
        except Exception as bug:  # noqa: BLE001 - the one place where a bug of ours is caught
            self._log.error("a bug: the last events were\n%s", "\n".join(self.node.trace.story()))
            self._end(bug)

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peers, message):
                    self.transport.send(peers, message)
                case Publish(message):
                    self.transport.publish(message)
                case Aggregate():
                    self._aggregate(effect)
                case ComputeGradient():
                    self._compute(
                        partial(compute_gradient, effect, self.gradient, time.perf_counter)
                    )
                case TryModel():
                    self._compute(partial(try_model, effect, self.gradient, time.perf_counter))
                case SaveCheckpoint():
                    self._save(effect)
                case NewLife():
                    self.transport.new_life()
                    self._log.info("goes back to an earlier step, where the others wait")
                case Refuse(peer, step, reason):
                    self._log_refusal(peer, reason, f"step {step}")
                case Stop(sentence):
                    self._end(ConfigError(sentence))
        self._arm()

    def _aggregate(self, effect: Aggregate) -> None:
        work = partial(aggregate, effect, time.perf_counter)
        if len(effect.vectors) * len(effect.vectors[0]) <= INLINE_MAX:
            self._soon(work)
        else:
            self._in_thread(work)

    def _compute(self, work: Callable[[], GradientComputed | ModelTried]) -> None:
        def watched() -> Result:
            result = work()
            self._gradient_seconds.append(result.seconds)
            return result

        took = self._gradient_seconds
        if max(took) < QUICK_SECONDS_MAX and median(took) < QUICK_SECONDS:
            self._soon(watched)
        else:
            self._in_thread(watched)

    def _soon(self, work: Work) -> None:
        """Do work on the event loop; not at once: an event must not be handled inside another."""
        self._loop.call_soon(self._guard, lambda: self._meet(work()))

    def _in_thread(self, work: Work) -> None:
        future = self._loop.run_in_executor(self._threads, work)
        self._at_work[future] = self._loop.time()
        future.add_done_callback(self._worked)

    def _worked(self, future: "asyncio.Future[Result]") -> None:
        took = self._loop.time() - self._at_work.pop(future)
        self._longest_work = max(self._longest_work, took)
        if not future.cancelled():
            self._guard(lambda: self._meet(future.result()))

    def _arm(self) -> None:
        """Set the timer to the node's deadline; one that is early looks again when it rings."""
        deadline = self.node.deadline
        if deadline == inf or (self._timer and self._rings_at <= deadline):
            return
        if self._timer:
            self._timer.cancel()
        self._rings_at = deadline  # A timer of uvloop's does not know it where it is past already.
        self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() >= self.node.deadline:
            self._meet(DeadlinePassed())
        else:
            self._arm()

    def _save(self, effect: SaveCheckpoint) -> None:
        if self._checkpoints is None:
            return
        if self._saving:
            self._unsaved = effect  # The disk is slow: of those that wait, the last will do.
            return
        self._saving = True
        self._write(effect).add_done_callback(self._saved)

    def _write(self, effect: SaveCheckpoint) -> "asyncio.Future[int]":
        """Write a checkpoint in a thread of its own; the future holds its step."""
        folder, digest = self._checkpoints, checkpoint.digest_of(self.node.cluster)
        assert folder is not None

        def write() -> int:
            checkpoint.save(folder, effect.step, effect.vector, digest=digest)
            return effect.step

        self._save_began = self._loop.time()
        return self._loop.run_in_executor(self._disk, write)

    async def _save_at_the_end(self) -> None:
        """Save what the node would lose.

        Raises:
            CheckpointError: If the disk refuses: the operator must know, the state is not there.
        """
        effect = self.node.checkpoint()
        if self._checkpoints is None or effect is None:
            return
        try:
            self._kept(await self._write(effect))
        except CheckpointError as error:
            kept = self.saves.step
            on_disk = "nothing is on disk" if kept is None else f"on disk is step {kept}"
            raise CheckpointError(
                f"step {effect.step} is not saved, {on_disk}: {error}", error.failure
            ) from None

    def _saved(self, future: "asyncio.Future[int]") -> None:
        self._saving = False
        if not future.cancelled():
            if error := future.exception():
                self.unsaved(error)
            else:
                self._kept(future.result())
        effect, self._unsaved = self._unsaved, None
        if effect and not self._stopped.done():
            self._save(effect)

    def _kept(self, step: int) -> None:
        """Count a checkpoint that is on disk, and say so if those before it failed."""
        now = self._loop.time()
        self.node.progress.worked("checkpoint", now - self._save_began)
        if self.saves.error:
            self._log.info("checkpoints are saved again, at step %d", step, extra={"step": step})
            self._told_unsaved = Limiter(time.monotonic, UNSAVED_SECONDS)
        self.saves.written += 1
        self.saves.step, self.saves.at, self.saves.error = step, now, None

    def unsaved(self, error: BaseException) -> None:
        """Count a checkpoint that the disk refuses, and say so: when it begins, then rarely."""
        failure = error.failure if isinstance(error, CheckpointError) else Failure.OTHER
        self.saves.failed[Failure(failure)] += 1
        self.saves.error = str(error)
        held = self._told_unsaved.let(failure)
        if held is not None:
            more = f" (and {held} times before)" if held else ""
            self._log.error("checkpoint not saved, training goes on: %s%s", error, more)

    # Watching

    async def _watch(self) -> None:
        while True:
            before = self._loop.time()
            await asyncio.sleep(WATCH_SECONDS)
            now = self._loop.time()
            self.lag_seconds = max(now - before - WATCH_SECONDS, 0.0)
            self._notify(now)
            self._tell_done()
            self._tell_variance()
            self._tell_waiting(now)
            if self.lag_seconds < WATCH_SECONDS:
                # Who was held up itself looks later: what others said meanwhile is not read yet.
                self._tell_presence(now)

    def _notify(self, now: float) -> None:
        """Tell systemd how the node is; that it lives only while its own work gets done.

        A node that waits for others lives: a restart would not bring them.
        """
        if now < self._notifies_at:
            return
        self._notifies_at = now + min(NOTIFY_SECONDS, self._notifier.watchdog_seconds / 4)
        # Ready is said again and again: nothing else tells a message that was lost.
        lines = ["READY=1", f"STATUS={summary(self.node, now)}"]
        self._notifier.tell(*lines, *([] if self._is_stuck(now) else ["WATCHDOG=1"]))

    def _is_stuck(self, now: float) -> bool:
        """Whether heavy work takes so long that it will not end; said when that changes."""
        seconds = now - next(iter(self._at_work.values()), now)
        stuck = seconds > max(STUCK_SECONDS, STUCK_TIMES * self._longest_work)
        if stuck and not self._told_stuck:
            words = "works for %.0f s on what took %.1f s at most: tells systemd's watchdog no more"
            self._log.error(words, seconds, self._longest_work, extra={"step": self.node.step})
        self._told_stuck = stuck
        return stuck

    def _tell_done(self) -> None:
        """Say that the last step is reached, when that changes."""
        if self.node.done and not self._told_done:
            step = self.node.step
            self._log.info("training is done at step %d", step, extra={"step": step})
        self._told_done = self.node.done

    def _tell_variance(self) -> None:
        """Say whether the variance condition holds, when that changes."""
        condition, told = self.node.progress.variance, self._told_variance
        if condition.state is told:
            return
        self._told_variance = condition.state
        if told is State.UNKNOWN and condition.state is State.HOLDS:
            return  # As it should be.
        level = logging.WARNING if condition.state is State.VIOLATED else logging.INFO
        extra = {"step": condition.since}
        self._log.log(level, "%s", sentence(condition, self.node.cluster), extra=extra)

    def _tell_waiting(self, now: float) -> None:
        """Say whom the node waits for, when that lasts and when it changes."""
        waiting = self.node.waiting()
        usual = self.node.progress.quorum_waits.quantile(0.75)
        limit = max(SLOW_SECONDS, SLOW_TIMES * usual)
        slow = waiting is not None and now - waiting.since > limit
        key = f"{waiting.step} {waiting.have} {waiting.lacking}" if waiting and slow else ""
        if key == self._told:
            return
        if key:
            self._log.warning("%s", self.node.sentence(now), extra={"step": self.node.step})
        else:
            self._log.info("goes on at step %d", self.node.step, extra={"step": self.node.step})
        self._told = key

    def _tell_presence(self, now: float) -> None:
        """Say which peers have fallen silent or read nothing, and which are back."""
        for notice in self.presence.look(self.transport.statistics(), now):
            level = logging.WARNING if notice.worse else logging.INFO
            self._log.log(level, "%s", notice.sentence, extra={"peer": notice.peer})

    def _log_refusal(self, peer: str, reason: Reason, detail: str) -> None:
        if reason in (Reason.LATE, Reason.STALE, Reason.DUPLICATE):
            return  # What a slow or lossy network does; the metrics count it.
        held = self._refusals.let(f"{peer} {reason}")
        if held is None:
            return
        more = f", and {held} more like it" if held else ""
        extra = {"peer": peer, "reason": reason.value}
        self._log.warning("refused %s: %s (%s)%s", peer, reason.value, detail, more, extra=extra)

    # The end

    def _signalled(self) -> None:
        if self._stopped.done():
            self._log.warning("stops at once")
            os._exit(1)
        self._log.info("stops: a signal asked for it")
        # A thread in a long computation cannot be interrupted, and Python waits for it even after
        # the loop is gone: the process ends without it.
        # With checkpoints its last one may then be missing.
        last_resort = Timer(self._stop_seconds, os._exit, (int(self.keeps),))
        last_resort.daemon = True
        last_resort.start()
        self._end(None)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        self._end(error or ByzsgdError(f"{task.get_name()} has finished unexpectedly"))

    def _end(self, error: BaseException | None) -> None:
        if self._stopped.done():
            return
        if error is None:
            self._stopped.set_result(None)
        else:
            self._stopped.set_exception(error)
