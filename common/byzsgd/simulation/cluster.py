"""Every node of a cluster in one thread, under a seeded adversarial scheduler.

The nodes are the very state machines that the daemons run, and every message passes through the
wire format, which rounds as the cluster file says. At every event the promises of the protocol are
checked; a broken one tells the story of the node that broke it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Protocol

import numpy as np

from byzsgd.cluster import Cluster, Role, WireType
from byzsgd.errors import WireError
from byzsgd.messages import VECTOR_MESSAGES, Message
from byzsgd.protocol import (
    Aggregate,
    Aggregated,
    ComputeGradient,
    DeadlinePassed,
    Effect,
    Event,
    NewLife,
    Node,
    ParameterServer,
    PeerConnected,
    Publish,
    Received,
    Refuse,
    SaveCheckpoint,
    Send,
    Stop,
    TryModel,
    server_of,
    worker_of,
)
from byzsgd.protocol.work import aggregate, compute_gradient, try_model
from byzsgd.simulation.adversary import Coalition
from byzsgd.simulation.memory import vectors_held
from byzsgd.simulation.network import CALM, Clock, Faults, Network, Timeline, Wall, speaker
from byzsgd.simulation.promises import NoPromises, Promises, digest_of
from byzsgd.simulation.recency import Recency
from byzsgd.simulation.recount import check_result
from byzsgd.tasks import Share, Task, buffers_of
from byzsgd.vectors import Vector
from byzsgd.wire import KIND_OF, Layout, decode, encode

BOOT = bytes(8)

CONNECTING = (0.0, 0.02)
"""Seconds until a connection is made."""

WEIGHED_EVERY = 64
"""Events between two looks at how many vectors a node holds: such a look is slow."""


class BrokenPromiseError(AssertionError):
    """A correct node did what it never may."""

    def __init__(self, identity: str, now: float, why: object, story: Iterable[str] = ()) -> None:
        super().__init__("\n".join((f"{identity} at {now:.3f}: {why}", *story)))
        self.identity = identity
        self.why = str(why)


class Witness(Protocol):
    """Sees all that happens to correct nodes."""

    def starts(self, now: float, node: Node) -> None:
        """A node is about to start, at an instant of its own clock."""

    def meets(self, now: float, identity: str, event: Event) -> None:
        """Something is about to happen to a node, at an instant of its own clock."""

    def computed(self, identity: str, gradient: Vector) -> None:
        """A node's task gave it a gradient, without momentum."""


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
        liars_first: bool = True,
        checkpoint_period: int = 0,
        work: Callable[[Aggregate], Aggregated] = aggregate,
        checked: bool = True,
        witness: Witness | None = None,
    ) -> None:
        """Build every node.

        Args:
            cluster: The cluster; its public keys are not needed.
            task: What to learn.
            seed: Decides every delay, loss and crash.
            faults: What network and machines do.
            liars: The coalition that plays the Byzantine nodes; None where all are correct.
            liars_first: Whether Byzantine messages arrive before all others.
            checkpoint_period: Steps between two checkpoints of a server; 0 for none.
            work: How votes are aggregated: for baselines that do it otherwise than a correct node.
            checked: Whether the promises are checked; not where ``work`` breaks them, nor where
                a training shall go on that a lie has broken.
            witness: Sees every event.
        """
        self.cluster = cluster
        self.task = task
        self.timeline = Timeline()
        self.refused: Counter[tuple[str, str]] = Counter()
        """Refusals by peer and reason, of all correct nodes."""
        self.drops: Counter[str] = Counter()
        """Messages that were none, by reason: of liars, and where unchecked of broken nodes."""
        self.messages: Counter[str] = Counter()
        """Messages on their way to a receiver, by kind."""
        self.bytes: Counter[str] = Counter()
        """Bytes of these messages."""
        self.crashes = 0
        self._work = work
        self._checked = checked
        self._witness = witness
        self._events = 0
        self._clocks: dict[str, Clock] = {}
        self._rng = np.random.default_rng(seed)
        self._network = Network(self.timeline, faults, self._rng)
        self._faults = faults
        self._liars = liars
        self._lying = liars.liars if liars else ()
        self._liars_first = liars_first
        self._checkpoint_period = checkpoint_period
        self._roles = {node.id: node.role for node in cluster.nodes}
        self._theta_0 = task.initial(cluster.seed)
        self._buffers = buffers_of(task)
        self._checkpoints: dict[str, tuple[int, Vector]] = {}
        self._sources = {
            worker: task.source(
                Share(worker, index, cluster.n_workers, cluster.seed, cluster.batch_size)
            )
            for index, worker in enumerate(cluster.workers)
        }
        self._lives: Counter[str] = Counter()
        self._down: set[str] = set()
        self._alarms: dict[str, tuple[int, float]] = {}
        self._promises = (Promises if checked else NoPromises)(cluster, self._lying)
        self._recency = Recency()
        self.nodes: dict[str, Node] = {}
        """The correct nodes by identity; one that is down is as it was when it went down."""
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

    def run(self, *, seconds: float = 3600.0) -> None:
        """Let things happen until every correct server has reached the last step.

        Raises:
            AssertionError: If a promise is broken, or if so much virtual time did not suffice.
        """
        servers = list(self.servers)
        ended = self.run_until(lambda: all(self.nodes[s].done for s in servers), seconds=seconds)
        assert ended, f"no end after {seconds:g} s: {self.standstill()}"

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

    def crash(self, identity: str, down: float, *, disk: bool = True) -> None:
        """Kill a node now; it starts again after ``down`` seconds.

        Args:
            identity: A correct node.
            down: Seconds until it starts again.
            disk: Whether its checkpoint is still there; if not, it starts from theta_0.
        """
        self.crashes += 1
        if not disk:
            self._checkpoints.pop(identity, None)
        self._lives[identity] += 1
        self._down.add(identity)
        life = self._lives[identity]

        def restart() -> None:
            if self._lives[identity] != life:
                return  # Killed once more while it was down.
            self._boot(identity)
            if self.cluster.role(identity) is Role.SERVER:
                for peer in (*self.nodes, *self._lying):
                    if peer != identity:
                        self._later(peer, PeerConnected(identity), CONNECTING)

        self.timeline.at(self.timeline.now + down, restart)

    def power_cut(self, down: float, *, disk: bool = True, saved: Collection[str] = ()) -> None:
        """Kill all correct nodes at once; they start again after ``down`` seconds.

        Args:
            down: Seconds until they start again.
            disk: Whether their checkpoints are still there.
            saved: Servers that save their model in the last moment, as who is stopped in time does.
        """
        for identity, node in self.nodes.items():
            self.crash(identity, down, disk=disk)
            if identity in saved and (last := node.checkpoint()):
                self._checkpoints[identity] = (last.step, last.vector)

    def split(self, group: Collection[str], seconds: float, *, one_way: bool = False) -> None:
        """Keep some nodes and all others apart for a while: what they send to each other is lost.

        Args:
            group: Those who are kept apart.
            seconds: For how long. Then messages get through again, and no connection is new.
            one_way: Whether those of the group still hear the others.
        """
        wall = Wall(frozenset(group), self.timeline.now + seconds, one_way)
        self._network.walls.append(wall)

    def slow(self, identity: str, factor: float, seconds: float) -> None:
        """For a while let all that a node sends, receives and computes take longer."""
        self._network.slowness[identity] = factor

        def recover() -> None:
            self._network.slowness.pop(identity, None)

        self.timeline.at(self.timeline.now + seconds, recover)

    def cut(self, seconds: float) -> None:
        """Lose whatever is sent in the next seconds; then everybody connects anew."""
        self._network.cut_until = self.timeline.now + seconds

        def heal() -> None:
            for identity in (*self.nodes, *self._lying):
                self._connect(identity)

        self.timeline.at(self._network.cut_until, heal)

    # Nodes

    def _boot(self, identity: str) -> None:
        """Start a node; a server from its last checkpoint, if it has one."""
        node: Node
        if self.cluster.role(identity) is Role.SERVER:
            step, vector = self._checkpoints.get(identity, (0, self._theta_0))
            node = server_of(
                self.cluster,
                identity,
                vector,
                step=step,
                checkpoint_period=self._checkpoint_period,
                buffers=self._buffers,
            )
            self._promises.starts(identity, step, vector)
        else:
            node = worker_of(self.cluster, identity, buffers=self._buffers)
            self._promises.starts(identity)
        self.nodes[identity] = node
        self._down.discard(identity)
        self._clocks[identity] = self._some_clock()
        if self._witness:
            self._witness.starts(self._clock(identity), node)
        self._perform(identity, node.start(self._clock(identity)))
        self._connect(identity)

    def _some_clock(self) -> Clock:
        """A node's clock: of the right rate, unless the faults say otherwise."""
        slowest, fastest = self._faults.clock_rates
        if slowest == fastest == 1:
            return Clock(0.0, 1.0)
        return Clock(self._rng.uniform(0, 1e6), self._rng.uniform(slowest, fastest))

    def _clock(self, identity: str) -> float:
        """What a node's own clock shows now."""
        return self._clocks[identity].read(self.timeline.now)

    def _connect(self, identity: str) -> None:
        """Connect a node to every server, as all nodes do when they start."""
        for server in self.cluster.servers:
            if server != identity:
                self._later(identity, PeerConnected(server), CONNECTING)

    def _later(self, identity: str, event: Event, within: tuple[float, float]) -> None:
        """Hand an event to a node soon, if it lives the same life then."""
        slowness = self._network.slowness.get(identity, 1.0)
        when = self.timeline.now + self._rng.uniform(*within) * slowness
        self.timeline.at(when, self._delivery(identity, event))

    def _delivery(
        self, identity: str, event: Event, sender: str = "", digest: bytes = b""
    ) -> Callable[[], None]:
        """Hands an event to a node, if it is up then and still lives the life it lives now."""
        life = self._lives[identity]

        def deliver() -> None:
            if self._lives[identity] == life and identity not in self._down:
                if isinstance(event, Received) and digest:
                    self._promises.told(identity, sender, event.message, digest)
                    if identity in self.nodes:
                        self._recency.told(identity, sender, digest, self._clock(identity))
                self._meet(identity, event)

        return deliver

    def _meet(self, identity: str, event: Event) -> None:
        if identity in self._lying:
            if self._liars:
                for liar, effect in self._liars.handle(identity, event):
                    self._perform(liar, [effect])
            return
        node, now = self.nodes[identity], self._clock(identity)
        if isinstance(event, DeadlinePassed):
            now = max(now, node.deadline)  # Whatever the clock's rate has rounded.
        if self._witness:
            self._witness.meets(now, identity, event)
        self._events += 1
        try:
            effects = node.handle(event, now)
            if self._checked:
                node.validate()
                if self._events % WEIGHED_EVERY == 0:
                    self._promises.holds(identity, vectors_held(node))
            self._perform(identity, effects)
        except BrokenPromiseError:
            raise
        except AssertionError as broken:
            story = node.trace.story()[-20:]
            raise BrokenPromiseError(identity, self.timeline.now, broken, story) from broken

    def _alarm(self, identity: str) -> None:
        """Hand in the deadline once the clock gets there, unless it has moved by then."""
        node = self.nodes[identity]
        alarm = (self._lives[identity], node.deadline)
        if node.deadline == inf or self._alarms.get(identity) == alarm:
            return
        self._alarms[identity] = alarm

        def ring() -> None:
            if (self._lives[identity], node.deadline) == alarm:
                self._meet(identity, DeadlinePassed())

        self.timeline.at(self._clocks[identity].when(node.deadline), ring)

    def _plan_crash(self) -> None:
        def crash() -> None:
            if self.timeline.now > self._faults.crash_until:
                return
            up = [
                identity
                for identity, node in sorted(self.nodes.items())
                if not node.done and identity not in self._down
            ]
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
                    result = self._work(effect)
                    self._promises.aggregated(identity, effect, result.vector)
                    if self._checked:
                        self._recency.adopts(self.nodes[identity], effect, self._clock(identity))
                        check_result(effect, result)
                    self._later(identity, result, self._faults.work)
                case ComputeGradient():
                    computed = compute_gradient(effect, self._gradient_of(identity))
                    self._promises.computed(identity, effect, computed.vector)
                    self._later(identity, computed, self._faults.work)
                case TryModel():
                    self._promises.tried(identity, effect)
                    tried = try_model(effect, self._gradient_of(identity))
                    if tried.vector is not None:
                        self._promises.computed(identity, effect, tried.vector)
                    self._later(identity, tried, self._faults.work)
                case SaveCheckpoint(step, vector):
                    self._promises.saved(identity, effect)
                    self._checkpoints[identity] = (step, vector)
                case NewLife():
                    self._promises.new_life(identity, self.nodes[identity].step)
                case Refuse(peer, _, reason):
                    self.refused[peer, reason.value] += 1
                case Stop(sentence):
                    raise AssertionError(f"{identity} stops: {sentence}")
        if identity in self.nodes:
            self._alarm(identity)

    def _gradient_of(self, identity: str) -> Callable[[Vector, int], tuple[Vector, float]]:
        """A worker's task, whose gradients the promises are told before momentum changes them."""

        def gradient(vector: Vector, step: int) -> tuple[Vector, float]:
            fresh, loss = self._sources[identity].gradient(vector, step)
            self._promises.drawn(identity, fresh)
            if self._witness:
                self._witness.computed(identity, fresh.copy())
            return fresh, loss

        return gradient

    def _carry(self, sender: str, peers: Iterable[str], message: Message) -> None:
        groups: dict[WireType, list[str]] = {}
        for peer in peers:
            between = self.cluster.wire_type_between(self._roles[sender], self._roles[peer])
            groups.setdefault(between, []).append(peer)
        for wire_type, group in groups.items():
            layout = Layout(len(self._theta_0), wire_type, self._buffers)
            self._carry_as(layout, sender, group, message)

    def _carry_as(
        self, layout: Layout, sender: str, peers: Sequence[str], message: Message
    ) -> None:
        lies, said = sender in self._lying, message
        frames = encode(message, BOOT, layout)
        try:
            message = decode(frames, layout).message
        except WireError as broken:
            if self._checked and not lies:
                raise AssertionError(f"{sender} sent no message: {broken}") from broken
            self.drops[broken.reason] += 1
            return
        kind = KIND_OF[type(message)].value
        self.messages[kind] += len(peers)
        self.bytes[kind] += len(peers) * sum(map(len, frames))
        digest = b""
        if self._checked and isinstance(message, VECTOR_MESSAGES):
            digest = digest_of(message.vector)
        if not lies:
            if digest and layout.rounded and isinstance(said, VECTOR_MESSAGES):
                # What a node knows of its own words is not rounded.
                self._promises.said(sender, said, digest_of(said.vector))
            else:
                self._promises.said(sender, message, digest)
            for liar, effect in self._liars.overhear(sender, message) if self._liars else ():
                self._perform(liar, [effect])
        event = Received(speaker(sender, self._routing_id(sender)), message)
        for peer in peers:
            deliver = self._delivery(peer, event, sender, digest)
            self._network.carry(sender, peer, deliver, at_once=lies and self._liars_first)

    def _routing_id(self, sender: str) -> str:
        """What a sender calls itself: liars take the name of a correct node of their role."""
        if sender not in self._lying:
            return sender
        server = self.cluster.role(sender) is Role.SERVER
        named = self.cluster.servers if server else self.cluster.workers
        return next(identity for identity in named if identity not in self._lying)

    def standstill(self) -> str:
        """Whom every correct node waits for, in words."""
        return "; ".join(
            f"{i} {node.sentence(self._clock(i))}" for i, node in sorted(self.nodes.items())
        )


def without_keys(mapping: Mapping[str, object], **changes: object) -> Cluster:
    """A cluster for a simulation: checked like any other, but without public keys."""
    return Cluster.from_mapping({**mapping, **changes}, keys=False)
