"""Who takes part, how many may be Byzantine, and the numbers that all nodes agree on.

A cluster file is equal on every node. ``Cluster.from_mapping`` checks the whole of it and reports
every problem at once; ``Cluster.digests`` lets nodes find out which keys of two files differ.

Source of the bounds: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed
Byzantine Machine Learning" (ByzSGD).
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from byzsgd.errors import ClusterError

ID_PATTERN = re.compile(r"[a-z][a-z0-9._-]{0,31}")
Z85_PATTERN = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
ADDRESS_PATTERN = re.compile(r"(\[[0-9A-Fa-f:]+\]|[^\s:\[\]]+):([0-9]{1,5})")

NODES_MAX = 1000
"""More nodes than anyone has run; a limit, so that a broken file cannot ask for a million."""

INTEGER_MAX = 2**53
"""The largest integer in a cluster file: every language's numbers hold it exactly."""

SHOWN_MAX = 100
"""Characters of a wrong value that a report shows."""

GATHER_PERIOD_SAFE = 5
"""The largest gather period that stayed safe with two Byzantine servers, in our calibration."""


KEPT_MAX = 8
"""Gradients that a worker of the synchronous variant keeps for servers that lost them: more than
the longest gather period that it should have."""


class Role(StrEnum):
    """What a node of the cluster file may do."""

    SERVER = "server"
    """Keeps a copy of the model; votes with models."""
    WORKER = "worker"
    """Computes gradients; votes with gradients."""
    OPERATOR = "operator"
    """May pull models and ask where a server stands; nothing that it sends counts as a vote."""


class Variant(StrEnum):
    """Which of the paper's two algorithms runs."""

    ASYNCHRONOUS = "asynchronous"
    """No bound on delays: whoever waits, waits for a quorum."""
    SYNCHRONOUS = "synchronous"
    """Delays are bounded: workers pull one model a step, and filter it."""


class WireType(StrEnum):
    """The numbers that vectors between servers and workers travel as."""

    FLOAT32 = "float32"
    """As they are."""
    FLOAT16 = "float16"
    """IEEE 754 binary16: 11 bits of mantissa, from 6e-8 to 65504."""
    BFLOAT16 = "bfloat16"
    """The upper half of a float32: 8 bits of mantissa, and its range."""

    @property
    def itemsize(self) -> int:
        """Bytes of a coordinate."""
        return 4 if self is WireType.FLOAT32 else 2


