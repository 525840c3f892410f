"""The liars of one cluster, as one state machine: they share all that any of them sees.

What they cannot do is forge a correct node's identity. What they do at the right moment matters as
much as what they say (``Timing``). By default they cast their votes for the next step as soon as
they know the current one, for a quorum takes the first votes.

Where workers pull their models (the synchronous variant), lying servers answer each pull with a lie
of just that step, and the liars pull models themselves, so as to see where the correct servers are.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from byzsgd.aggregation import AggregationError, mda_subset
from byzsgd.attacks import Attack, View, described
from byzsgd.attacks.attack import mean
from byzsgd.cluster import Cluster, Role, Variant
from byzsgd.errors import ConfigError
from byzsgd.messages import GatherModel, Gradient, Hello, Message, Model, Pull
from byzsgd.protocol import Aggregate, Event, PeerConnected, Received, Send
from byzsgd.protocol.effects import MODEL_RULE
from byzsgd.protocol.schedule import Gathers
from byzsgd.protocol.work import aggregate
from byzsgd.simulation.oracle import Oracle
from byzsgd.simulation.sight import STEPS_KEPT, Sight
from byzsgd.simulation.timing import Order, Timing, flooded
from byzsgd.vectors import Vector

Lies = dict[str, Vector | None]
"""What each receiver is told."""


class Coalition:
    """All liars of a cluster: ``handle`` takes what one of them meets, and orders all of them."""

    def __init__(
        self,
        cluster: Cluster,
        liars: Sequence[str],
        *,
        worker_attack: Attack | None = None,
        server_attack: Attack | None = None,
        timing: Timing = Timing.EARLY,
        gather_period: int | None = None,
        oracle: Oracle | None = None,
        flipped: Callable[[int, Vector], Vector] | None = None,
        buffers: int = 0,
    ) -> None:
        """Gather liars of either role.

        Args:
            cluster: The cluster that they belong to.
            liars: Their identities.
            worker_attack: What lying workers say; None for silence.
            server_attack: What lying servers say; None for silence.
            timing: When they speak, and how often.
            gather_period: T, where the cluster file says "auto".
            oracle: Where no server lies, the gradients that correct workers would send.
            flipped: What a worker would send at a step and model that learns flipped labels.
            buffers: So many coordinates at the end of every vector are buffers, not parameters.

        Raises:
            ConfigError: If an attack needs flipped labels and there are none.
        """
        if worker_attack and worker_attack.needs_flipped and not flipped:
            raise ConfigError("attack label-flip: needs a task whose labels can be flipped")
        self.liars = tuple(sorted(liars))
        """The identities of all liars."""
        self._cluster = cluster
        self._synchronous = cluster.variant is Variant.SYNCHRONOUS
        self._workers = tuple(w for w in cluster.workers if w in liars)
        self._servers = tuple(s for s in cluster.servers if s in liars)
        self._correct_workers = tuple(w for w in cluster.workers if w not in liars)
        self._correct_servers = tuple(s for s in cluster.servers if s not in liars)
        self._worker_attack, self._server_attack = worker_attack, server_attack
        self._timing = timing
        self._gathers = Gathers.of(cluster, gather_period)
        self._oracle, self._flipped = oracle, flipped
        self._buffers = buffers
        self._gradients = Sight(worker_attack.history if worker_attack else 0)
        self._models = Sight(server_attack.history if server_attack else 0)
        self._model: Vector | None = None
        self._scattered: dict[int, set[str]] = {}
        self._voted: dict[int, set[str]] = {}
        self._forged_gradients = self._forged_models = -1
        self._gradient_lies: dict[int, Lies] = {}
        self._model_lies: dict[int, Lies] = {}
        self._pulled: dict[str, int] = {}
        self._unanswered: dict[tuple[str, str], int] = {}
        self._digests = cluster.digests()

    def __str__(self) -> str:
        """Who lies, how and when, every number of it: a line for logs and reports."""
        return (
            f"{', '.join(self.liars)} lie; workers: {described(self._worker_attack)}; "
            f"servers: {described(self._server_attack)}; timing: {self._timing.value}"
        )

    def handle(self, liar: str, event: Event) -> list[Order]:
        """What the liars do about something that one of them met."""
        return self._timed(self._meet(liar, event))

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What the liars do once they know what a correct node said to anybody."""
        return self._timed(self._hear(sender, message))

    def _timed(self, orders: list[Order]) -> list[Order]:
        return flooded(orders) if self._timing is Timing.FLOOD else orders

    def _meet(self, liar: str, event: Event) -> list[Order]:
        match event:
            case PeerConnected(peer):
                # What was published before is lost: asking for it shows where the server stands.
                said: list[Message] = [Hello(0, self._digests)]
                asks = liar in self._workers or self._synchronous
                if asks and peer in self._correct_servers:
                    self._pulled.pop(peer, None)
                    said.append(Pull(max(self._models.newest, 0)))
                return [(liar, Send((peer,), message)) for message in said]
            case Received(peer, Hello(reply=False)):
                hello = Hello(max(self._models.newest, 0), self._digests, reply=True)
                return [(liar, Send((peer,), hello))]
            case Received(peer, Pull(step)) if liar in self._servers:
                return self._keep_up(peer, step) + self._answer(liar, peer, step)
            case Received(peer, Pull(step)) if liar in self._workers:
                return self._repeat(liar, peer, step)
            case Received(peer, message):
                return self._hear(peer, message)
        return []

    def _hear(self, sender: str, message: Message) -> list[Order]:
        match message:
            case Gradient(step, vector) if sender in self._correct_workers:
                orders = self._keep_up(sender, step)
                if self._gradients.note(sender, step, vector) >= self._enough(Role.WORKER):
                    orders += self._lie_as_workers(step, self._gradients.rows(step))
                return orders
            case Model(step, vector) | GatherModel(step, vector) if sender in self._correct_servers:
                return self._see_model(sender, message, step, vector)
        return []

    def _enough(self, role: Role) -> int:
        """How many correct votes of a step the liars wait for."""
        if role is Role.WORKER:
            return min(len(self._correct_workers), self._cluster.worker_quorum)
        return min(len(self._correct_servers), self._cluster.server_quorum)

    # Seeing

    def _see_model(
        self, sender: str, message: Model | GatherModel, step: int, vector: Vector
    ) -> list[Order]:
        fresh = step > self._models.newest
        self._models.note(sender, step, vector)
        orders = self._keep_up(sender, step)
        if fresh:
            self._model = vector
            orders += self._look_ahead(step, vector)
        kind = type(message)
        seen = self._scattered if kind is Model else self._voted
        who = seen.setdefault(step, set())
        enough = sender not in who and len(who) + 1 == self._enough(Role.SERVER)
        who.add(sender)
        _forget(seen)
        if self._timing is not Timing.LATE:
            orders += self._lie_as_servers(step, (Model, GatherModel)) if fresh else []
        elif enough:
            orders += self._lie_as_servers(step, (kind,))
        return orders + self._answer_waiting()

    def _look_ahead(self, step: int, model: Vector) -> list[Order]:
        """Lie as workers at once where gradients need not be seen, or can be computed."""
        if not self._workers or self._worker_attack is None:
            return []
        # Here lies for a step are late once there is a model of the next one.
        of = step - 1 if self._timing is Timing.LATE else step
        if not self._worker_attack.needs_sight:
            rows = self._gradients.rows(self._gradients.newest) or (model,)
        elif self._oracle and not self._servers:
            for worker, gradient in self._oracle(step, model).items():
                self._gradients.note(worker, step, gradient)
            rows = self._gradients.rows(of)
        else:
            return []
        return self._lie_as_workers(of, rows) if of >= 0 and rows else []

    def _keep_up(self, sender: str, step: int) -> list[Order]:
        """Pull models, where they are not published, once somebody is known to be at a step."""
        correct = (*self._correct_workers, *self._correct_servers)
        if not self._synchronous or sender not in correct:
            return []
        # A worker's pull is kept until the server gets there; of a server only what it has is told.
        asker = (*self._workers, *self._servers)[0]
        orders: list[Order] = []
        for server in self._correct_servers:
            wanted = step + 1 if server == sender and self._workers else step
            if wanted > self._pulled.get(server, -1):
                self._pulled[server] = wanted
                orders.append((asker, Send((server,), Pull(wanted))))
        return orders

    # Lying workers

    def _lie_as_workers(self, seen: int, rows: tuple[Vector, ...]) -> list[Order]:
        """Lies for the step that was seen, if it may not be too late, and for the next one."""
        last = seen if self._timing is Timing.LATE else seen + 1
        orders: list[Order] = []
        for step in range(max(self._forged_gradients + 1, seen), last + 1):
            self._forged_gradients = step
            lies = _forge(self._worker_attack, self._view(Role.WORKER, step, rows))
            self._gradient_lies[step] = lies
            _forget(self._gradient_lies)
            orders += [
                (worker, Send((server,), Gradient(step, lie)))
                for server, lie in lies.items()
                if lie is not None
                for worker in self._workers
            ]
        return orders

    def _repeat(self, liar: str, server: str, step: int) -> list[Order]:
        """Say a lie again that was lost, as a worker that is asked does."""
        lie = self._gradient_lies.get(step, {}).get(server)
        return [] if lie is None else [(liar, Send((server,), Gradient(step, lie)))]

    # Lying servers

    def _lie_as_servers(self, seen: int, kinds: tuple[type[Message], ...]) -> list[Order]:
        """Models for workers, where they do not pull them, and votes for servers that gather."""
        late = self._timing is Timing.LATE
        steps = [seen] if late else range(max(self._forged_models + 1, seen), seen + 2)
        orders: list[Order] = []
        for step in steps:
            self._forged_models = max(self._forged_models, step)
            for receiver, lie in self._lies_of(step).items():
                kind = GatherModel if receiver in self._correct_servers else Model
                if lie is None or kind not in kinds:
                    continue
                if step in self._gathers if kind is GatherModel else not self._synchronous:
                    orders += [(s, Send((receiver,), kind(step, lie))) for s in self._servers]
        return orders

    def _lies_of(self, step: int) -> Lies:
        """The lies about the models of a step: forged once, from the newest models known."""
        if step not in self._model_lies:
            rows = self._models.rows(step) or self._models.rows(self._models.newest)
            lies = _forge(self._server_attack, self._view(Role.SERVER, step, rows))
            self._model_lies[step] = lies
            _forget(self._model_lies)
            return lies
        return self._model_lies[step]

    def _answer(self, liar: str, peer: str, step: int) -> list[Order]:
        """Answer a pull with a lie, or once there is one.

        That is the newest, as if it were of the step that was asked for. Who pulls in the
        synchronous variant takes nothing but that step.
        """
        if self._synchronous:
            late = self._timing is Timing.LATE
            told = len(self._scattered.get(step, ()))
            if self._models.newest < 0 or (late and told < self._enough(Role.SERVER)):
                self._unanswered[liar, peer] = step
                return []
            lies = self._lies_of(step)
        else:
            lies = self._model_lies.get(self._forged_models, {})
            step = max(step, self._forged_models)
        # An operator is no receiver of an attack: it is told what the first worker is told.
        lie = lies.get(peer, next(iter(lies.values()), None))
        if lie is None:
            return []
        server = self._cluster.role(peer) is Role.SERVER
        return [(liar, Send((peer,), GatherModel(step, lie) if server else Model(step, lie)))]

    def _answer_waiting(self) -> list[Order]:
        waiting, self._unanswered = self._unanswered, {}
        return [
            order
            for (liar, peer), step in waiting.items()
            for order in self._answer(liar, peer, step)
        ]

    # What they know

    def _view(self, role: Role, step: int, rows: tuple[Vector, ...]) -> View:
        cluster = self._cluster
        workers = role is Role.WORKER
        sight = self._gradients if workers else self._models
        quorum = cluster.worker_quorum if workers else cluster.server_quorum
        if workers and self._synchronous:
            quorum = cluster.n_workers  # Servers wait for all of them.
        seen = min(step, sight.newest)
        flipped = None
        if self._flipped and self._model is not None:
            flipped = partial(self._flipped, step, self._model)
        return View(
            role=role,
            step=step,
            vectors=rows,
            first=sight.first,
            last=sight.last,
            past=lambda age: sight.past(seen - age) if sight.newest >= 0 else mean(rows),
            f=cluster.f_workers if workers else cluster.f_servers,
            count=len(self._workers if workers else self._servers),
            quorum=quorum,
            receivers=self._correct_servers
            if workers
            else self._correct_workers + self._correct_servers,
            seed=(cluster.seed, step, int(workers)),
            selects=self._selected if workers else mda_subset,
            aggregates=partial(self._aggregated, role, step),
            flipped=flipped,
        )

    def _selected(self, vectors: Sequence[Vector], f: int) -> tuple[int, ...]:
        """Which gradients minimum-diameter averaging takes, by their parameters alone."""
        d = len(vectors[0]) - self._buffers
        return mda_subset([vector[:d] for vector in vectors], f)

    def _aggregated(self, role: Role, step: int, vectors: Sequence[Vector], f: int) -> Vector:
        """What the cluster's rule makes of vectors; their mean where it takes no so few."""
        workers = role is Role.WORKER
        names = tuple(f"{place:06d}" for place in range(len(vectors)))
        effect = Aggregate(
            step,
            self._cluster.rule if workers else MODEL_RULE,
            names,
            tuple(vectors),
            f,
            pre_steps=self._cluster.pre_steps if workers else (),
        )
        if workers and self._buffers:
            nothing = np.zeros_like(vectors[0])
            effect = replace(effect, model=nothing, learning_rate=-1.0, buffers=self._buffers)
        try:
            return aggregate(effect).vector
        except AggregationError:
            return mean(vectors)


def _forge(attack: Attack | None, view: View) -> Lies:
    """What each receiver is told; forged once where all are told the same."""
    if attack is None or not view.receivers:
        return {}
    if attack.per_receiver:
        return {receiver: attack.forge(view, receiver) for receiver in view.receivers}
    lie = attack.forge(view, view.receivers[0])
    return dict.fromkeys(view.receivers, lie)


def _forget(steps: MutableMapping[int, Any]) -> None:
    """Keep the last few steps of a mapping."""
    for step in sorted(steps)[: -STEPS_KEPT - 1]:
        del steps[step]
