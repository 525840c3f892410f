"""The synchronous variant: correct nodes answer within a round, so a worker pulls one model a step.

The phases of a worker's step t, and what ends each::

    pull --(the model of the server whose turn it is)--> try --(both filters accept)--> send it
     |  ^                                                 |
     |  +------------------(a filter refuses)-------------+
     |
     +--(every server refused, or a gather step: q_ps models)--> median --> gradient --> send it

While it waits for a model, the worker goes one local step ahead of itself and takes the gradient
that the filters compare with. Whoever is late is passed over, and nobody is waited for for ever: a
server ends a round with the gradients that are there once ``round_timeout`` has passed, if they are
a quorum; a worker asks the next server in turn.

One server is believed about its model only, within the filters' bounds. Where the others stand, a
worker that fell behind believes when f_ps + 1 servers say so, and it goes on there with a median.

Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine
Learning" (ByzSGD, synchronous variant).
"""

from dataclasses import replace
from enum import StrEnum
from math import inf, isfinite
from typing import Unpack

import numpy as np

from byzsgd.aggregation import compose
from byzsgd.cluster import KEPT_MAX, Cluster, Role
from byzsgd.filters import Filter, LipschitzFilter, outliers_bound
from byzsgd.messages import Gradient, Message, Model, Pull, Reason
from byzsgd.protocol.attendance import Attendance
from byzsgd.protocol.effects import MODEL_RULE, Aggregate, ComputeGradient, Effect, TryModel
from byzsgd.protocol.events import Aggregated, GradientComputed, ModelTried, Result
from byzsgd.protocol.node import PULL_AFTER, Node, Waiting
from byzsgd.protocol.schedule import Gathers, learning_rate
from byzsgd.protocol.server import ParameterServer, Phase, ServerOptions
from byzsgd.protocol.window import WINDOW_STEPS, Window
from byzsgd.protocol.worker import REOPEN_AFTER
from byzsgd.vectors import Vector

PRIMING_STEPS = 10
"""Steps that a worker begins with medians of all servers' models: they give the Lipschitz filter
something to compare with. Without them one bad model, accepted early, makes all correct ones look
like outliers ever after."""


class SynchronousServer(ParameterServer):
    """A parameter server whose workers pull models, and that waits for all of them, for a while."""

    def __init__(
        self,
        identity: str,
        cluster: Cluster,
        vector: Vector,
        **options: Unpack[ServerOptions],
    ) -> None:
        """Begin at a step with a model; the arguments are those of ``ParameterServer``."""
        super().__init__(identity, cluster, vector, **options)
        # As far ahead as liars among the servers can lead a correct worker, and the current step.
        self._gradients = Window(cluster.workers, max(WINDOW_STEPS, cluster.f_servers + 2))
        self._bound = compose(cluster.pre_steps, cluster.rule).check
        self._attendance = Attendance(self.progress.missed)
        self.progress.passed_over = self._attendance.passed_over
        # When this step and the one before began, and as which of all rounds.
        self._rounds: dict[int, tuple[float, int]] = {}
        self._round = 0
        self._served: dict[str, int] = {}

    def waiting(self) -> Waiting | None:
        """Whom the server waits for: in a scatter, all workers that it does not pass over."""
        waiting = super().waiting()
        if waiting is None or self._phase is not Phase.SCATTER:
            return waiting
        lacking = self._awaited()
        need = max(waiting.have + len(lacking), waiting.need)
        return replace(waiting, need=need, lacking=lacking or waiting.lacking)

    def _awaited(self) -> tuple[str, ...]:
        """The workers whose gradients of this step are waited for, sorted."""
        passed_over = self._attendance.passed_over
        lacking = self._gradients.lacking(self.step)
        return tuple(worker for worker in lacking if worker not in passed_over)

    def _heard_of(self, worker: str, step: int, reason: Reason | None, now: float) -> None:
        began, number = self._rounds.get(step, (-inf, 0))
        # In time is also whose round has ended without it.
        if reason in (None, Reason.LATE) and now <= began + self.cluster.round_timeout:
            self._attendance.attend(worker, number)

    def _answer(self, peer: str, role: Role, step: int, now: float) -> None:
        if role is not Role.WORKER:
            super()._answer(peer, role, step, now)
        elif self.model_step < step and not self.done:
            self._orders[peer] = step
        elif self._served.get(peer) != self.model_step or (
            now - self._answered.get(peer, -inf) >= self.pull_after / 2
        ):
            # One answer a step, and another one in case it was lost.
            self._served[peer] = self.model_step
            self._answered[peer] = now
            self._send((peer,), Model(self.model_step, self.vector))

    def _announce(self, model: Model) -> None:
        """Publish nothing: workers pull."""

    def _scatter(self, step: int, vector: Vector, now: float) -> None:
        self._round += 1
        self._rounds = {at: began for at, began in self._rounds.items() if at == step - 1}
        self._rounds[step] = now, self._round
        super()._scatter(step, vector, now)

    def _update_if_ready(self, now: float) -> None:
        if self._phase is not Phase.SCATTER:
            return
        votes = self._gradients.votes(self.step)
        missing = self._awaited()
        timed_out = now >= self._waiting_since + self.cluster.round_timeout
        if votes < self.cluster.worker_quorum or (missing and not timed_out):
            return
        for worker in missing:
            self._attendance.miss(worker)
        self._update(votes, self._tolerated(votes), now)

    def _tolerated(self, votes: int) -> int:
        """How many of the votes may be lies: f_w, though silent workers are missing.

        Fewer only where the rule's bound takes no more, and that is enough: who is silent although
        delays are bounded is one of the liars.
        """
        return next(f for f in range(self.cluster.f_workers, -1, -1) if not self._bound(votes, f))

    def _overdue(self, now: float) -> None:
        self._update_if_ready(now)
        if self.deadline < inf:
            super()._overdue(now)

    def _arm(self, now: float) -> None:
        super()._arm(now)
        if self._phase is Phase.SCATTER and self._asked < 2:
            # Half a round for what was lost to be asked for, and the whole to end it.
            rounds = 1 if self._asked else 0.5
            self.deadline = max(self._waiting_since + rounds * self.cluster.round_timeout, now)