GATHER_PERIOD = {Variant.ASYNCHRONOUS: 1, Variant.SYNCHRONOUS: 5}
"""T where the file gives none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One node of the cluster file."""

    id: str
    """Identity: the name that the node's public key proves. Lower-case letters first."""
    role: Role
    """What the node does, and what it may send to whom."""
    public_key: str = ""
    """CURVE public key, 40 characters of Z85; empty only in a cluster without keys."""
    address: str = ""
    """``host:port`` where a server is reached: models are published there, and the next port
    takes gradients and pulls. Workers only dial out."""
    http: str = ""
    """``host:port`` of the node's /metrics, /healthz, /readyz and /status; empty for none."""
    admitted: bool = True
    """Whether this node lets that one connect, and dials it; it counts as silent otherwise. Each
    node's own decision, like addresses: false keeps a stolen key out until there is a new one."""

    @property
    def publish_endpoint(self) -> tuple[str, int]:
        """Host and port where models are published."""
        return split_address(self.address)

    @property
    def request_endpoint(self) -> tuple[str, int]:
        """Host and port that take gradients, gather votes and pulls."""
        host, port = split_address(self.address)
        return host, port + 1


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, which was checked when the cluster file was read."""
    host, _, port = address.rpartition(":")
    return host, int(port)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The checked content of a cluster file.

    Build it with ``Cluster.from_mapping``; the constructor itself checks nothing.
    """

    nodes: tuple[Member, ...]
    """All nodes, in the order of the file."""
    f_servers: int
    """f_ps: how many servers may be Byzantine. ``n_ps >= 3 f_ps + 2``; 0 also allows one server.
    Synchronous: ``n_ps >= 3 f_ps + 1``."""
    f_workers: int
    """f_w: how many workers may be Byzantine. ``n_w >= 3 f_w + 1``; synchronous: ``2 f_w + 1``."""
    server_quorum: int
    """q_ps: models waited for, ``2 f_ps + 2 <= q_ps <= n_ps - f_ps``. Default n_ps - f_ps.
    Synchronous: from ``2 f_ps + 1``."""
    worker_quorum: int
    """q_w: gradients waited for, ``2 f_w + 1 <= q_w <= n_w - f_w``. Default n_w - f_w.
    Synchronous: those that a round does not end without, from ``min(2 f_w + 1, n_w - f_w)``."""
    task: str
    """A shipped task's name, ``package.module:factory`` or ``path/file.py:factory``."""
    task_options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Keyword arguments of the task's factory."""
    variant: Variant = Variant.ASYNCHRONOUS
    """Which ByzSGD: ``asynchronous`` assumes no bound on delays; ``synchronous`` assumes one,
    ``round_timeout``, and sends fewer models."""
    round_timeout: float = 2.0
    """Seconds within which correct nodes answer one another, of the synchronous variant: longer
    than the slowest gradient and a round trip. Who takes longer is passed over in that round."""
    rule: str = "mda"
    """Aggregation rule of the gradients, a name of ``byzsgd.aggregation.RULES``."""
    pre_steps: tuple[str, ...] = ()
    """What is done to the gradients before the rule, names of ``byzsgd.aggregation.PRE_STEPS``."""
    gather_period: int | Literal["auto"] = 1
    """T: learning steps between two gathers. 1 is safe everywhere; 5 costs fewer bytes and was
    safe with f_servers <= 1; ``auto`` takes 1 / (3 l eta_1) with l estimated from the task. The
    synchronous variant wants 2 to 5, and has 5 by default: in gathers it saves nothing."""
    overlapped_gather: bool = False
    """Whether workers get the model of a gather step before servers contract it, so that a gather
    costs bytes but no waiting; the update starts from the contracted model. Asynchronous only. Off
    by default: with f_servers >= 2 a combined attack drives servers further apart."""
    wire_type: WireType = WireType.FLOAT32
    """What vectors travel as between servers and workers; ``float16`` and ``bfloat16`` halve their
    bytes. In memory, among servers and to operators they are float32 in any case, and so are
    buffers."""
    learning_rate: float = 0.1
    """eta: step size of the first step."""
    learning_rate_decay_steps: float = 0.0
    """tau: step size is eta / (1 + t / tau); 0 keeps it constant. A third of ``steps`` suits."""
    worker_momentum: float = 0.9
    """beta in m = beta m + (1 - beta) g, in [0, 1). Without it stealthy attacks win near n/3."""
    batch_size: int = 32
    """Examples in a mini-batch. 64 or more where a third of the workers may lie."""
    seed: int = 1
    """Seeds theta_0 and every worker's choice of batches."""
    steps: int = 0
    """Learning steps after which training ends; 0 for no end."""

    @property
    def servers(self) -> tuple[str, ...]:
        """Identities of the servers, sorted."""
        return tuple(sorted(node.id for node in self.nodes if node.role is Role.SERVER))

    @property
    def workers(self) -> tuple[str, ...]:
        """Identities of the workers, sorted."""
        return tuple(sorted(node.id for node in self.nodes if node.role is Role.WORKER))

    @property
    def n_servers(self) -> int:
        """n_ps: how many servers there are."""
        return len(self.servers)

    @property
    def n_workers(self) -> int:
        """n_w: how many workers there are."""
        return len(self.workers)

    def node(self, identity: str) -> Member | None:
        """The member of that identity, or None."""
        return next((node for node in self.nodes if node.id == identity), None)

    def role(self, identity: str) -> Role | None:
        """The role of an identity, or None for a stranger."""
        member = self.node(identity)
        return member.role if member else None

    def wire_type_between(self, one: Role | None, other: Role | None) -> WireType:
        """What vectors travel as from a node of one role to one of the other.

        Workers see rounded models, and servers rounded gradients. A server's own model is never
        rounded: an update smaller than what is rounded off would be lost, in every gather again.
        """
        return self.wire_type if Role.WORKER in (one, other) else WireType.FLOAT32

    def digests(self) -> dict[str, bytes]:
        """A 4-byte digest of each agreed key: nodes whose files differ can name the keys."""
        return {key: _digest(value, 4) for key, value in self._agreed().items()}

    def digest(self, *keys: str) -> bytes:
        """A 16-byte digest of some agreed keys, or of all of them when none is named."""
        agreed = self._agreed()
        return _digest({key: agreed[key] for key in keys or agreed}, 16)

    def warnings(self) -> list[str]:
        """What is allowed and unwise, one sentence each."""
        found = []
        period = self.gather_period
        if isinstance(period, int) and period > GATHER_PERIOD_SAFE and self.f_servers >= 2:
            found.append(
                f"gather_period = {period} with f_servers = {self.f_servers}: above "
                f"{GATHER_PERIOD_SAFE} a combined attack has broken training; 1 is safe"
            )
        if self.variant is Variant.SYNCHRONOUS and period == 1 and self.n_servers > 1:
            found.append(
                "gather_period = 1 with variant = synchronous: every step is a gather, so nothing "
                "is saved and no model is filtered; 2 to 5 suits"
            )
        if self.variant is Variant.SYNCHRONOUS and isinstance(period, int) and period > KEPT_MAX:
            found.append(
                f"gather_period = {period} with variant = synchronous: workers keep {KEPT_MAX} "
                "gradients for servers that lost them, so one further behind waits for a gather"
            )
        if self.overlapped_gather and self.f_servers >= 2:
            found.append(
                f"overlapped_gather = true with f_servers = {self.f_servers}: a combined attack "
                "has driven servers apart; false is safe"
            )
        if self.f_workers > 0 and self.worker_momentum == 0:
            found.append("worker_momentum = 0: stealthy attacks win near n/3; 0.9 holds them off")
        return found

    def _agreed(self) -> dict[str, Any]:
        agreed = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "nodes"}
        agreed["task_options"] = dict(self.task_options)
        agreed["pre_steps"] = list(self.pre_steps)
        # Addresses may be written differently on both sides of a NAT: who takes part is agreed.
        # Keys are not: a wrong one proves itself by letting nobody in, and a new one would
        # otherwise have to reach all nodes at once, with everything stopped.
        agreed["nodes"] = sorted((n.id, n.role.value) for n in self.nodes)
        return agreed

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any], *, keys: bool = True) -> "Cluster":
        """The checked cluster of a parsed cluster file.

        Args:
            mapping: The file's content, as a TOML parser returns it.
            keys: Whether every node must have a public key.

        Raises:
            ClusterError: With every problem found, each naming key, finding and remedy.
        """
        reader = _Reader(mapping, keys)
        values = reader.values()
        problems = reader.problems
        if not any(problem.startswith(BOUND_KEYS) for problem in problems):
            problems += _violated_bounds(values)
        if problems:
            raise ClusterError(problems)
        return Cluster(**values)


