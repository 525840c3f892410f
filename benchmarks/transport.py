"""Large messages: our transport against raw pyzmq and gRPC, in rate and in CPU time.

    python -m benchmarks.transport
    python -m benchmarks.transport --rounds 15 --only "100 MB" --json transport.json

One centre and one or four leaves, each a process of its own. All contestants of a row are up at
once and take turns, A B A B; every burst is paced by the same credit (``benchmarks.burst``), and
everything that was sent must arrive. The floor is blocking pyzmq with copy=False and one frame a
message (``benchmarks.burst_zmq``); ours makes every check and hands over a copy of its own. A row
is the median over the rounds of the ratio within each; CPU time is that of all processes, the
kernel's part included. The rate on a line of 1 Gbit/s takes root, for network namespaces.
"""

import argparse
import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from benchmarks.burst import CENTRE, Part
from benchmarks.rows import Row, markdown, write
from tests.network.namespaces import Network, joined, lacking

from byzsgd.messages import Model
from byzsgd.transport import keys, queue_messages
from byzsgd.wire import Layout, decode_header, encode

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers/bin/python"
MB = 1_000_000
PATIENCE_SECONDS = 60.0

PLAIN = "Transport without authentication, against raw pyzmq"
CURVE = "Transport with CURVE, against raw pyzmq with CURVE"
GRPC = "Transport against gRPC unary bytes"
LINE = "Share of a line of 1 Gbit/s"
HEADERS = "Headers of messages"
TABLES = (PLAIN, CURVE, GRPC, LINE, HEADERS)

LINE_BYTES_PER_SECOND = 125 * MB


@dataclass(frozen=True, slots=True)
class Shape:
    """Who sends how much to whom in a burst."""

    centre_sends: bool
    leaves: int
    payload_bytes: int
    count: int
    """Messages to each leaf, or of each."""

    @property
    def name(self) -> str:
        """As rows have it."""
        ways = f"1->{self.leaves}" if self.centre_sends else f"{self.leaves}->1"
        return f"{self.payload_bytes // MB} MB {ways}"

    @property
    def gigabytes(self) -> float:
        """Payload of a burst."""
        return self.leaves * self.count * self.payload_bytes / 1e9


