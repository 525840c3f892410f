"""What keeps a node from running well on this machine: looked for before it does, or while it does.

Nothing is changed, and nothing is sent but logins and questions for /status.
"""

import asyncio
import os
import re
import resource
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from errno import EADDRINUSE
from importlib import metadata
from pathlib import Path

from byzsgd import __version__, memory
from byzsgd.cluster import Cluster, Member, Role, nearest
from byzsgd.errors import ConfigError, TaskError
from byzsgd.tasks import buffers_of, load_task
from byzsgd.transport import WATCHES_MEMORY, Knock, is_address, knock
from byzsgd_daemons import watch
from byzsgd_daemons.config import Settings, http_address, read_cluster, secret_key
from byzsgd_daemons.initial import check_buffers

AT_ONCE = 16
"""Servers that are tried at the same time."""

CHECKPOINTS = 5
"""Models that a state folder holds at most: three checkpoints, one being written, the first."""

REQUIREMENT = re.compile(r"([\w.-]+)>=([\d.]+)$")

UNLIMITED = 1 << 60
"""Bytes from which on a limit is none."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    """As it should be."""
    WARNING = "warning"
    """Allowed, or passing, and worth a look."""
    PROBLEM = "problem"
    """The node will not run, or not well, until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    """What was looked at, in a word."""
    sentence: str
    """What was found; where that is not right, what would be."""

    def __str__(self) -> str:
        return f"{self.level:<8} {self.what}: {self.sentence}"


def examine(settings: Settings, *, d: int | None, seconds: float) -> Iterator[Finding]:
    """Look at all that a node needs, and say what was found as soon as it is.

    Args:
        settings: The node's, as its daemon gets them.
        d: Number of parameters; None loads the task, and torch with it, to find out.
        seconds: How long to wait for an answer of another machine.

    Raises:
        ConfigError: If the cluster file is broken, or has no such node.
    """
    cluster = read_cluster(settings.cluster)
    node = cluster.node(settings.id)
    if node is None:
        known = [node.id for node in cluster.nodes]
        raise ConfigError(
            f"--id {settings.id}: no such node in {settings.cluster}; {nearest(settings.id, known)}"
        )
    digest = cluster.digest().hex()
    yield Finding(
        Level.OK, "cluster file", f"{settings.cluster}: fine; its digest is {digest[:8]}..."
    )
    for warning in cluster.warnings():
        yield Finding(Level.WARNING, "cluster file", warning)
    secret = None
    try:
        secret = secret_key(node, settings)
        yield Finding(Level.OK, "key", f"{settings.key_file}: is that of {node.id}")
    except ConfigError as error:
        yield Finding(Level.PROBLEM, "key", str(error))
    yield from _foreign_keys(cluster, settings)
    yield from _packages(node)
    yield Finding(
        Level.OK, "clock", "is not looked at: only monotonic time counts, and no two need agree"
    )
    found = asyncio.run(watch.statuses(cluster, seconds))
    if node.role is not Role.OPERATOR:
        runs = found.get(node.id, {}).get("id") == node.id
        yield from _ports(node, settings, runs=runs)
        yield from _descriptors(cluster, node)
        buffers = 0
        if d is None:
            d, buffers, findings = _size(cluster, node, settings)
            yield from findings
        if d is not None:
            yield from _memory(cluster, node, d, buffers, runs=runs)
        if d is not None and settings.state is not None:
            yield _state(settings.state, CHECKPOINTS * memory.vector_bytes(d))
    yield from _servers(cluster, node, secret, seconds)
    yield from _peers(cluster, node, found)


# Files and programs


def _foreign_keys(cluster: Cluster, settings: Settings) -> Iterator[Finding]:
    folder = settings.key_file.parent
    files: set[str] = set()
    with suppress(OSError):
        files = {path.name for path in folder.iterdir()}
    others = [n.id for n in cluster.nodes if n.id != settings.id]
    there = [each for each in others if f"{each}.key" in files]
    if there:
        yield Finding(
            Level.WARNING,
            "key",
            f"{folder}: has keys of {', '.join(there)} as well; whoever has root here has these "
            "votes, so give each node its own key alone",
        )


