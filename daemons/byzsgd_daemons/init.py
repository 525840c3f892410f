"""Writes a new cluster: a commented cluster file, and a secret key for every node."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from byzsgd.cluster import GATHER_PERIOD, Cluster, Role, Variant
from byzsgd.errors import ConfigError
from byzsgd.tasks import TASKS
from byzsgd.tasks.task import Defaults
from byzsgd.transport import keys
from byzsgd_daemons.config import read_cluster

CLUSTER_FILE = "cluster.toml"
"""The name of a cluster file, where nobody wants another."""

OPERATOR = "operator"
"""Identity of the operator in a new cluster."""

UNKNOWN_TASK = Defaults(learning_rate=0.1, worker_momentum=0.9, batch_size=64, steps=1000)
"""Settings to begin with for a task of the user's own."""

LOCALHOST = "127.0.0.1"

ID, ROLE = "{id}", "{role}"
"""Stand, in a host, for the id and the role of the node that has this host."""

NAMES = {Role.SERVER: "s", Role.WORKER: "w"}
"""What comes before a node's number in its identity."""

PODS = {Role.SERVER: "server-", Role.WORKER: "worker-"}
"""The same in Kubernetes, where a node is called as its pod."""

POD_HOST, POD_PORT, POD_HTTP_PORT = f"{ID}.{ROLE}", 7000, 9100
"""Where pods are reached: a StatefulSet's, behind the Service of its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a new cluster file shall say; what is None takes the default that fits the rest."""

    servers: int = 5
    """n_ps."""
    workers: int = 7
    """n_w."""
    f_servers: int | None = None
    """f_ps; the largest that n_ps allows."""
    f_workers: int | None = None
    """f_w; the largest that n_w allows."""
    task: str = "mnist"
    """What to learn."""
    task_options: Mapping[str, object] = field(default_factory=dict)
    """What its factory is called with: texts, numbers and truth values."""
    variant: str = "asynchronous"
    """Which ByzSGD."""
    rule: str = "mda"
    """Aggregation rule of the gradients."""
    pre_steps: tuple[str, ...] = ()
    """What is done to the gradients before the rule."""
    steps: int | None = None
    """Learning steps; what suits the task."""
    gather_period: int | None = None
    """T; what suits the variant."""
    overlapped_gather: bool = False
    """Whether workers compute while servers gather; asynchronous only."""
    round_timeout: float = 2.0
    """Seconds a round may take, of the synchronous variant."""
    wire_type: str = "float32"
    """What vectors between servers and workers travel as."""
    learning_rate: float | None = None
    """eta; what suits the task."""
    worker_momentum: float | None = None
    """beta; what suits the task."""
    batch_size: int | None = None
    """Examples in a mini-batch; what suits the task."""
    seed: int = 1
    """Of theta_0 and the batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """Where the nodes of a new cluster are reached, ``host:port`` each."""

    servers: Sequence[str]
    """Of each server; the port after it is the server's too."""
    http: Mapping[str, str]
    """Of each node that answers HTTP, by identity."""
    names: Mapping[Role, str] = field(default_factory=lambda: NAMES)
    """What comes before a node's number in its identity."""

    @staticmethod
    def of_pods(plan: Plan) -> "Addresses":
        """Those in Kubernetes, by the manifests of deploy/kubernetes."""
        return Addresses.consecutive(plan, POD_HOST, POD_PORT, POD_HTTP_PORT, PODS)

    @staticmethod
    def consecutive(
        plan: Plan, host: str, port: int, http_port: int, names: Mapping[Role, str] = NAMES
    ) -> "Addresses":
        """All on one host: two ports for each server from ``port``, then HTTP from ``http_port``.

        Args:
            plan: How many nodes there are.
            host: Name or address of the host. With ``{id}`` in it every node has a host of its own,
                where that stands for the node's id and ``{role}`` for its role, and all have the
                same ports.
            port: The first server's.
            http_port: The first node's; 0 for no HTTP.
            names: What comes before a node's number in its identity.
        """
        servers = identities(plan, Role.SERVER, names)
        nodes = [*servers, *identities(plan, Role.WORKER, names)]

        def address(node: str, first: int, offset: int) -> str:
            role = Role.SERVER if node in servers else Role.WORKER
            own = host.replace(ID, node).replace(ROLE, role.value)
            return f"{own}:{first + (0 if ID in host else offset)}"

        http = {node: address(node, http_port, index) for index, node in enumerate(nodes)}
        return Addresses(
            servers=[address(node, port, 2 * index) for index, node in enumerate(servers)],
            http=http if http_port else {},
            names=names,
        )


