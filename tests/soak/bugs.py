"""Bugs to plant, one at a time: what tests and simulation are for is to catch each.

``BYZSGD_PLANT=old-step python -m pytest -p tests.soak.bugs tests/protocol`` runs tests with one of
them planted.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np

from byzsgd.messages import Reason
from byzsgd.protocol import OverlappedServer, ParameterServer, Worker, server, window
from byzsgd.protocol.catchup import CatchUp
from byzsgd.protocol.effects import ComputeGradient
from byzsgd.protocol.quorum import Quorum
from byzsgd.protocol.schedule import Gathers
from byzsgd.protocol.server import Phase
from byzsgd.protocol.window import Window
from byzsgd.simulation import cluster
from byzsgd.vectors import Vector
from byzsgd.wire import codec

Plant = Callable[[], AbstractContextManager[Any]]


def quorum_off_by_one() -> AbstractContextManager[Any]:
    """A server is content with q_w - 1 gradients."""

    def update_if_ready(self: Any, now: float) -> None:
        quorum = self.cluster.worker_quorum - 1
        if self._phase is Phase.SCATTER and self._gradients.votes(self.step) >= quorum:
            self._update(quorum, self.cluster.f_workers, now)

    return mock.patch.object(ParameterServer, "_update_if_ready", update_if_ready)


class _Twice(Quorum):
    """Counts whatever is said again."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, Any]] = []

    def __len__(self) -> int:
        return len(self.all)

    def vote(self, identity: str, vector: Any) -> Reason | None:
        self._votes.setdefault(identity, vector)
        self.all.append((identity, vector))
        return None

    def first(self, count: int, own: str | None = None) -> Any:
        order = sorted(self.all, key=lambda vote: vote[0] != own)[:count]
        order.sort(key=lambda vote: vote[0])
        return tuple(who for who, _ in order), tuple(vector for _, vector in order)


def vote_counted_twice() -> AbstractContextManager[Any]:
    """A vote that comes again counts again."""
    return mock.patch.object(window, "Quorum", _Twice)


def claimed_identity() -> AbstractContextManager[Any]:
    """A vote counts for whoever its sender says it is.

    Stands for a transport that believes routing ids instead of keys. The real one is covered by
    ``test_a_claimed_routing_id_means_nothing`` of tests/transport.
    """
    return mock.patch.object(cluster, "speaker", lambda key, routing_id: routing_id)


def old_step() -> AbstractContextManager[Any]:
    """A vote for a step that is over counts for the current one."""
    admit = Window.admit

    def lenient(self: Window, identity: str, step: int, vector: Any) -> Reason | None:
        return admit(self, identity, max(step, self.floor), vector)

    return mock.patch.object(Window, "admit", lenient)


def arrival_order() -> AbstractContextManager[Any]:
    """Votes are summed in the order in which they came."""

    def first(self: Quorum, count: int, own: str | None = None) -> Any:
        order = sorted(self._votes, key=lambda identity: identity != own)[:count]
        return tuple(order), tuple(self._votes[identity] for identity in order)

    return mock.patch.object(Quorum, "first", first)


def without_own() -> AbstractContextManager[Any]:
    """A gather takes the votes that came first, whether the own is among them or not."""
    first = Quorum.first

    def others(self: Quorum, count: int, own: str | None = None) -> Any:
        del own
        return first(self, count)

    return mock.patch.object(Quorum, "first", others)


def lower_median() -> AbstractContextManager[Any]:
    """The median of an even number is the lower of the two middles."""
    module = import_module("byzsgd.aggregation.coordinate_median")
    network = module.median_network

    def lower(count: int) -> Any:
        whole = network(count)
        return replace(whole, middles=whole.middles[:1])

    return mock.patch.object(module, "median_network", lower)


def no_finite_check() -> AbstractContextManager[Any]:
    """Whatever is not finite is let in."""

    def copied(source: Vector, target: Vector) -> bool:
        target[...] = source
        return True

    return mock.patch.multiple(codec, copy_finite=copied, is_finite=lambda _: True)


def one_peer_believed() -> AbstractContextManager[Any]:
    """A server that fell behind goes where a single peer says that it is."""
    init = CatchUp.__init__

    def credulous(self: CatchUp, n_servers: int, f_servers: int, *args: Any, **kw: Any) -> None:
        del f_servers
        init(self, n_servers, 0, *args, **kw)

    return mock.patch.object(CatchUp, "__init__", credulous)