def differing_keys(one: Mapping[str, object], other: Mapping[str, object]) -> tuple[str, ...]:
    """The keys, sorted, whose digests are not the same; one that only one side has is among them.

    Args:
        one: What ``Cluster.digests`` gave, as it is or in another form.
        other: The same of another file, in the same form.
    """
    return tuple(sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key)))


def _digest(value: Any, size: int) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to a wrong one, or all known words.

    Args:
        word: What was found.
        known: What would have been right.
    """
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(choices) or 'none'}"


MEMBER_TEXTS = ("id", "role", "public_key", "address", "http")
"""Keys of a node that hold texts."""

BOUND_KEYS = ("nodes", "variant", "f_servers", "f_workers", "server_quorum", "worker_quorum")
"""What the bounds are about: where one of these is wrong, the bounds cannot be told yet."""


def _violated_bounds(values: Mapping[str, Any]) -> Iterable[str]:
    """Every bound that does not hold, with its inequality and the numbers."""
    roles = [node.role for node in values["nodes"]]
    n_ps, n_w = roles.count(Role.SERVER), roles.count(Role.WORKER)
    f_ps, f_w = values["f_servers"], values["f_workers"]
    q_ps, q_w = values["server_quorum"], values["worker_quorum"]
    # Where delays are bounded, who is silent is known to be Byzantine: fewer nodes will do.
    if values["variant"] == Variant.SYNCHRONOUS:
        per_f, spare = 2, 1
        # Or all that are sure to come: fewer could be mostly lies, were somebody late after all.
        least_q_w, q_w_words = min(2 * f_w + 1, n_w - f_w), "min(2 f_w + 1, n_w - f_w)"
    else:
        per_f, spare = 3, 2
        least_q_w, q_w_words = 2 * f_w + 1, "2 f_w + 1"
    one_trusted = f_ps == 0 and n_ps == 1
    if not one_trusted and n_ps < 3 * f_ps + spare:
        least = 3 * f_ps + spare
        yield f"f_servers: n_ps >= 3 f_ps + {spare}, but {n_ps} < {least} (f_ps = {f_ps})"
    if n_w < per_f * f_w + 1:
        least = per_f * f_w + 1
        yield f"f_workers: n_w >= {per_f} f_w + 1, but {n_w} < {least} (f_w = {f_w})"
    # Two at least: a gather compares.
    least, words = max(2 * f_ps + spare, 2), f"2 f_ps + {spare}"
    if not one_trusted and q_ps < least:
        words = words if spare > 1 or f_ps else f"max({words}, 2)"
        yield f"server_quorum: q_ps >= {words}, but {q_ps} < {least}"
    if q_ps > n_ps - f_ps:
        yield f"server_quorum: q_ps <= n_ps - f_ps, but {q_ps} > {n_ps - f_ps}"
    if q_w < least_q_w:
        yield f"worker_quorum: q_w >= {q_w_words}, but {q_w} < {least_q_w}"
    if q_w > n_w - f_w:
        yield f"worker_quorum: q_w <= n_w - f_w, but {q_w} > {n_w - f_w}"


def _integer_from(minimum: int) -> str:
    return f"an integer from {minimum} to 2^53"


def _shown(value: object) -> str:
    """A wrong value for a report: never long, and never what Python refuses to print."""
    if type(value) is int and abs(value) > INTEGER_MAX:
        return "a number beyond 2^53"
    try:
        text = repr(value)
    except ValueError:  # A huge integer inside.
        return f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


Choice = TypeVar("Choice", bound=StrEnum)


class _Reader:
    """Reads a mapping key by key, and collects every problem instead of stopping at the first."""

    def __init__(self, mapping: Mapping[str, Any], keys: bool) -> None:
        self.mapping = mapping
        self.keys = keys
        self.problems: list[str] = []

    def values(self) -> dict[str, Any]:
        self.known(self.mapping, [f.name for f in fields(Cluster)], "")
        nodes = self.nodes()
        roles = [node.role for node in nodes]
        f_servers = self.integer("f_servers", 0, minimum=0, required=True)
        f_workers = self.integer("f_workers", 0, minimum=0, required=True)
        variant = self.choice("variant", Variant.ASYNCHRONOUS)
        values: dict[str, Any] = {
            "nodes": tuple(nodes),
            "f_servers": f_servers,
            "f_workers": f_workers,
            "server_quorum": self.integer(
                "server_quorum", roles.count(Role.SERVER) - f_servers, minimum=1
            ),
            "worker_quorum": self.integer(
                "worker_quorum", roles.count(Role.WORKER) - f_workers, minimum=1
            ),
            "task": self.text("task", None),
            "task_options": MappingProxyType(self.table("task_options")),
            "variant": variant,
            "round_timeout": self.number("round_timeout", 2.0, above=0.0),
            "rule": self.text("rule", "mda"),
            "pre_steps": self.texts("pre_steps"),
            "gather_period": self.gather_period(GATHER_PERIOD[variant]),
            "overlapped_gather": self.overlapped_gather(variant),
            "wire_type": self.choice("wire_type", WireType.FLOAT32),
            "learning_rate": self.number("learning_rate", 0.1, above=0.0),
            "learning_rate_decay_steps": self.number("learning_rate_decay_steps", 0.0, minimum=0.0),
            "worker_momentum": self.number("worker_momentum", 0.9, minimum=0.0, below=1.0),
            "batch_size": self.integer("batch_size", 32, minimum=1),
            "seed": self.integer("seed", 1, minimum=0),
            "steps": self.integer("steps", 0, minimum=0),
        }
        return values

    def known(self, mapping: Mapping[str, Any], names: Sequence[str], where: str) -> None:
        for key in mapping:
            if key not in names:
                self.problems.append(f"{where}{key}: unknown key; {nearest(str(key), names)}")

    def wrong(self, key: str, found: object, right: str) -> None:
        self.problems.append(f"{key}: found {_shown(found)}; must be {right}")

    def integer(self, key: str, default: int, *, minimum: int, required: bool = False) -> int:
        if key not in self.mapping:
            if required:
                self.problems.append(f"{key}: missing; must be {_integer_from(minimum)}")
            return default
        value = self.mapping[key]
        if type(value) is not int or not minimum <= value <= INTEGER_MAX:
            self.wrong(key, value, _integer_from(minimum))
            return default
        return value

    def number(
        self,
        key: str,
        default: float,
        *,
        minimum: float | None = None,
        above: float | None = None,
        below: float | None = None,
    ) -> float:
        value = self.mapping.get(key, default)
        limits = [
            f"{words} {limit:g}"
            for words, limit in (("at least", minimum), ("above", above), ("below", below))
            if limit is not None
        ]
        fine = (
            (type(value) is float or (type(value) is int and abs(value) <= INTEGER_MAX))
            and value - value == 0  # finite
            and (minimum is None or value >= minimum)
            and (above is None or value > above)
            and (below is None or value < below)
        )
        if not fine:
            self.wrong(key, value, f"a number {' and '.join(limits)}")
            return default
        return float(value)

    def text(self, key: str, default: str | None) -> str:
        value = self.mapping.get(key, default)
        if value is None:
            self.problems.append(f"{key}: missing; must be a text")
            return ""
        if not isinstance(value, str) or not value:
            self.wrong(key, value, "a text")
            return ""
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.mapping.get(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            self.wrong(key, value, 'a list of texts, such as ["nnm"]')
            return ()
        return tuple(value)

    def choice(self, key: str, default: Choice) -> Choice:
        value, choices = self.text(key, default.value), type(default)
        if value in set(choices):
            return choices(value)
        if value:
            self.wrong(key, value, f"one of: {', '.join(choices)}")
        return default

    def table(self, key: str) -> dict[str, Any]:
        value = self.mapping.get(key, {})
        if not isinstance(value, dict):
            self.wrong(key, value, f"a table: [{key}]")
            return {}
        for name, item in value.items():
            if type(item) not in (str, int, float, bool):
                self.wrong(f"{key}.{name}", item, "a text, a number or a boolean")
            elif type(item) is int and abs(item) > INTEGER_MAX:
                self.wrong(f"{key}.{name}", item, "an integer between -2^53 and 2^53")
        return value

    def gather_period(self, default: int) -> int | Literal["auto"]:
        value = self.mapping.get("gather_period", default)
        if value == "auto":
            return "auto"
        if type(value) is not int or not 1 <= value <= INTEGER_MAX:
            self.wrong("gather_period", value, f'{_integer_from(1)}, or "auto"')
            return 1
        return value

    def overlapped_gather(self, variant: Variant) -> bool:
        value: object = self.mapping.get("overlapped_gather", False)
        if not isinstance(value, bool):
            self.wrong("overlapped_gather", value, "true or false")
            return False
        if value and variant is Variant.SYNCHRONOUS:
            self.problems.append(
                "overlapped_gather: not with variant = synchronous, whose filters measure from "
                "contracted models; leave it out, or take variant = asynchronous"
            )
        return value

    def nodes(self) -> list[Member]:
        tables = self.mapping.get("nodes", [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            self.wrong("nodes", tables, "a list of tables: [[nodes]]")
            return []
        if not 1 <= len(tables) <= NODES_MAX:
            self.problems.append(f"nodes: found {len(tables)}; must be 1 to {NODES_MAX}")
            return []
        members = [self.member(index, table) for index, table in enumerate(tables)]
        found = [member for member in members if member is not None]
        self.unique(found)
        return found

    def member(self, index: int, table: Mapping[str, Any]) -> Member | None:
        where = f"nodes[{index}]."
        before = len(self.problems)
        self.known(table, [f.name for f in fields(Member)], where)
        texts = {}
        for name in MEMBER_TEXTS:
            value = table.get(name, "")
            if not isinstance(value, str):
                self.wrong(where + name, value, "a text")
                value = ""
            texts[name] = value
        admitted = table.get("admitted", True)
        if not isinstance(admitted, bool):
            self.wrong(where + "admitted", admitted, "true or false")
        if not ID_PATTERN.fullmatch(texts["id"]):
            right = "a lower-case letter and up to 31 more of a-z 0-9 . _ -"
            self.wrong(where + "id", texts["id"], right)
        if texts["role"] not in set(Role):
            self.wrong(where + "role", texts["role"], f"one of: {', '.join(Role)}")
        key = texts["public_key"]
        if (key or self.keys) and not Z85_PATTERN.fullmatch(key):
            self.wrong(where + "public_key", key, "a CURVE key, 40 characters of Z85")
        for name, last, needed in (
            ("address", 65534, texts["role"] == Role.SERVER),
            ("http", 65535, False),
        ):
            address = texts[name]
            match = ADDRESS_PATTERN.fullmatch(address)
            port = int(match[2]) if match else 0
            if (address or needed) and not 1 <= port <= last:
                self.wrong(where + name, address, f"host:port with a port of 1 to {last}")
        if len(self.problems) > before:
            return None
        return Member(role=Role(texts.pop("role")), admitted=admitted, **texts)

    def unique(self, members: Sequence[Member]) -> None:
        """Identities, keys and ports must each name one node: a shared one would share votes."""
        seen: dict[tuple[str, object], str] = {}
        for member in members:
            claims: list[tuple[str, object]] = [("id", member.id)]
            if member.public_key:
                claims.append(("public_key", member.public_key))
            if member.address:
                claims += [
                    ("port", member.publish_endpoint),
                    ("port", member.request_endpoint),
                ]
            if member.http:
                claims.append(("port", split_address(member.http)))
            for kind, value in claims:
                if (kind, value) in seen:
                    shown = ":".join(map(str, value)) if isinstance(value, tuple) else value
                    self.problems.append(
                        f"nodes: {seen[kind, value]} and {member.id} share the {kind} {shown}"
                    )
                seen.setdefault((kind, value), member.id)
