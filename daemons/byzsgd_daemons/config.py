"""One node's settings, checked, and the cluster file behind them."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from byzsgd.aggregation import PRE_STEPS, RULES, compose
from byzsgd.cluster import (
    ADDRESS_PATTERN,
    Cluster,
    Member,
    Role,
    Variant,
    nearest,
    split_address,
)
from byzsgd.errors import ClusterError, ConfigError
from byzsgd.transport import keys

VARIABLE_PREFIX = "BYZSGD_"
"""Of environment variables that stand for flags, such as BYZSGD_CLUSTER for --cluster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What differs from node to node; everything else stands in the cluster file."""

    id: str
    """Identity of this node in the cluster file."""
    cluster: Path
    """The cluster file."""
    key: Path | None = None
    """Secret key, mode 0600; default ``keys/<id>.key`` beside the cluster file."""
    state: Path | None = None
    """Folder for checkpoints and what is computed once; None keeps nothing on disk."""
    initial: Path | None = None
    """theta_0, as ``byzsgd initial-model`` writes it; None builds it from the task."""
    bind: str | None = None
    """Address to listen on, where it is not the one in the cluster file: ``0.0.0.0`` for all."""
    http: str | None = None
    """``host:port`` of /metrics, /healthz, /readyz, /status; default from the cluster file."""
    device: str = "cpu"
    """Where a worker computes: ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    checkpoint_period: int = 100
    """Steps between two checkpoints, where there is a state folder."""
    pull_after: float = 1.0
    """Seconds without a quorum after which the node asks the peers it lacks. More than a round
    trip and a gradient; 1 suits a LAN and models of a few million parameters."""
    stop_seconds: float = 10.0
    """Seconds that a stop may take before the process ends anyway."""

    @property
    def folder(self) -> Path:
        """The folder of the cluster file: paths in it are relative to that."""
        return self.cluster.resolve().parent

    @property
    def key_file(self) -> Path:
        """Where the secret key lies."""
        return self.key or self.folder / "keys" / f"{self.id}.key"


def read_cluster(path: Path) -> Cluster:
    """The checked cluster of a file.

    Raises:
        ConfigError: If the file is missing, is not TOML, or breaks a rule; every problem in it is
            named.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text, so not a cluster file") from None
    try:
        mapping = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # Its own error, or what int and datetime raise.
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    try:
        cluster = Cluster.from_mapping(mapping)
        _check_rule(cluster)
    except ClusterError as error:
        raise ConfigError("\n".join(f"{path}: {each}" for each in error.problems)) from None
    return cluster


def _check_rule(cluster: Cluster) -> None:
    """Refuse a rule or pre-steps that are unknown, or that need more vectors than there will be.

    Raises:
        ClusterError: If so; every unknown name is named.
    """
    problems = []
    if cluster.rule not in RULES:
        problems.append(f"rule: {cluster.rule!r} is unknown; {nearest(cluster.rule, RULES)}")
    for name in cluster.pre_steps:
        if name not in PRE_STEPS:
            problems.append(f"pre_steps: {name!r} is unknown; {nearest(name, PRE_STEPS)}")
        elif cluster.pre_steps.count(name) > 1:
            problems.append(f"pre_steps: {name!r} is there twice; leave one out")
    # What is wrong with a name that is there twice is said once.
    problems = list(dict.fromkeys(problems)) or list(_violated_bounds(cluster))
    if problems:
        raise ClusterError(problems)


def _violated_bounds(cluster: Cluster) -> Iterator[str]:
    """The bound that the rule violates, or that it violates with its pre-steps."""
    f, quorum = cluster.f_workers, cluster.worker_quorum
    if cluster.variant is Variant.SYNCHRONOUS:
        # Who is silent is known to be Byzantine: it is missing among the n, and among the f.
        left = max(f - (cluster.n_workers - quorum), 0)
        cases = [
            (cluster.n_workers, f, f"the number of workers and f is f_workers = {f}"),
            (quorum, left, "worker_quorum and f is how many liars are left in it"),
        ]
    else:
        cases = [(quorum, f, f"worker_quorum and f is f_workers = {f}")]
    for key, pre_steps in (("rule", ()), ("pre_steps", cluster.pre_steps)):
        for n, liars, words in cases:
            if problem := compose(pre_steps, cluster.rule).check(n, liars):
                yield f"{key}: {problem}, where n is {words}"
                return


def member(cluster: Cluster, settings: Settings, role: Role) -> Member:
    """This node's entry in the cluster file.

    Raises:
        ConfigError: If there is none, or if it has another role.
    """
    found = cluster.node(settings.id)
    if found is None:
        known = [node.id for node in cluster.nodes if node.role is role]
        raise ConfigError(
            f"--id {settings.id}: no such node in {settings.cluster}; {nearest(settings.id, known)}"
        )
    if found.role is not role:
        raise ConfigError(
            f"--id {settings.id}: {settings.cluster} says that it is a {found.role.value}, "
            f"not a {role.value}"
        )
    return found


def secret_key(node: Member, settings: Settings) -> str:
    """The node's secret key, which must belong to its public key in the cluster file.

    Raises:
        ConfigError: If the file cannot be used, or holds another node's key.
    """
    secret = keys.read_secret(settings.key_file)
    public = keys.public_of(secret)
    if public != node.public_key:
        raise ConfigError(
            f"{settings.key_file}: is the secret key of {public}, but {settings.cluster} gives "
            f"{node.id} the public key {node.public_key}"
        )
    return secret


def http_address(node: Member, settings: Settings) -> tuple[str, int] | None:
    """Where this node answers HTTP, or None.

    Raises:
        ConfigError: If that is no address.
    """
    address = settings.http or node.http
    if not address:
        return None
    host, port = split_address(address) if ADDRESS_PATTERN.fullmatch(address) else ("", 0)
    if not 1 <= port <= 65535:
        raise ConfigError(f"--http {address}: must be host:port with a port of 1 to 65535")
    return host, port
