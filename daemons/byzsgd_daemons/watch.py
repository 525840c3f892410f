"""All nodes of a cluster at a glance: asks each for its /status, and makes a table of it."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import Any, TypeAlias

from rich.table import Table
from rich.text import Text

from byzsgd.cluster import Cluster, Member, Role, split_address

ANSWER_SECONDS = 1.0
"""A node that takes longer for its whole answer, or to be reached, is shown as not answering."""

ASKED_AT_ONCE = 64
"""Nodes that are asked at the same time."""

LONG_SECONDS = 3.0
"""A wait that is worth a word."""

JUST_SEEN = re.compile(r" \(last seen \d s ago\)")
"""Of a peer that was heard of within ten seconds: not worth a place in a table."""

DIGITS_MAX = 18
"""Of an integer in an answer: no step and no count needs more."""

STATUS_BYTES_MAX = 1 << 20
"""Of an answer: a cluster of a thousand nodes fits."""

Status: TypeAlias = dict[str, Any]
"""What /status shows, or ``{"error": ...}`` for a node that did not answer."""


async def statuses(cluster: Cluster, seconds: float = ANSWER_SECONDS) -> dict[str, Status]:
    """The /status of every server and worker that has an HTTP address, asked all at once.

    Args:
        cluster: The cluster.
        seconds: How long each has for its whole answer.
    """
    asked = [node for node in cluster.nodes if node.role is not Role.OPERATOR and node.http]
    loop = asyncio.get_running_loop()
    # Threads of their own: the loop's are few, and a silent node has one until its time is over.
    threads = ThreadPoolExecutor(ASKED_AT_ONCE)
    try:
        answers = await asyncio.gather(
            *(loop.run_in_executor(threads, status, node, seconds) for node in asked)
        )
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    return {node.id: answer for node, answer in zip(asked, answers, strict=True)}


def status(node: Member, seconds: float = ANSWER_SECONDS) -> Status:
    """The /status of one node; whatever goes wrong becomes its ``error``, with the reason last."""
    host, port = split_address(node.http)
    ends = time.monotonic() + seconds
    late = f"cannot be reached within {seconds:g} s"
    try:
        with socket.create_connection((host.strip("[]"), port), seconds) as connection:
            late = f"did not answer within {seconds:g} s (busy or frozen)"
            answer = json.loads(
                _answer(connection, node.http, ends),
                parse_int=_integer,
                parse_float=_finite,
                parse_constant=lambda _: None,
            )
    except TimeoutError:
        return {"error": f"no answer from {node.http}: {late}"}
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return {"error": f"no answer from {node.http}: {reason}"}
    # The node may be a liar's: nothing of its answer is used but what has the right form.
    return answer if isinstance(answer, dict) else {"error": "its answer is no status"}


def _answer(connection: socket.socket, address: str, ends: float) -> bytes:
    """The body of what an HTTP server says to GET /status, whatever else it says.

    Not by http.client, which limits each read and not the whole: a byte now and then would hold it
    for ever.

    Raises:
        OSError: If there is none, or not all of it in time.
    """
    connection.sendall(f"GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
    answer = bytearray()
    while len(answer) < STATUS_BYTES_MAX:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(1 << 16)
        if not part:
            break
        answer += part
    return bytes(answer.partition(b"\r\n\r\n")[2])


def table(cluster: Cluster, found: Mapping[str, Status], *, lying: frozenset[str]) -> Table:
    """One row a node: where it stands, what it does or waits for, whom it refused.

    Args:
        cluster: The cluster.
        found: The status of each node that was asked.
        lying: Nodes that are known to lie, in a drill.
    """
    grid = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("node", "step"):
        grid.add_column(name, no_wrap=True)
    grid.add_column("does", ratio=1, overflow="ellipsis", no_wrap=True)
    for name in ("lag", "loss", "drift", "left out", "refused"):
        grid.add_column(name, justify="right", no_wrap=True)
    left_out = times_left_out(cluster, found)
    refused = times_refused(found)
    behind = lags(cluster, found)
    for node in cluster.nodes:
        if node.role is Role.OPERATOR:
            continue
        grid.add_row(
            node.id,
            Text(plain(found.get(node.id, {}).get("step"))),
            Text("lies", "red") if node.id in lying else Text(brief(found.get(node.id))),
            str(behind.get(node.id) or ""),
            _number(found.get(node.id, {}).get("loss")),
            _number(_median_drift(found.get(node.id, {}))),
            f"{left_out[node.id]:.0%}" if node.id in left_out else "",
            str(refused.get(node.id) or ""),
        )
    return grid


def as_json(cluster: Cluster, found: Mapping[str, Status]) -> dict[str, Any]:
    """The same as the table and the remarks say, for programs.

    Args:
        cluster: The cluster.
        found: The status of each node that was asked.
    """
    left_out, refused = times_left_out(cluster, found), times_refused(found)
    behind = lags(cluster, found)
    nodes = {}
    for node in cluster.nodes:
        if node.role is Role.OPERATOR:
            continue
        answer = found.get(node.id, {"error": sentence(None)})
        nodes[node.id] = {
            "role": node.role.value,
            "error": answer.get("error"),
            "status": None if "error" in answer else answer,
            "lag": behind.get(node.id),
            "left_out": left_out.get(node.id),
            "refused": refused.get(node.id, 0),
        }
    digest = cluster.digest().hex()
    return {"cluster": digest, "nodes": nodes, "remarks": remarks(cluster, found)}


def lags(cluster: Cluster, found: Mapping[str, Status]) -> dict[str, int]:
    """For each node that says its step, how far it is behind a step that servers have reached.

    That step is one that more servers say they have reached than may lie; nothing before so many
    answer.
    """
    said = {node: answer.get("step") for node, answer in found.items()}
    steps = {node: step for node, step in said.items() if isinstance(step, int)}
    servers = sorted((steps[s] for s in cluster.servers if s in steps), reverse=True)
    if len(servers) <= cluster.f_servers:
        return {}
    return {node: max(servers[cluster.f_servers] - step, 0) for node, step in steps.items()}


def sentence(found: Status | None) -> str:
    """What a node does, in its own words, or why it is not known."""
    if found is None:
        return "has no http address in the cluster file"
    return plain(found.get("error") or found.get("sentence"))


def brief(found: Status | None) -> str:
    """What a node does, without when it last heard of each peer that it has just heard of."""
    return JUST_SEEN.sub("", sentence(found))


def remarks(cluster: Cluster, found: Mapping[str, Status]) -> list[str]:
    """Who waits long for whom, who is silent and who cannot be sent to, and in whose eyes.

    Args:
        cluster: The cluster.
        found: The status of each node that was asked.
    """
    seen: dict[str, list[str]] = {}
    for node in (*cluster.servers, *cluster.workers):
        answer = found.get(node, {})
        said = [f"silent: {peer}" for peer in _nodes(cluster, answer.get("silent"))]
        said += [f"cannot be sent to: {peer}" for peer in _nodes(cluster, answer.get("unsent"))]
        if waits_long(answer):
            waiting = answer["waiting"]
            lacking = ", ".join(_nodes(cluster, waiting.get("lacking")))
            said.append(f"waited for: {plain(waiting.get('for'))} of {lacking}")
        for words in said:
            seen.setdefault(words, []).append(node)
    return [f"{words} (so say {', '.join(nodes)})" for words, nodes in seen.items()]


def _nodes(cluster: Cluster, value: object) -> list[str]:
    """The names of nodes in an answer, which may be a liar's."""
    words = value if isinstance(value, list) else []
    return [word for word in words if isinstance(word, str) and cluster.role(word)]