def unbounded_window() -> AbstractContextManager[Any]:
    """Votes for any number of steps are kept."""
    init = Window.__init__

    def endless(self: Window, identities: Any, length: int) -> None:
        del length
        init(self, identities, 10**9)

    return mock.patch.object(Window, "__init__", endless)


def gather_off_by_one() -> AbstractContextManager[Any]:
    """Servers gather one step too early."""

    def contains(self: Gathers, step: int) -> bool:
        return step > 0 and (step + 1) % self.period == 0 and not self._alone

    return mock.patch.object(Gathers, "__contains__", contains)


def momentum_reset() -> AbstractContextManager[Any]:
    """A worker that had to ask again begins its moving average anew."""
    result = Worker._result

    def forgetful(self: Any, event: Any, now: float) -> None:
        result(self, event, now)
        if self._asked and self._effects and isinstance(self._effects[-1], ComputeGradient):
            self._effects[-1] = replace(self._effects[-1], momentum=None)

    return mock.patch.object(Worker, "_result", forgetful)


def update_thrown_away() -> AbstractContextManager[Any]:
    """A server updates its model, and goes on with the old one."""
    updated = ParameterServer._updated

    def forgetful(self: ParameterServer, event: Any, now: float) -> None:
        updated(self, replace(event, vector=self.vector), now)

    return mock.patch.object(ParameterServer, "_updated", forgetful)


def wrong_learning_rate() -> AbstractContextManager[Any]:
    """A server's steps have no length."""
    return mock.patch.object(server, "learning_rate", return_value=0.0)


def gradient_elsewhere() -> AbstractContextManager[Any]:
    """A worker takes its gradient at zero instead of at the median."""
    result = Worker._result

    def lost(self: Any, event: Any, now: float) -> None:
        result(self, event, now)
        if self._effects and isinstance(self._effects[-1], ComputeGradient):
            zero = np.zeros_like(self._effects[-1].vector)
            self._effects[-1] = replace(self._effects[-1], vector=zero)

    return mock.patch.object(Worker, "_result", lost)


def liars_beside() -> AbstractContextManager[Any]:
    """Where others wait is the (f_ps + 1)-th largest of their steps, which liars can be beside."""

    def earliest(self: CatchUp, steps: Iterable[int]) -> int:
        return self._reached(list(steps), self._f + 1)

    return mock.patch.object(CatchUp, "_earliest", earliest)


def old_models() -> AbstractContextManager[Any]:
    """A catch-up takes models of any age."""

    def recently(self: CatchUp, now: float) -> list[str]:
        del now
        return list(self._came)

    return mock.patch.object(CatchUp, "_recently", recently)


def votes_of_old() -> AbstractContextManager[Any]:
    """Who goes back forgets no vote of the life before."""
    return mock.patch.object(Window, "clear")


def uncontracted() -> AbstractContextManager[Any]:
    """Where gathers overlap, an update starts from the model that the workers were told."""
    contracted = OverlappedServer._contracted

    def forgetful(self: OverlappedServer, event: Any, now: float) -> None:
        contracted(self, replace(event, vector=self.vector), now)

    return mock.patch.object(OverlappedServer, "_contracted", forgetful)


def told_again() -> AbstractContextManager[Any]:
    """Where gathers overlap, a worker that asks is told the contracted model."""
    return mock.patch.object(OverlappedServer, "_scattered", ParameterServer._scattered)


BUGS: dict[str, Plant] = {
    "quorum-off-by-one": quorum_off_by_one,
    "vote-counted-twice": vote_counted_twice,
    "claimed-identity": claimed_identity,
    "old-step": old_step,
    "arrival-order": arrival_order,
    "without-own-model": without_own,
    "lower-median": lower_median,
    "no-finite-check": no_finite_check,
    "one-peer-believed": one_peer_believed,
    "unbounded-window": unbounded_window,
    "gather-off-by-one": gather_off_by_one,
    "momentum-reset": momentum_reset,
    "update-thrown-away": update_thrown_away,
    "wrong-learning-rate": wrong_learning_rate,
    "gradient-elsewhere": gradient_elsewhere,
    "liars-beside": liars_beside,
    "old-models": old_models,
    "votes-of-old": votes_of_old,
    "uncontracted": uncontracted,
    "told-again": told_again,
}
"""Every bug by its name."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a bug for a while; none where the name is empty."""
    if not name:
        yield
        return
    with BUGS[name]():
        yield


def pytest_configure() -> None:
    """Plant the bug that BYZSGD_PLANT names, for a whole run of tests."""
    if name := os.environ.get("BYZSGD_PLANT"):
        BUGS[name]().__enter__()
