"""A correct worker.

The phases of a step, and what ends each::

    wait --(q_ps models of one step)--> median --(done)--> gradient --(done: send it)--> wait

A worker works on the newest step for which it holds q_ps models, so a slow one skips steps. It
keeps the gradient that it sent last and sends it again when a server asks, or when the models say
that the servers are still at that step.

Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine
Learning" (ByzSGD, asynchronous variant); worker momentum: Farhadkhani, Guerraoui, Gupta, Pinot,
Stephan, "Byzantine Machine Learning Made Easy by Resilient Averaging of Momentums" (RESAM).
"""

from enum import StrEnum
from math import inf

from byzsgd.cluster import Cluster, Role
from byzsgd.messages import Gradient, Message, Model, Pull, Reason
from byzsgd.protocol.effects import MODEL_RULE, Aggregate, ComputeGradient, Effect
from byzsgd.protocol.events import Aggregated, GradientComputed, Result
from byzsgd.protocol.node import PULL_AFTER, Node, Waiting
from byzsgd.protocol.window import WINDOW_STEPS, Window

REOPEN_AFTER = 2
"""Pulls in vain after which a worker takes models of any step: the servers may have restarted from
checkpoints of earlier steps."""


class Phase(StrEnum):
    """What a worker is doing."""

    WAIT = "wait"
    """Waits for models."""
    MEDIAN = "median"
    """Takes the median of the models."""
    GRADIENT = "gradient"
    """Computes its gradient."""
    DONE = "done"
    """The last step is reached; answers pulls."""


class Worker(Node):
    """Takes the median of q_ps models of a step and sends its gradient there to every server."""

    def __init__(
        self,
        identity: str,
        cluster: Cluster,
        *,
        pull_after: float = PULL_AFTER,
        buffers: int = 0,
    ) -> None:
        """Begin knowing nothing, not even where the servers are.

        Args:
            identity: A worker of the cluster.
            cluster: The cluster file's content.
            pull_after: Seconds without a quorum of models after which to ask again.
            buffers: So many coordinates at the end of every vector are buffers, not parameters.
        """
        super().__init__(identity, cluster, pull_after=pull_after)
        self._buffers = buffers
        self._phase = Phase.WAIT
        self._models = Window(cluster.servers, WINDOW_STEPS)
        self._sent: Gradient | None = None

    def start(self, now: float) -> list[Effect]:
        """Wait: models come by themselves, or are pulled when a connection is made."""
        self._effects = []
        self._wait(now)
        return self._effects

    def phase(self) -> str:
        """One of ``Phase``."""
        return self._phase.value

    def waiting(self) -> Waiting | None:
        """Which servers' models the worker waits for."""
        if self._phase is not Phase.WAIT:
            return None
        step = self._awaited()
        have, lacking = self._models.votes(step), self._models.lacking(step)
        need = self.cluster.server_quorum
        return Waiting("models", step, have, need, lacking, self._waiting_since)

    def validate(self) -> None:
        """Assert the invariants that hold between any two events."""
        super().validate()
        self._models.validate()
        assert (self._phase is Phase.WAIT) == (self.deadline < inf)

    def _awaited(self) -> int:
        """The step whose models the worker waits for: where it has most, or else the next."""
        fullest = self._models.fullest()
        return self._next() if fullest is None else fullest

    def _next(self) -> int:
        return self._sent.step + 1 if self._sent else 0

    def _message(self, peer: str, role: Role, message: Message, now: float) -> None:
        match role, message:
            case Role.SERVER, Model(step, vector):
                if reason := self._models.admit(peer, step, vector):
                    self._refuse(peer, message, reason)
                self._begin_if_ready(now)
            case Role.SERVER, Pull(step):
                if self._sent and self._sent.step == step:
                    self._send((peer,), self._sent)
            case _:
                self._refuse(peer, message, Reason.WRONG_ROLE)

    def _begin_if_ready(self, now: float) -> None:
        if self._phase not in (Phase.WAIT, Phase.DONE):
            return
        step = self._models.newest(self.cluster.server_quorum)
        if step is None:
            return
        if self._sent and step == self._sent.step:
            # The servers are still there, so the gradient was lost on its way to some.
            self._models.advance(step + 1)
            if self.done:
                self._models.reopen()
            self._send(self.cluster.servers, self._sent)
            return
        if 0 < self.cluster.steps <= step:
            self._finish(step)
            return
        identities, vectors = self._models.quorum(step).first(self.cluster.server_quorum)
        self._phase = Phase.MEDIAN
        self.done = False
        self._work(now)
        self.progress.skipped += max(step - self._next(), 0) if self._sent else 0
        self.step = step
        if self._sent and step < self._sent.step:
            # The servers went back: what they said of later steps is of their life before.
            self._models.clear()
        self._models.advance(step + 1)
        self._effects.append(
            Aggregate(step, MODEL_RULE, identities, vectors, self.cluster.f_servers)
        )

    def _finish(self, step: int) -> None:
        self._phase = Phase.DONE
        self.step = step
        self.done = True
        self.deadline = inf
        self._models.advance(step + 1)
        # Should the servers restart from earlier checkpoints, there is more to do.
        self._models.reopen()

    def _result(self, event: Result, now: float) -> None:
        assert isinstance(event, Aggregated | GradientComputed)
        assert event.step == self.step, (event.step, self.step)

        if isinstance(event, Aggregated):
            self._phase = Phase.GRADIENT
            self.progress.worked(MODEL_RULE, event.report.seconds)
            momentum = self._sent.vector if self._sent else None
            beta = self.cluster.worker_momentum
            self._effects.append(
                ComputeGradient(event.step, event.vector, momentum, beta, self._buffers)
            )
            return
        self.progress.steps += 1
        self.progress.loss = event.loss
        self.progress.worked("gradient", event.seconds)
        self._sent = Gradient(event.step, event.vector)
        self._send(self.cluster.servers, self._sent)
        self._phase = Phase.WAIT
        self._wait(now)
        self._begin_if_ready(now)

    def _connected(self, peer: str) -> None:
        if self._roles.get(peer) is Role.SERVER and self._phase is Phase.WAIT:
            self._pull((peer,), self._models.floor)

    def _overdue(self, now: float) -> None:
        del now
        peers = self._models.lacking(self._awaited())
        if self._asked >= REOPEN_AFTER:
            self._models.reopen()
            peers = self.cluster.servers  # Those who sent a model may have gone on since.
        self._pull(peers, self._models.floor)
