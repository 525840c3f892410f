"""What no correct node may ever do, checked whenever one speaks or aggregates.

Nothing here knows how a node keeps its promises: it looks at what nodes were told, what they say
and what they compute.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from math import isclose

import numpy as np

from byzsgd.aggregation import compose
from byzsgd.cluster import KEPT_MAX, Cluster, Variant
from byzsgd.messages import GatherModel, Gradient, Message, Model
from byzsgd.protocol import Aggregate, ComputeGradient, SaveCheckpoint, TryModel
from byzsgd.protocol.effects import MODEL_RULE
from byzsgd.protocol.window import WINDOW_STEPS
from byzsgd.vectors import Vector

Kind = type[Message] | type[SaveCheckpoint]
"""What a node came to something as."""

START = SaveCheckpoint
"""The kind of what a server's update starts from, which is also what it saves."""

Votes = list[tuple[str, bytes]]
"""Who voted, sorted, and the digest of each vote."""


def digest_of(vector: Vector) -> bytes:
    """Bytes that stand for a vector: equal for equal bits."""
    return hashlib.sha256(vector.data).digest()


class Promises:
    """What the correct nodes of a cluster were told; it raises once a promise is broken."""

    def __init__(self, cluster: Cluster, liars: Collection[str]) -> None:
        self._cluster = cluster
        self._servers, self._workers = cluster.servers, cluster.workers
        self._liars = liars
        self._told: dict[str, dict[tuple[str, type[Message], int], list[bytes]]] = {}
        self._order: dict[tuple[str, str, type[Message]], list[int]] = {}
        # What a node came to: the model that a server scatters at a step or a worker takes its
        # gradient at, a server's vote in a gather, and what its update starts from.
        self._own: dict[str, dict[tuple[Kind, int], bytes]] = {}
        self._restarts = False
        self._results: dict[tuple[object, ...], bytes] = {}
        self._reached = 0
        self._lives: dict[str, Life] = {}

    def starts(self, identity: str, step: int = 0, vector: Vector | None = None) -> None:
        """A correct node starts, or starts again and has forgotten all; a server with a model."""
        self._restarts |= identity in self._told
        self._told[identity] = {}
        self._own[identity] = {}
        self._lives[identity] = Life(step)
        if vector is not None:
            self._comes_to(identity, step, digest_of(vector))

    def new_life(self, identity: str, step: int) -> None:
        """A correct server goes back to an earlier step, and says that its life begins anew.

        The gradients that it was told before must not count in it.

        Raises:
            AssertionError: If the step is no earlier one.
        """
        own = self._own[identity]
        last = max(self._lives[identity].step, *(at for _, at in own))
        assert step < last, f"a new life at step {step}, not before that of {last}"
        self._lives[identity] = Life(step)
        self._own[identity] = {key: digest for key, digest in own.items() if key[1] <= step}
        told = self._told[identity].items()
        self._told[identity] = {key: known for key, known in told if key[1] is not Gradient}

    def told(self, identity: str, sender: str, message: Message, digest: bytes) -> None:
        """A node is told a vector."""
        if identity in self._told:
            key = (sender, type(message), message.step)
            known = self._told[identity].setdefault(key, [])
            if digest not in known:
                known.append(digest)
            self._order.setdefault((identity, sender, type(message)), []).append(message.step)

    def said(self, identity: str, message: Message, digest: bytes) -> None:
        """A correct node speaks.

        Raises:
            AssertionError: If a server scatters or votes for a model that is not what it came to
                at that step; if it votes where nobody gathers, says two things of one step, or
                sends a model of an earlier step than before in this life; if a worker sends what it
                did not compute.
        """
        if digest:
            self.told(identity, identity, message, digest)
        if identity in self._servers:
            self._reached = max(self._reached, message.step)
        if digest:
            self._check_life(identity, message, digest)

    def aggregated(self, identity: str, effect: Aggregate, result: Vector) -> None:
        """A correct node aggregates votes.

        Raises:
            AssertionError: If the votes are no quorum of what the node was told, one vote an
                identity; if an update is not the one that the cluster file asks for; if a median
                of models lies outside the correct ones in any coordinate; if two nodes compute
                different vectors from equal votes.
        """
        votes = self._checked_votes(identity, effect)
        digest, own, model = digest_of(result), self._own[identity], None
        if effect.model is not None:
            model = digest_of(effect.model)
            right = model == own.get((START, effect.step))
            assert right, f"the model of step {effect.step} was another one"
            self._check_told(identity, votes, Gradient, effect.step)
            self._check_update(effect)
            self._comes_to(identity, effect.step + 1, digest)
            if self._is_gather(effect.step + 1):
                # Until it is contracted it is a vote, and where gathers overlap what is scattered.
                del own[START, effect.step + 1]
                if not self._cluster.overlapped_gather:
                    del own[Model, effect.step + 1]
        elif effect.own is not None:
            assert self._is_gather(effect.step), f"no gather belongs to step {effect.step}"
            assert identity == effect.own, f"a gather of {effect.own}"
            vote = own.get((GatherModel, effect.step))
            assert (identity, vote) in votes, "a gather without the own model"
            own[START, effect.step] = digest
            if not self._cluster.overlapped_gather:
                own[Model, effect.step] = digest
            self._check_told(identity, votes, GatherModel, effect.step)
        elif identity in self._workers:
            self._check_told(identity, votes, Model, effect.step)
            own[Model, effect.step] = digest
        else:
            self._check_catch_up(identity, votes, effect.step)
            self._comes_to(identity, effect.step, digest)
        if effect.model is None:
            self._check_range(effect, result)
        key = (effect.rule, effect.step, model, frozenset(votes))
        assert self._results.setdefault(key, digest) == digest, "equal votes, different results"

    def tried(self, identity: str, effect: TryModel) -> None:
        """A correct worker tries a model.

        Raises:
            AssertionError: If no server told it that model, and no median is it; if it compares
                with another step than its own last one.
        """
        self._check_momentum(identity, effect)
        self._check_place(identity, effect.step, digest_of(effect.vector))
        life, step = self._lives[identity], effect.step
        assert digest_of(effect.base) == life.base, f"tries step {step} from another model"
        self._check_rate(effect.learning_rate, step - 1)
        if effect.reference is not None:
            ahead = digest_of(effect.reference) == life.ahead.get(step)
            assert ahead, f"step {step} is compared with another gradient"

    def drawn(self, identity: str, gradient: Vector) -> None:
        """A correct worker's task gives it a gradient, which momentum is not part of yet."""
        self._lives[identity].drawn = gradient.copy()

    def computed(self, identity: str, effect: ComputeGradient | TryModel, vector: Vector) -> None:
        """A correct worker computes a gradient, and may send it if momentum is part of it.

        Raises:
            AssertionError: If the gradient is taken elsewhere than at the model of its step; if the
                moving average does not continue what it sent last, or is wrong.
        """
        beta, step = self._cluster.worker_momentum, effect.step
        life, place = self._lives[identity], digest_of(effect.vector)
        ahead = self._looks_ahead(life, effect)
        if ahead:
            assert place == life.base, f"looks ahead to step {step} from another model"
        else:
            assert effect.beta == beta, f"momentum of {effect.beta}, not {beta}"
            self._check_place(identity, step, place)
            if beta:
                self._check_momentum(identity, effect)
        assert life.drawn is not None
        right = _is_average(vector, life.drawn, effect)
        assert right, f"the moving average of step {step} is another vector"
        if ahead:
            life.ahead[step] = digest_of(vector)  # What the filters compare with is never sent.
        else:
            life.computed[step] = digest_of(vector), place

    def saved(self, identity: str, effect: SaveCheckpoint) -> None:
        """A correct server puts a model on disk, to start from it again.

        Raises:
            AssertionError: If it is not what the server's update of that step starts from.
        """
        self._check_own(identity, START, effect.step, digest_of(effect.vector))

    def holds(self, identity: str, vectors: int) -> None:
        """A correct node holds vectors in its memory.

        Raises:
            AssertionError: If they are more than any number of lies can make it hold.
        """
        n_servers, n_workers = len(self._servers), len(self._workers)
        room = max(WINDOW_STEPS, self._cluster.f_servers + 2)
        # Votes, those it works on, and a few of its own.
        if identity in self._workers:
            most = room * n_servers + n_servers + KEPT_MAX + 8
        else:
            last_models = n_servers
            most = room * (n_servers + n_workers) + last_models + max(n_servers, n_workers) + 8
        assert vectors <= most, f"{identity} holds {vectors} vectors, not {most} at most"

    def _check_life(self, identity: str, message: Message, digest: bytes) -> None:
        """What a node says fits what it said before in its life."""
        life, step = self._lives[identity], message.step
        if isinstance(message, Gradient):
            computed, place = life.computed.get(step, (b"", b""))
            if digest == computed:
                del life.computed[step]
                life.sent.setdefault(step, []).append(digest)
                life.last, life.base = digest, place
            else:
                assert digest in life.sent.get(step, ()), f"gradient {step} is not its own"
            return
        first = life.said.setdefault((type(message), step), digest)
        assert digest == first, f"equivocates about the model of step {step}"
        if isinstance(message, Model):
            assert step >= life.step, f"the model of step {step} after that of {life.step}"
            life.step = step
        else:
            assert self._is_gather(step), f"a vote at step {step}, where nobody gathers"
        self._check_own(identity, type(message), step, digest)

    def _comes_to(self, identity: str, step: int, digest: bytes) -> None:
        """A server has the model of a step, which is its vote if that is a gather step."""
        self._own[identity] |= dict.fromkeys(
            [(Model, step), (GatherModel, step), (START, step)], digest
        )

    def _check_own(self, identity: str, kind: Kind, step: int, digest: bytes) -> None:
        """What a server says or saves is what it came to, nothing older and nothing else."""
        what = "vote" if kind is GatherModel else "model"
        assert digest == self._own[identity].get((kind, step)), f"{what} {step} is not its own"

    def _check_update(self, effect: Aggregate) -> None:
        """An update is made by rule, f_w and eta_t of the cluster file."""
        file, f = self._cluster, effect.f
        same = (effect.rule, effect.pre_steps) == (file.rule, file.pre_steps)
        assert same, f"an update by {effect.rule}, not {file.rule}"
        self._check_rate(effect.learning_rate, effect.step)
        # Fewer lies only where the rule takes no more with so few votes.
        bound = compose(file.pre_steps, file.rule).check(len(effect.vectors), f + 1)
        right = f == file.f_workers or (f < file.f_workers and bound)
        assert right, f"{f} lies expected, not {file.f_workers}"

    def _check_rate(self, found: float, step: int) -> None:
        """A learning rate is eta_t, which is eta / (1 + t / tau)."""
        eta, tau = self._cluster.learning_rate, self._cluster.learning_rate_decay_steps
        right = eta / (1 + step / tau) if tau else eta
        assert isclose(found, right), f"a learning rate of {found:g} at step {step}, not {right:g}"

    def _check_place(self, identity: str, step: int, place: bytes) -> None:
        """A worker takes the gradient of a step at its median of that step.

        In the synchronous variant also at a model that a server told it, but in no gather step.
        """
        right = place == self._own[identity].get((Model, step))
        if self._cluster.variant is Variant.SYNCHRONOUS and not self._is_gather(step):
            right = right or any(
                place in self._told[identity].get((server, Model, step), ())
                for server in self._servers
            )
        assert right, f"no model of step {step} is where it takes its gradient"

    def _looks_ahead(self, life: "Life", effect: ComputeGradient | TryModel) -> bool:
        """Whether a gradient is one that the filters of the synchronous variant compare with."""
        return (
            self._cluster.variant is Variant.SYNCHRONOUS
            and isinstance(effect, ComputeGradient)
            and effect.beta == 0
            and effect.momentum is None
            and life.last is not None
        )

    def _check_momentum(self, identity: str, effect: ComputeGradient | TryModel) -> None:
        """Momentum is what the worker sent last, bit for bit."""
        momentum = None if effect.momentum is None else digest_of(effect.momentum)
        continues = momentum == self._lives[identity].last
        assert continues, f"momentum of step {effect.step} is not what was sent last"

    def _is_gather(self, step: int) -> bool:
        """Whether the servers gather before they scatter the model of a step."""
        period = self._cluster.gather_period
        assert isinstance(period, int)
        return step > 0 and step % period == 0 and self._cluster.n_servers > 1

    def _checked_votes(self, identity: str, effect: Aggregate) -> Votes:
        """As many valid votes of the right nodes as make a quorum, one an identity."""
        who = effect.identities
        voters, quorum = self._servers, self._cluster.server_quorum
        if effect.model is not None:
            voters, quorum = self._workers, self._cluster.worker_quorum
        elif identity in self._servers and effect.own is None and not self._own_votes:
            quorum -= 1
        assert len(set(who)) == len(who) == len(effect.vectors), f"double vote: {who}"
        assert tuple(sorted(who)) == who, f"votes out of order: {who}"
        more = voters == self._workers and self._cluster.variant is Variant.SYNCHRONOUS
        fits = len(who) >= quorum if more else len(who) == quorum
        assert fits, f"{len(who)} votes, not {quorum}"
        for voter, vector in zip(who, effect.vectors, strict=True):
            assert voter in voters, f"foreign vote of {voter}"
            assert bool(np.isfinite(vector).all()), f"invalid vote of {voter}"
        return list(zip(who, map(digest_of, effect.vectors), strict=True))

    @property
    def _own_votes(self) -> bool:
        """Whether who catches up takes its own model for a vote: too few peers may answer."""
        return self._cluster.server_quorum - 1 <= 2 * self._cluster.f_servers

    def _check_told(self, identity: str, votes: Votes, kind: type[Message], step: int) -> None:
        """Each vote is the first that its voter cast in that step."""
        for voter, digest in votes:
            told = self._told[identity].get((voter, kind, step), [])
            # Who restarts may say something else, and old votes were forgotten: then any will do.
            forgotten = self._restarts or self._pushed_out((identity, voter, kind), step)
            assert digest in (told if forgotten else told[:1]), f"{voter} did not say that"

    def _pushed_out(self, link: tuple[str, str, type[Message]], step: int) -> bool:
        """Whether a voter said so much since its first vote on a step that this was forgotten."""
        said = self._order.get(link, [])
        since = said[said.index(step) :] if step in said else []
        return len(set(since)) > WINDOW_STEPS

    def _check_catch_up(self, identity: str, votes: Iterable[tuple[str, bytes]], step: int) -> None:
        """A server adopts models that it was told, and goes no further than some correct peer."""
        assert step <= self._reached, f"no correct server is at step {step}"
        for voter, digest in votes:
            assert voter != identity or self._own_votes, "the own model is no vote in a catch-up"
            mine = voter == identity and digest in self._own[identity].values()
            assert mine or any(
                voter == sender and kind is not Gradient and digest in told
                for (sender, kind, _), told in self._told[identity].items()
            ), f"{voter} did not say that"

    def _check_range(self, effect: Aggregate, result: Vector) -> None:
        """A median of models lies within the correct votes' range in every coordinate."""
        correct = [
            vector
            for voter, vector in zip(effect.identities, effect.vectors, strict=True)
            if voter not in self._liars
        ]
        assert bool((np.min(correct, axis=0) <= result).all()), "below every correct model"
        assert bool((result <= np.max(correct, axis=0)).all()), "above every correct model"
        assert effect.rule == MODEL_RULE, f"models by {effect.rule}"