def _packages(node: Member) -> Iterator[Finding]:
    words = [f"byzsgd {__version__}", f"Python {sys.version.split()[0]}"]
    try:
        requirements = metadata.requires("byzsgd") or []
    except metadata.PackageNotFoundError:
        requirements = []
        sentence = "byzsgd is not installed as a package, so what it requires is not known"
        yield Finding(Level.WARNING, "packages", sentence)
    for requirement in requirements:
        match = REQUIREMENT.match(requirement)  # None: of an extra.
        if match is None:
            continue
        name, least = match.groups()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "torch" and node.role is not Role.WORKER:
                yield Finding(
                    Level.WARNING, "packages", "no torch: give a server its first model, --initial"
                )
            else:
                yield Finding(Level.PROBLEM, "packages", f"no {name}; must be >= {least}")
            continue
        words.append(f"{name} {version}")
        if _numbers(version) < _numbers(least):
            sentence = f"{name} {version} is too old; must be >= {least}"
            yield Finding(Level.PROBLEM, "packages", sentence)
    yield Finding(Level.OK, "packages", ", ".join(words))
    if not WATCHES_MEMORY:
        sentence = f"{sys.platform}: nothing bounds here what peers can make a node hold; use Linux"
        yield Finding(Level.WARNING, "system", sentence)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _size(
    cluster: Cluster, node: Member, settings: Settings
) -> tuple[int | None, int, list[Finding]]:
    """How many coordinates a vector has, and how many are buffers; None if the task is no use."""
    device = settings.device if node.role is Role.WORKER else "cpu"
    try:
        options, folder = cluster.task_options, settings.folder
        task = load_task(cluster.task, options, directory=folder, device=device)
        d, buffers = len(task.initial(cluster.seed)), buffers_of(task)
        check_buffers(buffers, d, cluster)
    except TaskError as error:
        # A server takes its first model from a file, too.
        level = Level.PROBLEM if node.role is Role.WORKER else Level.WARNING
        return None, 0, [Finding(level, "task", f"{error}; memory is not looked at")]
    findings = [Finding(Level.OK, "task", f"{cluster.task}: {d} parameters")]
    if node.role is Role.WORKER and "torch" in sys.modules:
        from byzsgd.tasks.torch_task import describe_device

        findings.append(Finding(Level.OK, "device", describe_device(device)))
    return d, buffers, findings


# This machine


def _ports(node: Member, settings: Settings, *, runs: bool) -> Iterator[Finding]:
    wanted: list[tuple[str, str, int]] = []
    if node.role is Role.SERVER:
        host, port = node.publish_endpoint
        host = settings.bind or (host if is_address(host) else "")
        wanted = [("--bind", host, port), ("--bind", host, port + 1)]
    try:
        if http := http_address(node, settings):
            wanted.append(("--http", *http))
        else:
            sentence = "none for HTTP: neither byzsgd status nor Prometheus will see this node"
            yield Finding(Level.WARNING, "port", sentence)
    except ConfigError as error:
        yield Finding(Level.PROBLEM, "port", str(error))
    for flag, host, port in wanted:
        yield _port(node, flag, host.strip("[]").replace("*", ""), port, runs=runs)


def _port(node: Member, flag: str, host: str, port: int, *, runs: bool) -> Finding:
    shown = f"{host or '*'}:{port}"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))  # Fails where somebody listens.
    except OSError as error:
        if error.errno != EADDRINUSE:
            reason = f"cannot be listened on: {error.strerror}; give another with {flag}"
            return Finding(Level.PROBLEM, "port", f"{shown} {reason}")
        if runs:
            return Finding(Level.OK, "port", f"{shown} is in use, and {node.id} runs")
        return Finding(
            Level.WARNING if not node.http else Level.PROBLEM,
            "port",
            f"{shown} is in use, and {node.id} does not answer: if it does not run, somebody else "
            "listens there",
        )
    if runs:
        sentence = f"{shown} is free, and yet {node.id} answers: from another machine, or elsewhere"
        return Finding(Level.WARNING, "port", sentence)
    return Finding(Level.OK, "port", f"{shown} is free")


