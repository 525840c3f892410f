"""The operator's side of a cluster: pulls models, and believes no single server."""

import asyncio
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
        self._answers: dict[int, dict[str, Vector]] = {}
        self._last: dict[str, int] = {}
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
        self._last.clear()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._ask(step)
                    if answers := await self._enough():
                        await self._all_of(answers, besides)
                        return answers
                    step = self._ahead(step)
        except TimeoutError:
            heard = ", ".join(f"{s} (step {at})" for s, at in sorted(self._last.items()))
            raise ByzsgdError(
                f"no {self._cluster.server_quorum} servers gave a model of one step within "
                f"{seconds:g} s; answers came from: {heard or 'nobody'}"
            ) from None

    def _ask(self, step: int) -> None:
        have = self._answers.get(step, {})
        self._asked = step
        lacking = [server for server in self._cluster.servers if server not in have]
        self._transport.send(lacking, Pull(step))

    async def _enough(self) -> Answers | None:
        """The answers, once a step has a quorum; None when it is time to ask again."""
        try:
            async with asyncio.timeout(ASK_AGAIN_SECONDS):
                while True:
                    for step, models in self._answers.items():
                        if len(models) >= self._cluster.server_quorum:
                            return Answers(step, models)
                    if len(self._last) == self._cluster.n_servers:
                        return None
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            return None

    async def _all_of(self, answers: Answers, servers: Collection[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while not answers.models.keys() >= set(servers):
                    self._heard.clear()
                    await self._heard.wait()

    def _ahead(self, step: int) -> int:
        """The step to ask for next: a little ahead, if correct servers have passed the last one."""
        steps = sorted(self._last.values(), reverse=True)
        if len(steps) <= self._cluster.f_servers:
            return step
        # At most f_servers of these lie, so a correct server has come that far.
        reached = steps[self._cluster.f_servers]
        if reached <= step:
            return step
        self._last.clear()
        return reached + MARGIN_STEPS

    # What the transport calls

    def received(self, peer: str, message: Message) -> None:
        """A server said something."""
        if isinstance(message, Model) and peer in self._cluster.servers:
            self._answers.setdefault(message.step, {})[peer] = message.vector
            self._last[peer] = message.step
            for old in sorted(self._answers)[:-8]:
                del self._answers[old]
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