def identities(plan: Plan, role: Role, names: Mapping[Role, str] = NAMES) -> list[str]:
    """The identities of a plan's servers or workers: s0, s1, ... or w0, w1, ..."""
    count = plan.servers if role is Role.SERVER else plan.workers
    return [f"{names[role]}{index}" for index in range(count)]


def create(folder: Path, plan: Plan, addresses: Addresses) -> Path:
    """Write the cluster file and the keys of a plan into a folder; return the file's path.

    Raises:
        ConfigError: If there is a cluster file already, if the plan violates a bound, or if the
            folder cannot be written to. Nothing that was there is overwritten.
    """
    path = folder / CLUSTER_FILE
    if path.exists():
        raise ConfigError(f"{path}: is there already; give another folder, or move it away")
    servers, workers = (identities(plan, role, addresses.names) for role in NAMES)
    ids = [*servers, *workers, OPERATOR]
    pairs = {identity: keys.generate() for identity in ids}
    public = {identity: pair.public for identity, pair in pairs.items()}
    text = cluster_text(plan, addresses, public)
    try:
        (folder / "keys").mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(".partial")
        partial.write_text(text)
        read_cluster(partial)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written to: {error.strerror}") from None
    except ConfigError as error:
        partial.unlink()
        raise ConfigError(str(error).replace(f"{partial}: ", "")) from None
    for identity, pair in pairs.items():
        keys.write_secret(folder / "keys" / f"{identity}.key", pair.secret)
    partial.rename(path)
    return path