def _descriptors(cluster: Cluster, node: Member) -> Iterator[Finding]:
    needed = memory.descriptors(cluster, node.role)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= needed:
        sentence = f"a {node.role} needs {needed} at most"
        yield Finding(Level.OK, "file descriptors", sentence)
        return
    yield Finding(
        Level.PROBLEM,
        "file descriptors",
        f"{limit} are allowed here, and a {node.role} may need {needed}: LimitNOFILE= or ulimit -n",
    )


def _memory(
    cluster: Cluster, node: Member, d: int, buffers: int, *, runs: bool
) -> Iterator[Finding]:
    server = node.role is Role.SERVER
    if server:
        most = memory.server_bytes(cluster, d, buffers=buffers)
        usual = memory.server_usual_bytes(cluster, d, buffers=buffers)
    else:
        most = memory.worker_bytes(cluster, d, buffers=buffers)
        usual = memory.WORKER_BASE_BYTES
    most += memory.kernel_bytes(cluster, node.role)
    free, whose = free_bytes()
    words = f"{_megabytes(free)} ({whose}); {node.id} takes {_megabytes(usual)} usually"
    words += "" if server else ", with its data set and model besides,"
    words += f" and {_megabytes(most)} at worst"
    if runs:
        # And has its part of what is not free.
        yield Finding(Level.OK, "memory", f"{words}; it runs already")
    elif free < usual:
        yield Finding(Level.PROBLEM, "memory", f"{words}: needs more")
    elif free < most:
        yield Finding(Level.WARNING, "memory", f"{words}: liars could have it killed")
    else:
        yield Finding(Level.OK, "memory", words)


