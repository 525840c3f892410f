"""A correct parameter server.

The phases of a step t, and what ends each::

    scatter --(q_w gradients)--> update --(done)--> [gather --(q_ps models)--> contract --(done)-->]
       ^                                                                                      |
       +-------------------------------- step t + 1 ------------------------------------------+

The part in brackets runs when (t + 1) mod T = 0. From every phase a server that fell behind may go
to ``catch-up``, and from there to a later step's scatter. After the last step it is ``done`` and
goes on answering pulls.

Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine
Learning" (ByzSGD, asynchronous variant).
"""

from enum import StrEnum
from math import inf
from statistics import median
from typing import TypedDict

from byzsgd.cluster import Cluster, Role
from byzsgd.messages import GatherModel, Gradient, Hello, Message, Model, Pull, Reason
from byzsgd.protocol.catchup import CatchUp
from byzsgd.protocol.effects import MODEL_RULE, Aggregate, Effect, NewLife, Publish, SaveCheckpoint
from byzsgd.protocol.events import Aggregated, Report, Result
from byzsgd.protocol.node import PULL_AFTER, PULL_BACKOFF_MAX, Node, Waiting
from byzsgd.protocol.progress import Drift
from byzsgd.protocol.schedule import Gathers, learning_rate
from byzsgd.protocol.window import WINDOW_STEPS, Window
from byzsgd.vectors import Vector

GO_BACK_AFTER = 5
"""Times ``pull_after`` that all others must have been seen to wait at an earlier step before a
server goes back there: whoever is merely slow has got what it lacks by then."""

BACK_FOR = 2 * PULL_BACKOFF_MAX
"""Times ``pull_after`` that a server that went back is slow to believe that others are ahead: by
then whoever else has to go back has looked around once more, by a clock of about any rate."""

RECENT = 5
"""Times ``pull_after`` for which a peer's model counts in a catch-up. As many models come in a
gather, which takes less than one; and whoever still lacks some asks for all again."""

LONG_WAIT_PULLS = 3
"""Pulls in vain, after 1, 2 and 4 times ``pull_after``, that make a wait a long one."""


class Phase(StrEnum):
    """What a server is doing."""

    SCATTER = "scatter"
    """The model is out; waits for gradients."""
    UPDATE = "update"
    """Aggregates gradients and updates the model."""
    GATHER = "gather"
    """Waits for the other servers' models."""
    CONTRACT = "contract"
    """Takes the median of the models: Distributed Median Contraction."""
    CATCH_UP = "catch-up"
    """Takes the median of its peers' later models."""
    DONE = "done"
    """The last step is reached; answers pulls."""


class ServerOptions(TypedDict, total=False):
    """The types of the options of ``ParameterServer``, for whoever hands them on."""

    step: int
    gather_period: int | None
    pull_after: float
    checkpoint_period: int
    buffers: int