@dataclass(slots=True)
class Life:
    """What a correct node has said since it started."""

    step: int
    """The step of the last model that it sent, or began with."""
    said: dict[tuple[type[Message], int], bytes] = field(default_factory=dict)
    """The models that a server sent."""
    drawn: Vector | None = None
    """The gradient that its task gave a worker last."""
    computed: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """What a worker may send at each step, momentum included, and the model it was taken at."""
    ahead: dict[int, bytes] = field(default_factory=dict)
    """The gradients that it compares with."""
    sent: dict[int, list[bytes]] = field(default_factory=dict)
    """What it did send."""
    last: bytes | None = None
    """What it sent last and was no repetition."""
    base: bytes | None = None
    """The model that this was taken at."""


def _is_average(vector: Vector, gradient: Vector, effect: ComputeGradient | TryModel) -> bool:
    """Whether a vector is beta m + (1 - beta) g and then g's buffers, but for what float32 loses.

    That is a part of the two summands, not of their sum: they may cancel.
    """
    fresh = (1 - effect.beta) * gradient.astype(np.float64)
    kept = np.zeros_like(fresh)
    if effect.momentum is not None:
        kept = effect.beta * effect.momentum.astype(np.float64)
    if isinstance(effect, ComputeGradient) and effect.buffers:
        fresh[-effect.buffers :], kept[-effect.buffers :] = gradient[-effect.buffers :], 0
    lost = 1e-6 * (np.abs(fresh) + np.abs(kept)) + 1e-30
    return bool((np.abs(vector - (fresh + kept)) <= lost).all())


class NoPromises(Promises):
    """Checks nothing: for runs whose nodes do not keep the promises, and for speed."""

    def starts(self, identity: str, step: int = 0, vector: Vector | None = None) -> None:
        """Nothing."""

    def new_life(self, identity: str, step: int) -> None:
        """Nothing."""

    def told(self, identity: str, sender: str, message: Message, digest: bytes) -> None:
        """Nothing."""

    def said(self, identity: str, message: Message, digest: bytes) -> None:
        """Nothing."""

    def aggregated(self, identity: str, effect: Aggregate, result: Vector) -> None:
        """Nothing."""

    def tried(self, identity: str, effect: TryModel) -> None:
        """Nothing."""

    def drawn(self, identity: str, gradient: Vector) -> None:
        """Nothing."""

    def computed(self, identity: str, effect: ComputeGradient | TryModel, vector: Vector) -> None:
        """Nothing."""

    def saved(self, identity: str, effect: SaveCheckpoint) -> None:
        """Nothing."""

    def holds(self, identity: str, vectors: int) -> None:
        """Nothing."""