class WorkerPhase(StrEnum):
    """What a worker of the synchronous variant is doing."""

    PULL = "pull"
    """Waits for the model of one server, or of a quorum of them."""
    TRY = "try"
    """Computes what the filters ask of a model."""
    MEDIAN = "median"
    """Takes the median of models."""
    GRADIENT = "gradient"
    """Computes its gradient at a median."""
    DONE = "done"
    """The last step is reached; answers pulls."""


class SynchronousWorker(Node):
    """Pulls one model a step and filters it; in gather steps it takes the median of q_ps."""

    def __init__(
        self,
        identity: str,
        cluster: Cluster,
        *,
        gather_period: int | None = None,
        pull_after: float = PULL_AFTER,
    ) -> None:
        """Begin knowing nothing, not even where the servers are.

        Args:
            identity: A worker of the cluster.
            cluster: The cluster file's content.
            gather_period: T, where the cluster file says "auto".
            pull_after: Seconds without a quorum of models after which to ask again.
        """
        super().__init__(identity, cluster, pull_after=pull_after)
        self._phase = WorkerPhase.PULL
        self._index = cluster.workers.index(identity)
        self._gathers = Gathers.of(cluster, gather_period)
        self._models = Window(cluster.servers, WINDOW_STEPS)
        self._lipschitz = LipschitzFilter(cluster.n_servers, cluster.f_servers)
        self._attendance = Attendance(self.progress.missed)
        self.progress.passed_over = self._attendance.passed_over

        # The last step that was taken: where, what was sent, and how long the step was at the
        # last median, eta_a ||g_a||.
        self._base: Vector | None = None
        self._sent: Gradient | None = None
        self._kept: dict[int, Gradient] = {}
        self._stride = 0.0
        self._medians = 0

        self._heard: dict[str, int] = {}
        """The step of each server's last model."""

        # The step under way. Nobody's turn: all servers are asked.
        self._turn: str | None = None
        self._next: list[str] = []
        self._asked_in_turn: list[str] = []
        self._late: list[str] = []
        self._answers: dict[str, int] = {}  # Steps answered with since all were asked.
        self._looks_ahead = False
        self._reference: Vector | None = None
        self._model: Vector | None = None
        self._refused: tuple[Vector, ModelTried] | None = None
        self._called_back: set[str] = set()

    def start(self, now: float) -> list[Effect]:
        """Ask every server for its model, of whatever step that is."""
        self._effects = []
        self._ask_all(0, now)
        return self._effects

    def phase(self) -> str:
        """One of ``WorkerPhase``."""
        return self._phase.value

    def waiting(self) -> Waiting | None:
        """Which server's model the worker waits for, or which servers'."""
        if self._phase is not WorkerPhase.PULL:
            return None
        have, need = self._models.votes(self.step), self.cluster.server_quorum
        lacking = self._models.lacking(self.step)
        if self._turn:
            have, need, lacking = 0, 1, (self._turn,)
        return Waiting("models", self.step, have, max(have, need), lacking, self._waiting_since)

    def validate(self) -> None:
        """Assert the invariants that hold between any two events."""
        super().validate()
        self._models.validate()
        assert (self._phase is WorkerPhase.PULL) == (self.deadline < inf)
        assert self._turn is None or self._base is not None

    # Messages

    def _message(self, peer: str, role: Role, message: Message, now: float) -> None:
        match role, message:
            case Role.SERVER, Model(step, vector):
                self._heard[peer] = self._answers[peer] = step
                if reason := self._models.admit(peer, step, vector):
                    self._refuse(peer, message, reason)
                elif step == self.step:
                    self._attendance.attend(peer, self.progress.steps)
                self._go_on(now)
            case Role.SERVER, Pull(step):
                if step in self._kept:
                    self._send((peer,), self._kept[step])
                elif self.done and step < self.step:
                    self._called_back.add(peer)
                    if len(self._called_back) > self.cluster.f_servers:
                        # A correct server is at an earlier step: it restarted from a checkpoint.
                        self._models.reopen()
                        self._ask_all(0, now)
            case _:
                self._refuse(peer, message, Reason.WRONG_ROLE)

    def _go_on(self, now: float) -> None:
        """Do what the models that are here allow."""
        if self._phase is not WorkerPhase.PULL or self._looks_ahead:
            return
        if self._turn is None:
            self._take_median_if_ready(now)
            return
        there = self._answered()
        if there and self._is_reached(self.step - self.cluster.f_servers):
            self._try(there[0], now)
        elif self._turn in there or self._has_gone_on(self._turn):
            self._ask_next(now)

    def _answered(self) -> list[str]:
        """The servers asked in this step whose model is here and not refused, in turn."""
        return [who for who in self._asked_in_turn if self._models.vote(who, self.step) is not None]

    def _has_gone_on(self, server: str) -> bool:
        """Whether a server says that it has left the step of this worker behind."""
        return self._heard.get(server, -1) > self.step

    def _is_reached(self, step: int) -> bool:
        """Whether some correct server has reached a step: f_ps + 1 of them say so.

        Liars answer for steps that nobody has come to. A worker that takes turns hears of f_ps + 1
        servers in as many steps; who asks of more than that would only follow liars, away from
        where its gradients count.
        """
        steps = sorted(self._heard.values(), reverse=True)
        f_servers = self.cluster.f_servers
        return len(steps) > f_servers and steps[f_servers] >= step

    # A step

    def _begin(self, step: int, now: float) -> None:
        for server in self._late:
            # Not at once: while all servers wait for a worker, none of them can answer.
            if self._heard.get(server, -1) < self.step:
                self._attendance.miss(server)
        self._late = []
        self._models.advance(step)
        if 0 < self.cluster.steps <= step:
            self._finish(step)
            return
        if self._is_priming() or step in self._gathers:
            self._ask_all(step, now)
            return
        self.step = step
        self._phase = WorkerPhase.PULL
        self.progress.scatter_steps += 1
        passed_over = self._attendance.passed_over
        present = [server for server in self.cluster.servers if server not in passed_over]
        # From one step to the next another server, also where some are passed over.
        first = (self._index + step + 1) % max(len(present), 1)
        self._next = [*present[first:], *present[:first], *sorted(passed_over)]
        self._asked_in_turn = []
        self._reference = None
        self._refused = None
        if self.cluster.f_servers:
            # What the filters compare with, computed while the pull is under way.
            assert self._base is not None
            self._looks_ahead = True
            self._effects.append(ComputeGradient(step, self._base, None, 0.0))
        self._ask_next(now)

    def _is_priming(self) -> bool:
        return self.cluster.f_servers > 0 and self._medians < PRIMING_STEPS

    def _finish(self, step: int) -> None:
        self._phase = WorkerPhase.DONE
        self.step = step
        self.done = True
        self.deadline = inf
        self._called_back.clear()
        self._models.advance(step + 1)

    def _ask_next(self, now: float) -> None:
        """Ask the server whose turn it is, or take the median where nobody is left."""
        if not self._next:
            self.progress.fallbacks += 1
            self._ask_all(self.step, now)
            return
        self._turn = self._next.pop(0)
        self._asked_in_turn.append(self._turn)
        self._phase = WorkerPhase.PULL
        self._wait(now)
        if self._models.vote(self._turn, self.step) is None and not self._has_gone_on(self._turn):
            self.progress.scatter_pulls += 1
            self._pull((self._turn,), self.step)
        else:
            self._go_on(now)

    def _ask_all(self, step: int, now: float) -> None:
        """Ask all servers for their models of a step or a later one."""
        if step != self.step:
            self._answers.clear()
        self.step = step
        self.done = False
        self._turn = None
        self._phase = WorkerPhase.PULL
        self._wait(now)
        self._pull(self._models.lacking(step), step)
        self._go_on(now)

    def _take_median_if_ready(self, now: float) -> None:
        step = self._models.newest(self.cluster.server_quorum)
        if step is None:
            self._follow(now)
        elif self._sent and step == self._sent.step:
            # The servers are still there, so the gradient was lost on its way to some.
            self._models.advance(step + 1)
            self._send(self.cluster.servers, self._sent)
            self._ask_all(step + 1, now)
        elif 0 < self.cluster.steps <= step:
            self._finish(step)
        else:
            identities, vectors = self._models.quorum(step).first(self.cluster.server_quorum)
            self._phase = WorkerPhase.MEDIAN
            self._work(now)
            self.progress.skipped += max(step - self._sent.step - 1, 0) if self._sent else 0
            self.step = step
            if self._sent and step < self._sent.step:
                # The servers went back: what they said of later steps is of their life before.
                self._models.clear()
            self._models.advance(step + 1)
            f_servers = self.cluster.f_servers
            self._effects.append(Aggregate(step, MODEL_RULE, identities, vectors, f_servers))

    def _follow(self, now: float, *, late: bool = False) -> bool:
        """Ask for a step that all will come to, where a quorum answered with different ones.

        At once only where a correct server has left the own step behind, which f_ps + 1 answers
        prove: one liar must not send a worker away from a step that the others are about to reach.
        """
        f_servers = self.cluster.f_servers
        steps = sorted((s for s in self._answers.values() if s >= self.step), reverse=True)
        if len(steps) < self.cluster.server_quorum or (steps[f_servers] == self.step and not late):
            return False
        self._ask_all(steps[f_servers] + 1, now)
        return True

    def _try(self, server: str, now: float) -> None:
        """Compute what the filters ask of a server's model."""
        self._asked_in_turn = [each for each in self._asked_in_turn if each != server]
        self._next = [each for each in self._next if each != server]
        self._turn = server
        model = self._models.vote(server, self.step)
        assert model is not None
        if self._refused and np.array_equal(model, self._refused[0]):
            self._hear_again(now)
        else:
            self._work(now)
            self._compute(model, tries=self.cluster.f_servers > 0)

    def _hear_again(self, now: float) -> None:
        """Accept a model that was refused once f_ps + 1 servers say it: one of them is correct.

        Without this, servers that agree to the bit would all be refused for one server's sake.
        """
        assert self._refused is not None

        model, tried = self._refused
        if tried.coefficient is not None:
            self._lipschitz.note(tried.coefficient)  # Seen once more.
        if self._models.same(self.step, model) <= self.cluster.f_servers:
            self._try_next(now)
            return
        self._work(now)
        if tried.vector is None:
            self._compute(model, tries=False)
        else:
            self._model = model
            self._accept(tried.vector, tried, now)

    def _compute(self, model: Vector, *, tries: bool) -> None:
        """Take the gradient at a model, with or without what the filters ask of it."""
        self._model = model
        beta = self.cluster.worker_momentum
        if not tries:
            self._phase = WorkerPhase.GRADIENT
            momentum = self._sent.vector if self._sent else None
            self._effects.append(ComputeGradient(self.step, model, momentum, beta))
            return
        assert self._base is not None
        assert self._sent is not None
        assert self._sent.step == self.step - 1, "the filters look at one step"

        self._phase = WorkerPhase.TRY
        bound = inf
        if self._turn:
            bound = outliers_bound(
                self.step,
                gather_period=self._gathers.period,
                n_workers=self.cluster.n_workers,
                f_workers=self.cluster.f_workers,
                stride=self._stride,
            )
        rate = learning_rate(self.cluster, self._sent.step)
        self._effects.append(
            TryModel(
                self.step,
                model,
                self._base,
                self._sent.vector,
                rate,
                self._reference,
                bound,
                beta,
            )
        )

    def _result(self, event: Result, now: float) -> None:
        if self._looks_ahead and isinstance(event, GradientComputed):
            self._looks_ahead = False
            self._reference = event.vector
            self._go_on(now)
            return

        assert event.step == self.step, (event.step, self.step)

        match event:
            case Aggregated():
                self.progress.worked(MODEL_RULE, event.report.seconds)
                self._reference = None
                follows = self._sent is not None and self._sent.step == self.step - 1
                self._compute(event.vector, tries=follows and self._is_priming())
                self._medians += 1
            case GradientComputed():
                self._accept(event.vector, event, now)
            case ModelTried():
                self._judge(event, now)

    def _judge(self, tried: ModelTried, now: float) -> None:
        """Accept or refuse a model, by both filters."""
        if tried.vector is None or tried.coefficient is None:
            self._filter(Filter.OUTLIERS, tried, now)
        elif self._turn and not isfinite(tried.norm):
            self._filter(Filter.LIPSCHITZ, replace(tried, vector=None), now)
        elif self._turn is None:
            self._lipschitz.note(tried.coefficient)
            self._accept(tried.vector, tried, now)
        elif self._lipschitz.accepts(tried.coefficient):
            self._accept(tried.vector, tried, now)
        else:
            self._filter(Filter.LIPSCHITZ, tried, now)

    def _filter(self, which: Filter, tried: ModelTried, now: float) -> None:
        assert self._turn is not None
        assert self._model is not None

        self._refused = self._model, tried
        self.progress.filtered[self._turn, which] += 1
        self._try_next(now)

    def _try_next(self, now: float) -> None:
        """Try what another server has answered already, or ask the next one."""
        if there := self._answered():
            self._wait(now)
            self._try(there[0], now)
        else:
            self._ask_next(now)

    def _accept(self, vector: Vector, event: GradientComputed | ModelTried, now: float) -> None:
        """Send the gradient that was taken at a model, and begin the next step."""
        self.progress.steps += 1
        self.progress.loss = event.loss
        self.progress.worked("gradient", event.seconds)
        if self._turn:
            self.progress.accepted[self._turn] += 1
        else:
            self._stride = learning_rate(self.cluster, self.step) * event.norm
        self._base = self._model
        self._sent = Gradient(self.step, vector)
        self._keep(self._sent)
        self._send(self.cluster.servers, self._sent)
        self._begin(self.step + 1, now)

    def _keep(self, sent: Gradient) -> None:
        """Keep what was sent since the last gather, for servers that lost it.

        A worker does not wait for them: some may be a few steps behind, up to a whole period.
        """
        if sent.step in self._gathers:
            self._kept.clear()
        # What is later is of before the servers went back.
        self._kept = {at: kept for at, kept in self._kept.items() if at < sent.step}
        self._kept[sent.step] = sent
        if len(self._kept) > KEPT_MAX:
            del self._kept[min(self._kept)]

    # Waiting too long

    def _connected(self, peer: str) -> None:
        asked = self._turn is None or peer == self._turn
        if self._roles.get(peer) is Role.SERVER and self._phase is WorkerPhase.PULL and asked:
            self._pull((peer,), self._models.floor if self._asked else self.step)

    def _overdue(self, now: float) -> None:
        if self._looks_ahead:
            return  # The own gradient takes longer than a server's answer.
        if self._turn:
            if self._turn not in self._late:
                self._late.append(self._turn)
                self._next.append(self._turn)  # Once more, after all others.
            self._ask_next(now)
            return
        if self._asked < REOPEN_AFTER and self._follow(now, late=True):
            return
        step, peers = self.step, self._models.lacking(self.step)
        if self._asked >= REOPEN_AFTER:
            # The servers may have restarted from checkpoints of earlier steps.
            self._models.reopen()
            self._answers.clear()
            step, peers = 0, self.cluster.servers
        self._pull(peers, step)

    def _arm(self, now: float) -> None:
        super()._arm(now)
        if self._turn:
            # Half a round for f_ps silent servers and one more, the other half for the gradient.
            self.deadline = now + self.cluster.round_timeout / (2 * self.cluster.f_servers + 2)