class ParameterServer(Node):
    """Scatters its model, updates it with the workers' gradients, gathers with its peers."""

    def __init__(
        self,
        identity: str,
        cluster: Cluster,
        vector: Vector,
        *,
        step: int = 0,
        gather_period: int | None = None,
        pull_after: float = PULL_AFTER,
        checkpoint_period: int = 0,
        buffers: int = 0,
    ) -> None:
        """Begin at a step with a model.

        Args:
            identity: A server of the cluster.
            cluster: The cluster file's content.
            vector: ``(d,)`` float32: theta_0, or the model of a checkpoint.
            step: The step that ``vector`` is the model of.
            gather_period: T, where the cluster file says "auto".
            pull_after: Seconds without a quorum after which to ask those who lack.
            checkpoint_period: Steps between two checkpoints; 0 for none.
            buffers: So many coordinates at the end of every vector are buffers, not parameters.
        """
        super().__init__(identity, cluster, pull_after=pull_after)
        self.step = step
        self.vector = vector
        """``(d,)`` float32: the model of ``model_step``. Never changed, only replaced."""
        self.model_step = step
        """The step that ``vector`` is scattered for: one less than ``step`` during a gather."""
        self.buffers = buffers
        """So many coordinates at the end of every vector are buffers."""
        self._phase = Phase.SCATTER
        self._others = tuple(peer for peer in cluster.servers if peer != identity)
        self._gathers = Gathers.of(cluster, gather_period)
        self._checkpoint_period = checkpoint_period
        self._gradients = Window(cluster.workers, WINDOW_STEPS)
        self._models = Window(cluster.servers, WINDOW_STEPS)
        self._catch_up = CatchUp(
            cluster.n_servers,
            cluster.f_servers,
            needed=cluster.server_quorum - 1,
            recent=RECENT * pull_after,
        )
        self._vote: GatherModel | None = None
        self._orders: dict[str, int] = {}
        self._answered: dict[str, float] = {}
        self._asked_for_models = -inf
        self._ahead_since = inf
        self._went_back = -inf

    def start(self, now: float) -> list[Effect]:
        """Scatter the first model."""
        self._effects = []
        if self.step in self._gathers:
            # The vote of the life before is lost, and peers may still wait for it.
            self._vote = GatherModel(self.step, self.vector)
        self._scatter(self.step, self.vector, now)
        return self._effects

    def phase(self) -> str:
        """One of ``Phase``."""
        return self._phase.value

    def is_gathering(self) -> bool:
        """Whether the model of this step is still to be contracted."""
        return self._phase in (Phase.GATHER, Phase.CONTRACT)

    def waiting(self) -> Waiting | None:
        """Whom the server waits for: workers in a scatter, servers in a gather."""
        if self._phase is Phase.SCATTER:
            votes, need, what = self._gradients, self.cluster.worker_quorum, "gradients"
        elif self._phase is Phase.GATHER:
            votes, need, what = self._models, self.cluster.server_quorum, "gather models"
        else:
            return None
        lacking = votes.lacking(self.step)
        return Waiting(what, self.step, votes.votes(self.step), need, lacking, self._waiting_since)

    def checkpoint(self) -> SaveCheckpoint:
        """The model that was scattered last."""
        return SaveCheckpoint(self.model_step, self.vector)

    def validate(self) -> None:
        """Assert the invariants that hold between any two events."""
        super().validate()
        self._gradients.validate()
        self._models.validate()
        if self._phase is not Phase.CATCH_UP:
            self._validate_steps()
        waits = self._phase in (Phase.SCATTER, Phase.GATHER)
        assert waits == (self.deadline < inf)

    def _validate_steps(self) -> None:
        assert self.step - self.model_step == self.is_gathering()

    # Messages

    def _message(self, peer: str, role: Role, message: Message, now: float) -> None:
        match role, message:
            case Role.WORKER, Gradient(step, vector):
                reason = self._gradients.admit(peer, step, vector)
                if reason:
                    self._refuse(peer, message, reason)
                self._heard_of(peer, step, reason, now)
                self._update_if_ready(now)
            case Role.SERVER, GatherModel(step, vector):
                self._catch_up.vote(peer, step, vector, now)
                if reason := self._models.admit(peer, step, vector):
                    self._refuse(peer, message, reason)
                self._contract_if_ready(now)
            case Role.SERVER, Model(step, vector):
                self._catch_up.model(peer, step, vector, now)
            case _, Pull(step):
                self._answer(peer, role, step, now)
            case _:
                self._refuse(peer, message, Reason.WRONG_ROLE)

    def _hello(self, peer: str, role: Role, hello: Hello) -> None:
        super()._hello(peer, role, hello)
        if peer in self.differing:
            return
        if role is Role.SERVER:
            self._catch_up.stands(peer, hello.step)
        elif not hello.reply and self._waits_in_vain_for(peer):
            self._pull((peer,), self.step)  # It has just connected: what it sent before is lost.

    def _waits_in_vain_for(self, worker: str) -> bool:
        asked = self._asked > 0 and self._phase is Phase.SCATTER
        return asked and worker in self._gradients.lacking(self.step)

    def _receive(self, peer: str, message: Message, now: float) -> None:
        super()._receive(peer, message, now)
        if self._roles.get(peer) is Role.SERVER:
            self._keep_up(now)

    def _answer(self, peer: str, role: Role, step: int, now: float) -> None:
        """Answer a pull with the newest that there is, if it is not older than asked for."""
        if role is Role.OPERATOR:
            if self.model_step >= step or self.done:
                self._send((peer,), Model(self.model_step, self.vector))
            else:
                self._orders[peer] = step
            return
        # One answer a peer and half a pull's time: a pull is small and its answer is not.
        if now - self._answered.get(peer, -inf) < self.pull_after / 2:
            return
        vote = self._vote if role is Role.SERVER else None
        if vote and vote.step >= step:
            self._send((peer,), vote)
            self._answered[peer] = now
        if self.model_step >= step and not (vote and vote.step >= self.model_step):
            self._send((peer,), self._scattered())
            self._answered[peer] = now

    def _scattered(self) -> Model:
        """What the workers are told of the step."""
        return Model(self.model_step, self.vector)

    # A step

    def _scatter(self, step: int, vector: Vector, now: float) -> None:
        self._begin(step, vector)
        self._expect_gradients(now)

    def _begin(self, step: int, vector: Vector) -> None:
        """Begin a step with a model, which goes to the workers."""
        self.step = self.model_step = step
        self.vector = vector
        self._ahead_since = inf
        self._gradients.advance(step)
        self._announce(Model(step, vector))

    def _expect_gradients(self, now: float) -> None:
        """Hand on the model that the update of this step starts from, and wait for gradients."""
        step, vector = self.step, self.vector
        self._models.advance(step + 1)
        last = 0 < self.cluster.steps <= step
        for peer in [peer for peer, ordered in self._orders.items() if ordered <= step or last]:
            del self._orders[peer]
            self._send((peer,), Model(step, vector))
        period = self._checkpoint_period
        if period and (last or (step and step % period == 0)):
            self._effects.append(SaveCheckpoint(step, vector))
        if last:
            self._phase = Phase.DONE
            self.done = True
            self.deadline = inf
            return
        self._phase = Phase.SCATTER
        self._wait(now)
        self._update_if_ready(now)

    def _heard_of(self, worker: str, step: int, reason: Reason | None, now: float) -> None:
        """Take note of when a worker's gradient came, and why it did not count if it did not."""

    def _announce(self, model: Model) -> None:
        """Let the workers know that a step begins."""
        self._effects.append(Publish(model))

    def _update_if_ready(self, now: float) -> None:
        if self._phase is Phase.SCATTER and (
            self._gradients.votes(self.step) >= self.cluster.worker_quorum
        ):
            self._update(self.cluster.worker_quorum, self.cluster.f_workers, now)

    def _update(self, count: int, f: int, now: float) -> None:
        """Aggregate the first ``count`` gradients, of which at most ``f`` are Byzantine."""
        identities, vectors = self._gradients.quorum(self.step).first(count)
        self._phase = Phase.UPDATE
        self._work(now)
        self.progress.votes.update(identities)
        self._gradients.advance(self.step + 1)
        self._effects.append(
            Aggregate(
                self.step,
                self.cluster.rule,
                identities,
                vectors,
                f,
                model=self.vector,
                learning_rate=learning_rate(self.cluster, self.step),
                pre_steps=self.cluster.pre_steps,
                buffers=self.buffers,
            )
        )

    def _gather(self, step: int, vector: Vector, now: float) -> None:
        self._phase = Phase.GATHER
        self.step = step
        self._vote = GatherModel(step, vector)
        self._models.advance(step)
        # The own model counts first, so that a gather needs q_ps - 1 peers.
        reason = self._models.admit(self.identity, step, vector)
        assert reason is None, reason
        self._send(self._others, self._vote)
        self._wait(now)
        self._contract_if_ready(now)

    def _contract_if_ready(self, now: float) -> None:
        if self._phase is not Phase.GATHER:
            return
        if self._models.votes(self.step) < self.cluster.server_quorum:
            return
        quorum = self._models.quorum(self.step)
        identities, vectors = quorum.first(self.cluster.server_quorum, own=self.identity)
        self._phase = Phase.CONTRACT
        self._work(now)
        self._models.advance(self.step + 1)
        self._effects.append(
            Aggregate(
                self.step,
                MODEL_RULE,
                identities,
                vectors,
                self.cluster.f_servers,
                own=self.identity,
            )
        )

    def _result(self, event: Result, now: float) -> None:
        assert isinstance(event, Aggregated)

        if event.step != self.step:
            return  # Overtaken: the server caught up while this was computed.
        if self._phase is Phase.UPDATE:
            self._updated(event, now)
        elif self._phase is Phase.CONTRACT:
            self._watch_gather(event.report)
            self._contracted(event, now)
        elif self._phase is Phase.CATCH_UP:
            self._caught_up(event, now)

    def _updated(self, event: Aggregated, now: float) -> None:
        step = event.step + 1
        self.progress.steps += 1
        self.progress.left_out.update(event.report.left_out)
        self.progress.variance.update(event.step, event.report.spread)
        self.progress.worked(self.cluster.rule, event.report.seconds)
        if step in self._gathers:
            self._gather(step, event.vector, now)
        else:
            self._scatter(step, event.vector, now)

    def _contracted(self, event: Aggregated, now: float) -> None:
        self._scatter(event.step, event.vector, now)

    def _watch_gather(self, report: Report) -> None:
        self.progress.gathers += 1
        self.progress.worked(MODEL_RULE, report.seconds)
        distances = report.distances.values()
        if distances:
            self.progress.drift = Drift(
                maximum=max(distances),
                median=median(distances),
                relative=max(distances) / report.norm if report.norm else 0.0,
                contraction=report.contraction or 0.0,
            )

    # Waiting too long, falling behind

    def _connected(self, peer: str) -> None:
        if self._roles.get(peer) is Role.SERVER and self._phase is Phase.GATHER:
            self._pull((peer,), self.step)

    def _overdue(self, now: float) -> None:
        del now
        if self._phase is Phase.GATHER:
            self._pull(self._models.lacking(self.step), self.step)
        else:
            self._pull(self._gradients.lacking(self.step), self.step)
        # Do the others wait too, or did they go on? Their answers say.
        self._send(self._others, Hello(self.step, self._digests))

    def _behind(self, step: int) -> bool:
        """Whether to give up the current step for a later one that a correct peer has reached.

        A server that is merely slow finishes its step. One that missed a whole gather, or that
        waits in vain while others went on, cannot count on getting its votes any more.
        """
        if step <= self.step or self._phase in (Phase.CATCH_UP, Phase.DONE):
            return False
        missed_a_gather = step > self._gathers.after(self.model_step)
        waits_in_vain = self._asked > 0 and self.deadline < inf
        return missed_a_gather or waits_in_vain

    def _idle(self) -> bool:
        """Whether the server has nothing to do: it is done, or has asked in vain."""
        return self.done or (self._asked > 0 and self.deadline < inf)

    def _ahead(self, step: int) -> bool:
        """Whether a step that others are at is earlier than that of this server."""
        return 0 <= step < self.model_step

    def _stranded(self, now: float) -> bool:
        """Whether to go back to the earlier step where the others wait, and have waited long.

        After a restart of the whole cluster at most f_ps servers may have the newest checkpoint:
        too few for the others to follow, and too many to be missing where the others are. They
        must have said twice that they are there, and the second time when asked long after.
        """
        if (
            self._ahead_since < inf
            and self._catch_up.beside(self.model_step, now) >= 2 * self.cluster.f_servers
        ):
            # More than liars and the f_ps - 1 others that may have the newest checkpoint.
            self._ahead_since = inf
        if not (self._idle() and self._ahead(self._catch_up.others(now))):
            return False
        self._ahead_since = min(self._ahead_since, now)
        return self._asked_for_models - self._ahead_since >= GO_BACK_AFTER * self.pull_after

    def _keep_up(self, now: float) -> None:
        rumour = self._catch_up.rumour()
        # Who has just gone back knows better than the f_ps - 1 others that were ahead as well:
        # until they go back, too, liars could call it forward again with their help.
        doubts = now - self._went_back < BACK_FOR * self.pull_after
        target = self._catch_up.target(now, doubts=doubts)
        if self._behind(target):
            self._adopt(target, now)
        elif self._stranded(now):
            self._adopt(self._catch_up.others(now), now)
        elif self._looks_around(rumour, now):
            self._asked_for_models = now
            self._catch_up.forget_where()
            self._pull(self._others, 0)

    def _looks_around(self, rumour: int, now: float) -> bool:
        """Whether it is time to ask the others for their models.

        It is where they say that they are elsewhere. And now and then in a long wait whatever they
        say: liars who say that they are here can hide that the correct ones are not.
        """
        since = now - self._asked_for_models
        if self._behind(rumour) or (self._idle() and self._ahead(self._catch_up.gathered())):
            return since >= self.pull_after
        waits_long = self._asked >= LONG_WAIT_PULLS and self.deadline < inf
        return waits_long and since >= GO_BACK_AFTER * self.pull_after

    def _adopt(self, step: int, now: float) -> None:
        """Take M of the peers' last models, to go on at another step."""
        votes = self._catch_up.votes(now)
        if len(votes) <= 2 * self.cluster.f_servers:
            # Synchronous, with the smallest quorum: a median needs the own model, too.
            votes[self.identity] = self.vector
        identities = tuple(sorted(votes))
        self._phase = Phase.CATCH_UP
        self.done = False
        self.step = step
        self.deadline = inf
        self._gradients.advance(step)
        self._models.advance(step)
        vectors = tuple(votes[identity] for identity in identities)
        self._effects.append(
            Aggregate(step, MODEL_RULE, identities, vectors, self.cluster.f_servers)
        )

    def _caught_up(self, event: Aggregated, now: float) -> None:
        self.progress.catch_ups += 1
        if event.step < self.model_step:
            # Until now a pull was answered with the later model, which belongs to the life before.
            self._effects.append(NewLife())
            self._went_back = now
            self._vote = None
            # Nor do the votes of that life count, should the training come to their steps again.
            self._gradients.clear()
            self._models.clear()
            # Those who know where it was take it for a witness of that step.
            self._send(self._others, Hello(event.step, self._digests))
        if event.step in self._gathers:
            # Peers may still wait in this gather for one more vote.
            self._vote = GatherModel(event.step, event.vector)
            self._send(self._others, self._vote)
        self._scatter(event.step, event.vector, now)
