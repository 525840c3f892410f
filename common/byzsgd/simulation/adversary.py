"""The liars of one cluster, as one state machine: they share all that any of them sees.

What they cannot do is forge a correct node's identity. What they do at the right moment matters as
much as what they say: a quorum takes the first votes, so the liars cast theirs for the next step
as soon as they know the current one.
"""

from collections.abc import Callable, Mapping, Sequence

from byzsgd.aggregation import mda_subset
from byzsgd.attacks import Attack, View
from byzsgd.cluster import Cluster, Role
from byzsgd.messages import GatherModel, Gradient, Hello, Message, Model, Pull
from byzsgd.protocol import Effect, Event, PeerConnected, Received, Send
from byzsgd.protocol.schedule import Gathers
from byzsgd.vectors import Vector

STEPS_KEPT = 3
"""Steps of correct nodes' vectors that the liars remember, besides the first."""

Order = tuple[str, Effect]
"""Which liar is to do what."""

Oracle = Callable[[int, Vector], Mapping[str, Vector]]
"""What the correct workers would send at a step and model: for liars whom no server's eyes help."""


class _Seen:
    """Correct nodes' vectors of the last few steps, and of the first."""

    def __init__(self) -> None:
        self.first: tuple[Vector, ...] = ()
        self.newest = -1
        self._steps: dict[int, dict[str, Vector]] = {}

    def note(self, identity: str, step: int, vector: Vector) -> int:
        """Remember a vector; how many of its step are known now, 0 if that is too long ago."""
        if step <= self.newest - STEPS_KEPT:
            return 0
        votes = self._steps.setdefault(step, {})
        votes.setdefault(identity, vector)
        self.newest = max(self.newest, step)
        for old in [s for s in self._steps if s <= self.newest - STEPS_KEPT]:
            del self._steps[old]
        return len(votes)

    def rows(self, step: int) -> tuple[Vector, ...]:
        """The vectors of a step, ordered by identity."""
        votes = self._steps.get(step, {})
        rows = tuple(votes[identity] for identity in sorted(votes))
        self.first = self.first or rows
        return rows


