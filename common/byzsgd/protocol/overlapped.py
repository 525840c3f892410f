"""A correct parameter server that gathers while the workers compute.

The phases of a step t are those of ``server``, but that the model of t + 1 is out before the gather
and not after it::

    scatter --(q_w gradients)--> update --(done: scatter t + 1 if it is a gather step)--+
       ^                                                                                |
       +--(done)-- contract <--(q_ps models)-- gather <---------------------------------+

So workers are told the uncontracted theta_{t+1}, the very vector that is the server's vote; their
gradients of t + 1 may come at any time from then on, and the update waits for both quorums and
starts from the contracted model. That is also the model that is saved and that an operator gets,
who waits for it. What a worker is told of a step never changes, whenever it asks.

A server that starts or catches up at a gather step has its model for all three, as it has without
overlap; that of one that was stopped in a gather is uncontracted until the next one.

Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine
Learning" (ByzSGD, asynchronous variant), whose servers contract before they scatter.
"""

from byzsgd.cluster import Role
from byzsgd.messages import Model
from byzsgd.protocol.events import Aggregated
from byzsgd.protocol.server import ParameterServer
from byzsgd.vectors import Vector


class OverlappedServer(ParameterServer):
    """A parameter server whose workers do not wait for its gathers."""

    def _validate_steps(self) -> None:
        assert self.step == self.model_step
        if self.is_gathering():
            assert self._vote is not None
            assert self._vote.vector is self.vector

    def _answer(self, peer: str, role: Role, step: int, now: float) -> None:
        if role is Role.OPERATOR and self.is_gathering():
            self._orders[peer] = step
        else:
            super()._answer(peer, role, step, now)

    def _scattered(self) -> Model:
        if self._vote and self._vote.step == self.model_step:
            return Model(self._vote.step, self._vote.vector)
        return super()._scattered()

    def _gather(self, step: int, vector: Vector, now: float) -> None:
        self._begin(step, vector)
        super()._gather(step, vector, now)

    def _contracted(self, event: Aggregated, now: float) -> None:
        self.vector = event.vector
        self._expect_gradients(now)