def waits_long(found: Status) -> bool:
    """Whether a node says that it has waited long for a quorum."""
    waiting = found.get("waiting")
    seconds = waiting.get("seconds") if isinstance(waiting, dict) else None
    return isinstance(seconds, int | float) and seconds > LONG_SECONDS


def times_left_out(cluster: Cluster, found: Mapping[str, Status]) -> dict[str, float]:
    """For each worker, the share of updates in which servers heard it and left it out."""
    steps, counts = 0, dict.fromkeys(cluster.workers, 0)
    for server in cluster.servers:
        left_out = found.get(server, {}).get("left_out")
        done = found.get(server, {}).get("steps_done")
        if isinstance(left_out, dict) and isinstance(done, int):
            steps += done
            for worker, count in left_out.items():
                if worker in counts and isinstance(count, int):
                    counts[worker] += count
    return {worker: count / steps for worker, count in counts.items()} if steps else {}


HARMLESS = frozenset({"late", "stale", "duplicate"})
"""Refusals that a slow or lossy network causes; nobody need have lied."""


def times_refused(found: Mapping[str, Status], reason: str | None = None) -> dict[str, int]:
    """For each node, how often its messages were refused: for a reason, or all but harmless."""
    counts: dict[str, int] = {}
    for answer in found.values():
        peers = answer.get("peers")
        for peer, seen in peers.items() if isinstance(peers, dict) else ():
            refused = seen.get("refused") if isinstance(seen, dict) else None
            for why, count in refused.items() if isinstance(refused, dict) else ():
                counted = why not in HARMLESS if reason is None else why == reason
                if counted and isinstance(count, int):
                    counts[peer] = counts.get(peer, 0) + count
    return counts


def _median_drift(found: Status) -> object:
    drift = found.get("drift")
    return drift.get("median") if isinstance(drift, dict) else None


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else ""


def _finite(digits: str) -> float | None:
    return number if isfinite(number := float(digits)) else None


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise ValueError("a number of too many digits")
    return int(digits)


def plain(value: object) -> str:
    """A word of an answer, which may be a liar's: it must not draw on the operator's terminal."""
    return "" if value is None else "".join(c for c in str(value)[:300] if c.isprintable())