class Coalition:
    """All liars of a cluster: ``handle`` takes what one of them meets, and orders all of them."""

    def __init__(
        self,
        cluster: Cluster,
        liars: Sequence[str],
        *,
        worker_attack: Attack | None = None,
        server_attack: Attack | None = None,
        gather_period: int | None = None,
        oracle: Oracle | None = None,
    ) -> None:
        """Gather liars of either role.

        Args:
            cluster: The cluster that they belong to.
            liars: Their identities.
            worker_attack: What lying workers say; None for silence.
            server_attack: What lying servers say; None for silence.
            gather_period: T, where the cluster file says "auto".
            oracle: Where no server lies, the gradients that correct workers would send.
        """
        period = cluster.gather_period if gather_period is None else gather_period
        assert isinstance(period, int)
        self.liars = tuple(sorted(liars))
        """The identities of all liars."""
        self._cluster = cluster
        self._workers = tuple(w for w in cluster.workers if w in liars)
        self._servers = tuple(s for s in cluster.servers if s in liars)
        self._correct_workers = tuple(w for w in cluster.workers if w not in liars)
        self._correct_servers = tuple(s for s in cluster.servers if s not in liars)
        self._worker_attack, self._server_attack = worker_attack, server_attack
        self._gathers = Gathers(period, cluster.n_servers)
        self._oracle = oracle
        self._gradients, self._models = _Seen(), _Seen()
        self._forged_gradients = self._forged_models = -1
        self._lies: dict[str, Vector | None] = {}
        self._gradient_lies: dict[int, dict[str, Vector | None]] = {}
        self._digests = cluster.digests()

    def handle(self, liar: str, event: Event) -> list[Order]:
        """What the liars do about something that one of them met."""
        match event:
            case PeerConnected(peer):
                # What was published before is lost: asking for it shows where the server stands.
                said: list[Message] = [Hello(0, self._digests)]
                if liar in self._workers:
                    said.append(Pull(max(self._models.newest, 0)))
                return [(liar, Send((peer,), message)) for message in said]
            case Received(peer, Hello(reply=False)):
                hello = Hello(max(self._models.newest, 0), self._digests, reply=True)
                return [(liar, Send((peer,), hello))]
            case Received(peer, Pull(step)) if liar in self._servers:
                return self._answer(liar, peer, step)
            case Received(peer, Pull(step)) if liar in self._workers:
                return self._repeat(liar, peer, step)
            case Received(peer, message):
                return self.overhear(peer, message)
        return []

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What the liars do once they know what a correct node said to anybody."""
        match message:
            case Gradient(step, vector) if sender in self._correct_workers:
                if self._gradients.note(sender, step, vector) < self._enough():
                    return []
                return self._forge_gradients(step)
            case Model(step, vector) | GatherModel(step, vector) if sender in self._correct_servers:
                fresh = step > self._models.newest
                self._models.note(sender, step, vector)
                if not fresh:
                    return []
                orders = self._forge_models(step)
                if self._oracle and not self._servers and self._workers:
                    for worker, gradient in self._oracle(step, vector).items():
                        self._gradients.note(worker, step, gradient)
                    orders += self._forge_gradients(step)
                return orders
        return []

    def _enough(self) -> int:
        return min(len(self._correct_workers), self._cluster.worker_quorum)

    def _forge_gradients(self, seen: int) -> list[Order]:
        """Lies for the step that was seen, if it may not be too late, and for the next one."""
        rows = self._gradients.rows(seen)
        orders: list[Order] = []
        for step in range(max(self._forged_gradients + 1, seen), seen + 2):
            self._forged_gradients = step
            view = self._view(Role.WORKER, step, rows, self._gradients.first)
            lies = self._gradient_lies[step] = _forge(self._worker_attack, view)
            self._gradient_lies.pop(step - STEPS_KEPT, None)
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

    def _forge_models(self, seen: int) -> list[Order]:
        rows = self._models.rows(seen)
        orders: list[Order] = []
        for step in range(max(self._forged_models + 1, seen), seen + 2):
            self._forged_models = step
            view = self._view(Role.SERVER, step, rows, self._models.first)
            self._lies = _forge(self._server_attack, view)
            for receiver, lie in self._lies.items():
                if lie is None:
                    continue
                kind = GatherModel if receiver in self._correct_servers else Model
                if kind is Model or step in self._gathers:
                    orders += [(s, Send((receiver,), kind(step, lie))) for s in self._servers]
        return orders

    def _answer(self, liar: str, peer: str, step: int) -> list[Order]:
        """Answer a pull with the newest lie, as if it were of the step that was asked for."""
        # An operator is no receiver of an attack: it is told what the first worker is told.
        lie = self._lies.get(peer, next(iter(self._lies.values()), None))
        if lie is None:
            return []
        step = max(step, self._forged_models)
        server = self._cluster.role(peer) is Role.SERVER
        return [(liar, Send((peer,), GatherModel(step, lie) if server else Model(step, lie)))]

    def _view(
        self, role: Role, step: int, rows: tuple[Vector, ...], first: tuple[Vector, ...]
    ) -> View:
        cluster = self._cluster
        workers = role is Role.WORKER
        return View(
            role=role,
            step=step,
            vectors=rows,
            first=first,
            f=cluster.f_workers if workers else cluster.f_servers,
            count=len(self._workers if workers else self._servers),
            quorum=cluster.worker_quorum if workers else cluster.server_quorum,
            receivers=self._correct_servers
            if workers
            else self._correct_workers + self._correct_servers,
            seed=(cluster.seed, step, int(workers)),
            selects=mda_subset,
        )


def _forge(attack: Attack | None, view: View) -> dict[str, Vector | None]:
    """What each receiver is told; forged once where all are told the same."""
    if attack is None:
        return {}
    if attack.per_receiver:
        return {receiver: attack.forge(view, receiver) for receiver in view.receivers}
    lie = attack.forge(view, view.receivers[0])
    return dict.fromkeys(view.receivers, lie)
