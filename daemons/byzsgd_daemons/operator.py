"""The operator's side of a cluster: pulls models, and believes no single server."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from byzsgd.aggregation import coordinate_median
from byzsgd.cluster import Cluster
from byzsgd.errors import ByzsgdError
from byzsgd.messages import Hello, Message, Model, Pull, Reason
from byzsgd.transport import ZeroMQ
from byzsgd.vectors import Vector

GRACE_SECONDS = 0.5
"""How long to wait, once there is a quorum, for the answers of certain servers besides."""

ASK_AGAIN_SECONDS = 1.0
"""A server that has not answered is asked again: it may have been away."""

MARGIN_STEPS = 2
"""How far ahead of the servers to ask, so that the question is there before the step."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Servers' models of one step."""

    step: int
    models: Mapping[str, Vector]
    """By server, ``(d,)`` float32 each, a quorum at least: at most f_servers of them are lies."""

    def median(self) -> Vector:
        """M of the models: every coordinate lies within the correct servers' range."""
        return coordinate_median([self.models[server] for server in sorted(self.models)], 0)


class Operator:
    """An operator's connections to all servers of a cluster, as an async context manager."""

    def __init__(self, cluster: Cluster, identity: str, secret: str, d: int) -> None:
        """Prepare to connect.

        Args:
            cluster: The cluster file's content.
            identity: A node of the role ``operator``.
            secret: Its secret key.
            d: Number of parameters.
        """
        self._cluster = cluster
        self._transport = ZeroMQ(identity, cluster, secret, d, self)
        # One answer a server, its last: a liar's has no room to push out a correct one.
        self._answers: dict[str, tuple[int, Vector]] = {}
        self._heard = asyncio.Event()
        self._asked: int | None = None
        self._run: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._transport.open()
        self._run = asyncio.create_task(self._transport.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._run is not None
        self._run.cancel()
        await asyncio.wait([self._run])
        self._transport.close()

    async def models(self, step: int, *, seconds: float, besides: Collection[str] = ()) -> Answers:
        """The first q_ps servers' models of one step, and those of certain servers besides.

        Args:
            step: The step to ask for; a later one is taken where the servers have passed it.
            seconds: How long to try.
            besides: Servers to wait for a little longer once there is a quorum.

        Raises:
            ByzsgdError: If too few servers answer in that time, naming those that did.
        """
        self._answers.clear()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._ask(step)
                    await self._wait_for_answers(step)
                    if (agreed := self._agreed()) is not None:
                        models = self._of_step(agreed)
                        await self._wait_for_servers(besides, agreed)
                        return Answers(agreed, models | self._of_step(agreed))
                    if self._reached() >= step:
                        # Others may have passed it before they were asked: a later one then.
                        step = self._reached() + MARGIN_STEPS
        except TimeoutError:
            heard = ", ".join(f"{s} (step {at})" for s, (at, _) in sorted(self._answers.items()))
            raise ByzsgdError(
                f"no {self._cluster.server_quorum} servers gave a model of one step within "
                f"{seconds:g} s; answers came from: {heard or 'nobody'}"
            ) from None

    def _ask(self, step: int) -> None:
        self._asked = step
        lacking = [s for s in self._cluster.servers if s not in self._of_step(step)]
        self._transport.send(lacking, Pull(step))

    async def _wait_for_answers(self, step: int) -> None:
        """Wait until a quorum agrees, or correct servers have passed the step, or a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ASK_AGAIN_SECONDS):
                while self._agreed() is None and self._reached() <= step:
                    self._heard.clear()
                    await self._heard.wait()

    async def _wait_for_servers(self, servers: Collection[str], step: int) -> None:
        """Wait until all of these servers have answered for a step, or a little while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while not self._of_step(step).keys() >= set(servers):
                    self._heard.clear()
                    await self._heard.wait()

    def _of_step(self, step: int) -> dict[str, Vector]:
        return {server: vector for server, (at, vector) in self._answers.items() if at == step}

    def _agreed(self) -> int | None:
        """The step that a quorum of servers answered last with, or None."""
        steps = Counter(step for step, _ in self._answers.values())
        quorum = self._cluster.server_quorum
        return max((step for step, count in steps.items() if count >= quorum), default=None)

    def _reached(self) -> int:
        """A step that some correct server has surely reached; -1 if that is not known."""
        # At most f_servers of the answers lie, so of one more, one is no larger than the truth.
        steps = sorted((step for step, _ in self._answers.values()), reverse=True)
        f = self._cluster.f_servers
        return steps[f] if len(steps) > f else -1

    # What the transport calls

    def received(self, peer: str, message: Message) -> None:
        """A server said something."""
        if isinstance(message, Model) and peer in self._cluster.servers:
            late = message.step < (self._asked or 0) and message.step != self._cluster.steps
            if not late:  # An answer to an earlier question, or a server that is not there yet.
                self._answers[peer] = (message.step, message.vector)
                self._heard.set()

    def connected(self, peer: str) -> None:
        """A connection was made: what was asked before may be lost."""
        self._transport.send((peer,), Hello(0, self._cluster.digests()))
        if self._asked is not None:
            self._transport.send((peer,), Pull(self._asked))

    def disconnected(self, peer: str) -> None:
        """Nothing: the transport dials again by itself."""

    def refused(self, peer: str, reason: Reason, detail: str) -> None:
        """Nothing: an answer that is no model does not count."""
