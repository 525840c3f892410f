"""A coalition made of words and numbers, with whatever its attacks must compute in order to lie."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from byzsgd.attacks import make
from byzsgd.cluster import Cluster, Role
from byzsgd.simulation.adversary import Coalition
from byzsgd.simulation.oracle import Gradients, flipped_gradients
from byzsgd.simulation.timing import timing_named
from byzsgd.tasks import Task

NO_NUMBERS: Mapping[str, float] = MappingProxyType({})


def coalition_of(
    cluster: Cluster,
    liars: Sequence[str],
    task: Callable[[], Task],
    *,
    attack: str | None = None,
    options: Mapping[str, float] = NO_NUMBERS,
    server_attack: str | None = None,
    server_options: Mapping[str, float] = NO_NUMBERS,
    timing: str = "early",
    gather_period: int | None = None,
    overhears: bool = True,
    kind: type[Coalition] = Coalition,
    buffers: int = 0,
) -> Coalition:
    """The liars of a cluster.

    Args:
        cluster: The cluster that they belong to.
        liars: Their identities, workers and servers.
        task: Loads the task; called only if an attack computes gradients.
        attack: What lying workers do, a name of ``byzsgd.attacks``; None for silence.
        options: Numbers that the workers' attack takes, such as ``z``.
        server_attack: What lying servers do; None for silence.
        server_options: Numbers that the servers' attack takes, such as ``scale``.
        timing: When they speak, a name of ``Timing``.
        gather_period: T, where the cluster file says "auto".
        overhears: Whether they hear all that is said, as in a simulation; if not, gradients are
            seen by lying servers, or else computed.
        kind: Their conduct: those of ``hostile`` break more rules.
        buffers: So many coordinates at the end of every vector are buffers, not parameters.

    Raises:
        ByzsgdError: If a name or number is wrong, if the task cannot be loaded or not be flipped.
    """
    when = timing_named(timing)
    says = make(attack, Role.WORKER, **options) if attack else None
    models = make(server_attack, Role.SERVER, **server_options) if server_attack else None
    working = [worker for worker in cluster.workers if worker in liars]
    oracle = flipped = None
    if says and working and says.needs_flipped:
        flipped = flipped_gradients(task(), cluster, liars)
    elif says and working and says.needs_sight and not overhears and len(working) == len(liars):
        correct = [worker for worker in cluster.workers if worker not in liars]
        oracle = Gradients(task(), cluster, correct)
    return kind(
        cluster,
        liars,
        worker_attack=says,
        server_attack=models,
        timing=when,
        gather_period=gather_period,
        oracle=oracle,
        flipped=flipped,
        buffers=buffers,
    )