def _state(state: Path, needed: int) -> Finding:
    try:
        there = next(folder for folder in (state, *state.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(Level.PROBLEM, "state", f"{state}: {error.strerror}")
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        sentence = f"{there} is no folder that this user may write to"
        return Finding(Level.PROBLEM, "state", sentence)
    words = f"{state}: {_megabytes(free)} are free, and checkpoints take {_megabytes(needed)}"
    return Finding(Level.OK if free >= needed else Level.PROBLEM, "state", words)


def free_bytes(
    proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
) -> tuple[int, str]:
    """Memory that a process started here could take, and what limits it.

    Args:
        proc: Linux's /proc.
        cgroups: Where control groups are mounted, of either version.
    """
    text = (proc / "meminfo").read_text()
    available = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    free = int(available[1]) * 1024 if available else UNLIMITED
    limit = _cgroup_limit((proc / "self" / "cgroup").read_text(), cgroups)
    return (limit, "limit of the control group") if limit < free else (free, "available")


def _cgroup_limit(text: str, cgroups: Path) -> int:
    """The lowest memory limit of the control groups that a process is in, UNLIMITED for none."""
    limits = [UNLIMITED]
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = folder / path.lstrip("/")
        # In a container the path may be one of the machine's, and only the root be there.
        for each in (group, *group.parents):
            if not each.is_relative_to(folder):
                break
            try:
                limits.append(int((each / name).read_text()))
            except (OSError, ValueError):  # The root has none; "max" is none.
                continue
    return min(limits)


def _megabytes(size: int) -> str:
    return f"{size // memory.MIB} MB"


# Other machines


def _servers(
    cluster: Cluster, node: Member, secret: str | None, seconds: float
) -> Iterator[Finding]:
    """Which servers this node reaches, and which take its key."""
    servers = [n for n in cluster.nodes if n.role is Role.SERVER and n.id != node.id]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tried = list(pool.map(lambda server: _server(node, server, secret, seconds), servers))
    yield from (finding for _, finding in tried)
    reached = sum(there for there, _ in tried) + (node.role is Role.SERVER)
    if reached < cluster.server_quorum:
        # Of fewer, each may be one of the f.
        sentence = f"only {reached} can be reached, and a quorum is {cluster.server_quorum}"
        yield Finding(Level.PROBLEM, "servers", sentence)


def _server(
    node: Member, server: Member, secret: str | None, seconds: float
) -> tuple[bool, Finding]:
    """Whether a server's machine is there, and what it does with a login."""
    host, port = server.request_endpoint

    def found(level: Level, sentence: str) -> Finding:
        return Finding(level, server.id, f"{host}:{port} {sentence}")

    if not server.admitted:
        return False, found(Level.WARNING, "is not dialled: not admitted in this cluster file")
    try:
        if secret is None:
            socket.create_connection((host.strip("[]"), port), seconds).close()
            return True, found(Level.OK, "can be reached; without a key no more is known")
        answer = knock(server, secret, seconds)
        if node.role is Role.WORKER:
            port -= 1
            socket.create_connection((host.strip("[]"), port), seconds).close()
    except ConnectionRefusedError:
        return True, found(Level.WARNING, "nobody listens there; is it up?")
    except OSError as error:
        reason = error.strerror or f"no answer within {seconds:g} s"
        return False, found(Level.WARNING, f"cannot be reached: {reason}")
    match answer:
        case Knock.LET_IN:
            return True, found(Level.OK, "proves its key, and takes ours")
        case Knock.TURNED_AWAY:
            sentence = (
                f"turns our key away: it has another for {node.id}, or does not admit it; or there "
                "were too many logins, and it will in five minutes"
            )
            return True, found(Level.PROBLEM, sentence)
        case Knock.ANOTHER:
            sentence = f"does not hold the key that our cluster file gives {server.id}"
            return True, found(Level.PROBLEM, sentence)
        case Knock.SILENT:
            sentence = f"takes connections, and says nothing within {seconds:g} s: busy or frozen?"
            return True, found(Level.WARNING, sentence)


def _peers(cluster: Cluster, node: Member, found: Mapping[str, watch.Status]) -> Iterator[Finding]:
    """What other nodes show: their versions and files, and what they refuse. Some may lie."""
    answers = {peer: a for peer, a in found.items() if peer != node.id and "error" not in a}
    asked = len(found) - (node.id in found)
    sentences = [f"{len(answers)} of {asked} that serve HTTP answer"]
    silent: dict[str, list[str]] = {}
    for peer, answer in found.items():
        if peer != node.id and "error" in answer:
            reason = watch.plain(answer["error"]).rpartition(": ")[2]
            silent.setdefault(reason, []).append(peer)
    sentences += [f"{', '.join(peers)}: {reason}" for reason, peers in silent.items()]
    yield Finding(Level.OK, "peers", "; ".join(sentences))
    versions: dict[str, list[str]] = {}
    for peer, answer in answers.items():
        versions.setdefault(watch.plain(answer.get("version")), []).append(peer)
    for version, peers in versions.items():
        if version != __version__:
            sentence = f"{', '.join(peers)}: version {version}, and this is {__version__}"
            yield Finding(Level.WARNING, "peers", sentence)
    digest = cluster.digest().hex()
    others = [peer for peer, answer in answers.items() if answer.get("cluster") != digest]
    if others:
        # More than may lie have it: then ours is wrong, or there are two clusters.
        many = len(set(others).intersection(cluster.servers)) > cluster.f_servers
        sentence = f"another one than here: {', '.join(others)}; give every node the same"
        yield Finding(Level.PROBLEM if many else Level.WARNING, "cluster file", sentence)
    for reason, peers in _refusals(node, answers).items():
        sentence = f"{', '.join(peers)} refused something of {node.id}: {reason}"
        yield Finding(Level.WARNING, "peers", sentence)


def _refusals(node: Member, answers: Mapping[str, watch.Status]) -> dict[str, list[str]]:
    """For each reason that is no accident, who has refused something of a node."""
    found: dict[str, list[str]] = {}
    for peer, answer in answers.items():
        peers = answer.get("peers")
        seen = peers.get(node.id) if isinstance(peers, dict) else None
        refused = seen.get("refused") if isinstance(seen, dict) else None
        for reason in refused if isinstance(refused, dict) else ():
            if reason not in watch.HARMLESS:
                found.setdefault(watch.plain(reason), []).append(peer)
    return found
