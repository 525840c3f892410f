"""Every node of a cluster in one thread, under a seeded adversarial scheduler.

The nodes are the very state machines that the daemons run, and every message passes through the
wire format. At every event the promises of the protocol are checked; a broken one tells the story
of the node that broke it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from byzsgd.cluster import Cluster, Role
from byzsgd.errors import WireError
from byzsgd.messages import GatherModel, Gradient, Message, Model
from byzsgd.protocol import (
    Aggregate,
    ComputeGradient,
    DeadlinePassed,
    Effect,
    Event,
    Node,
    ParameterServer,
    PeerConnected,
    Publish,
    Received,
    Refuse,
    SaveCheckpoint,
    Send,
    Stop,
    Worker,
)
from byzsgd.protocol.work import aggregate, compute_gradient
from byzsgd.simulation.adversary import Coalition
from byzsgd.simulation.network import CALM, Faults, Network, Timeline
from byzsgd.tasks import Share, Task
from byzsgd.vectors import Vector
from byzsgd.wire import decode, encode

BOOT = bytes(8)


class Simulation:
    """A cluster in memory; ``run`` it, then look at ``nodes`` and what was counted."""

    def __init__(
        self,
        cluster: Cluster,
        task: Task,
        *,
        seed: int,
        faults: Faults = CALM,
        liars: Coalition | None = None,
        lying: Iterable[str] = (),
        liars_first: bool = True,
        checkpoint_period: int = 0,
    ) -> None:
        """Build every node.

        Args:
            cluster: The cluster; its public keys are not needed.
            task: What to learn.
            seed: Decides every delay, loss and crash.
            faults: What network and machines do.
            liars: The coalition that plays the nodes in ``lying``.
            lying: Identities of the Byzantine nodes.
            liars_first: Whether Byzantine messages arrive before all others.
            checkpoint_period: Steps between two checkpoints of a server; 0 for none.
        """
        self.cluster = cluster
        self.task = task
        self.timeline = Timeline()
        self.refused: Counter[tuple[str, str]] = Counter()
        """Refusals by peer and reason, of all correct nodes."""
        self.drops: Counter[str] = Counter()
        """Messages of liars that were no messages, by reason."""
        self.crashes = 0
        self._rng = np.random.default_rng(seed)
        self._network = Network(self.timeline, faults, self._rng)
        self._faults = faults
        self._liars, self._lying = liars, frozenset(lying)
        self._liars_first = liars_first
        self._checkpoint_period = checkpoint_period
        self._theta_0 = task.initial(cluster.seed)
        self._checkpoints: dict[str, tuple[int, Vector]] = {}
        self._sources = {
            worker: task.source(
                Share(worker, index, cluster.n_workers, cluster.seed, cluster.batch_size)
            )
            for index, worker in enumerate(cluster.workers)
        }
        self._lives: Counter[str] = Counter()
        self._sent: dict[tuple[str, str, int], set[bytes]] = {}
        self._contracted: dict[object, bytes] = {}
        self.nodes: dict[str, Node] = {}
        """The correct nodes by identity."""
        for identity in (*cluster.servers, *cluster.workers):
            if identity not in self._lying:
                self._boot(identity)
        for identity in self._lying:
            self._connect(identity)
        if faults.crash_every:
            self._plan_crash()

    @property
    def servers(self) -> dict[str, ParameterServer]:
        """The correct servers by identity."""
        return {i: node for i, node in self.nodes.items() if isinstance(node, ParameterServer)}

    def run(self, *, events_max: int = 2_000_000) -> None:
        """Let things happen until every correct server has reached the last step.

        Raises:
            AssertionError: If a promise is broken, or if ``events_max`` events did not suffice.
        """
        for _ in range(events_max):
            if all(server.done for server in self.servers.values()):
                return
            assert self.timeline.advance(), "nothing is left to happen: " + self._standstill()
        raise AssertionError(f"no end after {events_max} events: " + self._standstill())

    def run_until(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Let things happen until a condition holds; False if virtual time ran out before."""
        end = self.timeline.now + seconds
        while not condition():
            if self.timeline.now > end or not self.timeline.advance():
                return False
        return True

    def accuracies(self) -> dict[str, float]:
        """Accuracy of each correct server's model, a fraction."""
        return {i: self.task.accuracy(server.vector) for i, server in self.servers.items()}

    def crash(self, identity: str, down: float) -> None:
        """Kill a node now; it starts again after ``down`` seconds, from its checkpoint."""
        self.crashes += 1
        self._lives[identity] += 1
        life = self._lives[identity]
        self.timeline.at(
            self.timeline.now + down,
            lambda: self._boot(identity) if self._lives[identity] == life else None,
        )

    # Nodes

    def _boot(self, identity: str) -> None:
        node: Node
        if self.cluster.role(identity) is Role.SERVER:
            step, vector = self._checkpoints.get(identity, (0, self._theta_0))
            node = ParameterServer(
                identity,
                self.cluster,
                vector,
                step=step,
                checkpoint_period=self._checkpoint_period,
            )
        else:
            node = Worker(identity, self.cluster)
        self.nodes[identity] = node
        self._perform(identity, node.start(self.timeline.now))
        self._connect(identity)
        if isinstance(node, ParameterServer):
            for peer in (*self.nodes, *self._lying):
                if peer != identity:
                    self._later(peer, PeerConnected(identity))

    def _connect(self, identity: str) -> None:
        for server in self.cluster.servers:
            if server != identity:
                self._later(identity, PeerConnected(server))

    def _later(
        self, identity: str, event: Event, within: tuple[float, float] = (0.0, 0.02)
    ) -> None:
        """Hand an event to a node soon, if it lives the same life then."""
        when = self.timeline.now + self._rng.uniform(*within)
        self.timeline.at(when, self._delivery(identity, event))

    def _meet(self, identity: str, event: Event) -> None:
        now = self.timeline.now
        if identity in self._lying:
            if self._liars:
                for liar, effect in self._liars.handle(identity, event):
                    self._perform(liar, [effect])
            return
        node = self.nodes[identity]
        try:
            effects = node.handle(event, now)
            node.validate()
            self._perform(identity, effects)
        except AssertionError as broken:
            story = "\n".join(node.trace.story()[-20:])
            raise AssertionError(f"{identity} at {now:.3f}: {broken}\n{story}") from broken

    def _alarm(self, identity: str) -> None:
        """Hand in the deadline once the clock gets there; a deadline that moved is set anew."""
        node, life, deadline = self.nodes[identity], self._lives[identity], 0.0
        deadline = node.deadline
        if deadline == float("inf"):
            return

        def ring() -> None:
            if self._lives[identity] == life and node.deadline == deadline:
                self._meet(identity, DeadlinePassed())

        self.timeline.at(deadline, ring)

    def _plan_crash(self) -> None:
        def crash() -> None:
            up = [i for i in sorted(self.nodes) if not getattr(self.nodes[i], "done", False)]
            if up:
                self.crash(up[self._rng.integers(len(up))], self._rng.uniform(*self._faults.down))
            self._plan_crash()

        self.timeline.at(self.timeline.now + self._rng.exponential(self._faults.crash_every), crash)

    # Effects

    def _perform(self, identity: str, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peers, message):
                    self._carry(identity, peers, message)
                case Publish(message):
                    self._carry(identity, self.cluster.workers, message)
                case Aggregate():
                    self._check_votes(identity, effect)
                    result = aggregate(effect)
                    self._check_result(effect, result.vector)
                    self._later(identity, result, self._faults.work)
                case ComputeGradient(step=step):
                    computed = compute_gradient(effect, self._sources[identity].gradient)
                    assert computed.step == step
                    self._later(identity, computed, self._faults.work)
                case SaveCheckpoint(step, vector):
                    self._checkpoints[identity] = (step, vector)
                case Refuse(peer, _, reason):
                    self.refused[peer, reason.value] += 1
                case Stop(sentence):
                    raise AssertionError(f"{identity} stops: {sentence}")
        if identity in self.nodes:
            self._alarm(identity)

    def _carry(self, sender: str, peers: Iterable[str], message: Message) -> None:
        lies = sender in self._lying
        try:
            message = decode(encode(message, BOOT), len(self._theta_0)).message
        except WireError as broken:
            if not lies:
                raise AssertionError(f"{sender} sent no message: {broken}") from broken
            self.drops[broken.reason] += 1
            return
        if isinstance(message, Model | GatherModel | Gradient):
            key = (sender, type(message).__name__, message.step)
            self._sent.setdefault(key, set()).add(message.vector.tobytes())
        if not lies and self._liars:
            for liar, effect in self._liars.overhear(sender, message):
                self._perform(liar, [effect])
        event = Received(sender, message)
        for peer in peers:
            self._network.carry(self._delivery(peer, event), at_once=lies and self._liars_first)

    def _delivery(self, peer: str, event: Event) -> Callable[[], None]:
        """Hands an event to a peer, if it still lives the life it lives now."""
        life = self._lives[peer]

        def deliver() -> None:
            if self._lives[peer] == life:
                self._meet(peer, event)

        return deliver

    # Promises

    def _check_votes(self, identity: str, effect: Aggregate) -> None:
        """No invalid, double or foreign vote counts."""
        who = effect.identities
        assert len(set(who)) == len(who) == len(effect.vectors), f"double vote: {who}"
        assert tuple(sorted(who)) == who, f"votes out of order: {who}"
        update = effect.model is not None
        role, kinds = (
            (Role.WORKER, ["Gradient"]) if update else (Role.SERVER, ["Model", "GatherModel"])
        )
        quorum = self.cluster.worker_quorum if update else self.cluster.server_quorum
        assert len(who) == quorum, f"{len(who)} votes, not {quorum}"
        catches_up = not update and effect.own is None and identity in self.cluster.servers
        for voter, vector in zip(who, effect.vectors, strict=True):
            assert self.cluster.role(voter) is role, f"foreign vote of {voter}"
            assert bool(np.isfinite(vector).all()), f"invalid vote of {voter}"
            if catches_up or voter == identity:
                continue
            said = [self._sent.get((voter, kind, effect.step), set()) for kind in kinds]
            assert any(vector.tobytes() in s for s in said), f"{voter} never said that"

    def _check_result(self, effect: Aggregate, result: Vector) -> None:
        """Medians of models lie within the correct ones, and equal quorums agree bit for bit."""
        if effect.model is None:
            correct = [
                vector
                for voter, vector in zip(effect.identities, effect.vectors, strict=True)
                if voter not in self._lying
            ]
            assert bool((np.min(correct, axis=0) <= result).all()), "below every correct model"
            assert bool((result <= np.max(correct, axis=0)).all()), "above every correct model"
        inputs = (
            effect.step,
            effect.identities,
            tuple(hash(vector.tobytes()) for vector in effect.vectors),
            None if effect.model is None else hash(effect.model.tobytes()),
        )
        known = self._contracted.setdefault(inputs, result.tobytes())
        assert known == result.tobytes(), "equal quorums, different results"

    def _standstill(self) -> str:
        now = self.timeline.now
        return "; ".join(f"{i} {node.sentence(now)}" for i, node in sorted(self.nodes.items()))


def without_keys(mapping: Mapping[str, object], **changes: object) -> Cluster:
    """A cluster for a simulation: checked like any other, but without public keys."""
    return Cluster.from_mapping({**mapping, **changes}, keys=False)