SHAPES = (
    Shape(True, 1, 7 * MB, 60),
    Shape(True, 4, 7 * MB, 20),
    Shape(False, 4, 7 * MB, 20),
    Shape(True, 1, 100 * MB, 6),
    Shape(True, 4, 100 * MB, 2),
    Shape(False, 4, 100 * MB, 2),
)
LINE_SHAPE = Shape(True, 4, 7 * MB, 8)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one burst took."""

    seconds: float
    cpu: float
    """Seconds of all processes."""


class Contestant:
    """The processes of a contestant; a context manager that ends them."""

    def __init__(
        self,
        module: str,
        shape: Shape,
        *,
        encrypted: bool = False,
        python: Path = Path(sys.executable),
        network: Network | None = None,
    ) -> None:
        """Start them; ``network`` has a host for each, or None for this machine's loopback."""
        leaves = tuple(f"w{number}" for number in range(1, shape.leaves + 1))
        names = (CENTRE, *leaves)
        pairs = {name: keys.generate() for name in names}
        port = _port()
        self._shape = shape
        self._processes: list[subprocess.Popen[str]] = []
        for name in names:
            part = Part(
                name=name,
                leaves=leaves,
                centre_sends=shape.centre_sends,
                payload_bytes=shape.payload_bytes,
                window=queue_messages(shape.payload_bytes // 4),
                host=network.address(CENTRE) if network else "127.0.0.1",
                port=port,
                encrypted=encrypted,
                keys={each: (pair.public, pair.secret) for each, pair in pairs.items()},
            )
            words = [str(python), "-m", f"benchmarks.{module}", part.to_json()]
            process = subprocess.Popen(
                network.command(name, *words) if network else words,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def warm_up(self) -> None:
        """Wait until all are ready, and run a burst that does not count."""
        for process in self._processes:
            assert _line(process) == "ready\n", "a process ended"
        self.turn()

    def turn(self) -> Turn:
        """Run one burst."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{self._shape.count}\n")
            process.stdin.flush()
        told = [json.loads(_line(process)) for process in self._processes]
        began, ended = min(each["began"] for each in told), max(each["ended"] for each in told)
        return Turn(ended - began, sum(each["cpu"] for each in told))


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], PATIENCE_SECONDS)[0]:
        sys.exit("a burst has not ended: a message was lost")
    return process.stdout.readline()


_ports = iter(range(21000 + os.getpid() % 500 * 20, 32000, 2))


def _port() -> int:
    """A port that is free together with the next one."""
    for port in _ports:
        with suppress(OSError), socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", port))
            next_one.bind(("127.0.0.1", port + 1))
            return port
    raise SystemExit("no free ports")


def take_turns(
    stack: ExitStack, contestants: Mapping[str, Contestant], rounds: int
) -> list[dict[str, Turn]]:
    """What each contestant took in each round; the stack ends them."""
    for contestant in contestants.values():
        stack.enter_context(contestant)
    for contestant in contestants.values():
        contestant.warm_up()
    return [
        {name: contestant.turn() for name, contestant in contestants.items()} for _ in range(rounds)
    ]


def rates(shape: Shape, rounds: int) -> list[Row]:
    """The rows of a shape."""
    with ExitStack() as stack:
        contestants = {
            "raw": Contestant("burst_zmq", shape),
            "ours": Contestant("burst_ours", shape),
            "raw CURVE": Contestant("burst_zmq", shape, encrypted=True),
            "ours CURVE": Contestant("burst_ours", shape, encrypted=True),
        }
        if PEERS.exists():
            contestants["gRPC"] = Contestant("burst_grpc", shape, python=PEERS)
        turns = take_turns(stack, contestants, rounds)
    for name in contestants:
        seconds, cpu = (
            statistics.median(getattr(turn[name], what) for turn in turns) / shape.gigabytes
            for what in ("seconds", "cpu")
        )
        print(f"{shape.name:12} {name:10} {1 / seconds:6.2f} GB/s  {cpu:6.2f} CPU s/GB", flush=True)

    large = shape.payload_bytes >= 100 * MB

    def rate(table: str, ours: str, theirs: str, target: float) -> Row:
        ratios = [turn[theirs].seconds / turn[ours].seconds for turn in turns]
        unit = "x its rate"
        return _row(table, f"{shape.name}: {ours} / {theirs}", ratios, unit, f">= {target}")

    def cpu(table: str, ours: str, theirs: str, target: str) -> Row:
        ratios = [turn[ours].cpu / turn[theirs].cpu for turn in turns]
        return _row(table, f"{shape.name}: CPU, {ours} / {theirs}", ratios, "x its CPU", target)

    rows = [
        rate(PLAIN, "ours", "raw", 1.6 if large else 0.95),
        cpu(PLAIN, "ours", "raw", f"<= {0.7 if large else 1.2}"),
        rate(CURVE, "ours CURVE", "raw CURVE", 2.0 if large else 1.2),
        cpu(CURVE, "ours CURVE", "raw CURVE", ""),
    ]
    if "gRPC" in contestants:
        rows += [rate(GRPC, "ours", "gRPC", 3), rate(GRPC, "ours CURVE", "gRPC", 1)]
    return rows


def _row(table: str, work: str, ratios: Sequence[float], unit: str, target: str) -> Row:
    note = f"from {min(ratios):.2f} to {max(ratios):.2f}"
    return Row(table, work, statistics.median(ratios), unit, target, note)


def line(rounds: int) -> list[Row]:
    """What a centre and four leaves get through a line of 1 Gbit/s, each on a host of its own."""
    shape = LINE_SHAPE
    with ExitStack() as stack:
        hosts = (CENTRE, *(f"w{number}" for number in range(1, shape.leaves + 1)))
        network = stack.enter_context(joined(hosts))
        network.slow(1000)
        contestants = {
            "raw": Contestant("burst_zmq", shape, network=network),
            "ours CURVE": Contestant("burst_ours", shape, encrypted=True, network=network),
        }
        turns = take_turns(stack, contestants, rounds)
    rows = []
    for name, target in (("raw", ""), ("ours CURVE", ">= 0.88")):
        seconds = [turn[name].seconds for turn in turns]
        shares = [1e9 * shape.gigabytes / LINE_BYTES_PER_SECOND / each for each in seconds]
        rows.append(_row(LINE, f"{shape.name}: {name}", shares, "of the line", target))
    return rows


def headers(d: int = 1_750_000, calls: int = 2000) -> list[Row]:
    """Microseconds of what is done to a message besides its payload."""
    message, boot = Model(1, np.zeros(d, np.float32)), bytes(8)
    layout = Layout(d)
    frames = encode(message, boot, layout)
    rows = []
    for work, call in (
        ("encode", lambda: encode(message, boot, layout)),
        ("strict decode", lambda: decode_header(frames, layout)),
    ):
        seconds = timeit.repeat(call, number=calls, repeat=5, timer=time.process_time)
        rows.append(
            Row(HEADERS, work, 1e6 * min(seconds) / calls, "us", "", f"{len(frames)} frames")
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="shapes with these words: '100 MB', '4->1'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    words = parser.parse_args()
    # So that the processes end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    rows = []
    if not PEERS.exists():
        print("gRPC is skipped: make peers installs it")
    for shape in SHAPES:
        if words.only in shape.name:
            rows += rates(shape, words.rounds)
    if reason := lacking():
        print(f"the line of 1 Gbit/s is skipped: {reason}")
    elif words.only in LINE:
        rows += line(words.rounds)
    if words.only in HEADERS:
        rows += headers()
    print(markdown(sorted(rows, key=lambda row: TABLES.index(row.table))))
    if words.json:
        write(rows, words.json)


if __name__ == "__main__":
    main()