def cluster_text(plan: Plan, addresses: Addresses, public_keys: Mapping[str, str]) -> str:
    """The commented cluster file of a plan.

    Args:
        plan: What it shall say.
        addresses: Where its nodes are reached.
        public_keys: Of every node, by identity.
    """
    defaults = TASKS[plan.task].defaults if plan.task in TASKS else UNKNOWN_TASK
    # Of either variant what both allow: then a network slower than its bound is no danger either.
    f_servers = max((plan.servers - 2) // 3, 0) if plan.f_servers is None else plan.f_servers
    f_workers = max((plan.workers - 1) // 3, 0) if plan.f_workers is None else plan.f_workers
    synchronous = plan.variant == Variant.SYNCHRONOUS
    period = GATHER_PERIOD[Variant.SYNCHRONOUS if synchronous else Variant.ASYNCHRONOUS]
    steps = defaults.steps if plan.steps is None else plan.steps
    rate = defaults.learning_rate if plan.learning_rate is None else plan.learning_rate
    beta = defaults.worker_momentum if plan.worker_momentum is None else plan.worker_momentum
    batch = defaults.batch_size if plan.batch_size is None else plan.batch_size
    return _HEAD.format(
        f_servers=f_servers,
        f_workers=f_workers,
        server_quorum=plan.servers - f_servers,
        worker_quorum=plan.workers - f_workers,
        servers=plan.servers,
        workers=plan.workers,
        task=json.dumps(plan.task),
        steps=steps,
        batch_size=batch,
        learning_rate=rate,
        tau=max(steps // 3, 1),
        worker_momentum=beta,
        gather_period=period if plan.gather_period is None else plan.gather_period,
        overlapped_gather=json.dumps(plan.overlapped_gather),
        wire_type=json.dumps(plan.wire_type),
        rule=plan.rule,
        pre_steps=json.dumps(plan.pre_steps),
        variant=json.dumps(plan.variant),
        round_timeout=plan.round_timeout,
        seed=plan.seed,
    ) + "".join([*_task_options(plan), *_nodes(plan, addresses, public_keys)])


def _task_options(plan: Plan) -> list[str]:
    if not plan.task_options:
        return []
    # A text of JSON is one of TOML, if it is written as it is; and so are its truth values.
    lines = [f"{_text(name)} = {_text(value)}\n" for name, value in plan.task_options.items()]
    return ["\n# What the factory of the task is called with.\n[task_options]\n", *lines]


def _text(value: object) -> str:
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _nodes(plan: Plan, addresses: Addresses, public_keys: Mapping[str, str]) -> list[str]:
    servers, workers = (identities(plan, role, addresses.names) for role in NAMES)
    address_of = dict(zip(servers, addresses.servers, strict=True))
    roles = dict.fromkeys(servers, Role.SERVER)
    roles |= dict.fromkeys(workers, Role.WORKER)
    roles[OPERATOR] = Role.OPERATOR
    tables = []
    for identity, role in roles.items():
        lines = [f'id = "{identity}"', f'role = "{role.value}"']
        if role is Role.SERVER:
            lines.append(f'address = "{address_of[identity]}"')
        if identity in addresses.http:
            lines.append(f'http = "{addresses.http[identity]}"')
        lines.append(f'public_key = "{public_keys[identity]}"')
        tables.append("\n[[nodes]]\n" + "\n".join(lines) + "\n")
    return tables


def scaled(cluster: Cluster) -> str:
    """What a cluster tolerates, in one sentence for a person."""
    return (
        f"{cluster.n_servers} servers, of which {cluster.f_servers} may lie; "
        f"{cluster.n_workers} workers, of which {cluster.f_workers} may lie"
    )


_HEAD = """\
# A byzsgd cluster. Give every node this same file, and to each node its own keys/<id>.key, to no
# other. Nodes that hold different files find out, and name the keys that differ.
# `byzsgd check cluster.toml` checks it.

# How many may be Byzantine: crash, stall, lie, collude. Needed, with n_ps servers and n_w workers:
# n_ps >= 3 f_servers + 2 (or f_servers = 0 and one server), n_w >= 3 f_workers + 1; with the
# synchronous variant n_ps >= 3 f_servers + 1 and n_w >= 2 f_workers + 1.
f_servers = {f_servers}    # of {servers} servers
f_workers = {f_workers}    # of {workers} workers

# How many models a worker waits for, and gradients a server. The default is the largest that does
# not wait for liars, n - f, and the best:
# 2 f_servers + 2 <= server_quorum <= n_ps - f_servers,
# 2 f_workers + 1 <= worker_quorum <= n_w - f_workers; synchronous: from 2 f_servers + 1
# and from min(2 f_workers + 1, n_w - f_workers).
# server_quorum = {server_quorum}
# worker_quorum = {worker_quorum}

# What to learn: digits, mnist, fashion-mnist, quadratic, or your own: "package.module:factory" or
# "path/file.py:factory", a path from this file's folder. Its factory's arguments go into a table
# [task_options], after all of these settings.
task = {task}
steps = {steps}    # learning steps; 0 for no end
batch_size = {batch_size}    # examples a worker takes for a step; 64 or more where a third may lie
seed = {seed}    # of the first model and of every worker's batches

learning_rate = {learning_rate}    # eta; the step size
# With a decay of tau steps it is eta / (1 + step / tau): less drift at the end. 0: constant.
learning_rate_decay_steps = 0    # a third of the steps suits, here {tau}

# Workers send a moving average of their gradients. Without it stealthy attacks win near a third.
worker_momentum = {worker_momentum}

# Steps between two gathers, in which servers take the median of their models. 1 is safe everywhere;
# 5 costs fewer bytes and is safe with f_servers <= 1; "auto" estimates it from the task. The
# synchronous variant wants 2 to 5.
gather_period = {gather_period}
# With true, workers compute while servers gather, so that a gather costs bytes but no waiting: up
# to half as many steps more where messages take long. Safe with f_servers <= 1; not with the
# synchronous variant.
overlapped_gather = {overlapped_gather}

# What vectors travel as between servers and workers. "bfloat16" halves their bytes and keeps their
# range; "float16" is finer, and ends at 65504. Models and gradients are rounded to it, servers'
# own models and BatchNorm's averages never. "float32": as they are.
wire_type = {wire_type}

# How servers aggregate gradients: mda is ByzSGD's; krum needs worker_quorum >= 2 f_workers + 3;
# coordinate_median; average withstands nobody.
rule = "{rule}"
pre_steps = {pre_steps}    # before the rule, in this order: clipping, bucketing, nnm

# "asynchronous" assumes no bound on delays. "synchronous" assumes that correct nodes answer within
# round_timeout seconds, passes over those that do not, and sends fewer models: a worker pulls one,
# and filters it.
variant = {variant}
round_timeout = {round_timeout}

# Who takes part. A server's models are published on the port of its address, and the next port
# takes gradients and pulls; workers only dial out. http answers /metrics, /healthz, /readyz and
# /status. An operator may pull models and ask for status; it has no vote.
"""
