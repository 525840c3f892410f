"""Hosts of their own for the nodes of a cluster, and everything that a network can do to them.

Every host is a network namespace, joined to the others by a hub that forwards, and to nothing
else: the machine's own network is not touched. Faults are made at the hub. It needs root, ``ip``,
``tc``, ``nft``, and ``iptables`` for delays.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PREFIX = "byzsgd"
"""Of the names of namespaces: after it come the process that made it, and the host."""

HUB = "hub"
NEEDED = ("ip", "tc", "nft", "iptables", "unshare")
CLONE_NEWNET = 0x40000000
QUEUE = "0"

DELAYER = Path(__file__).with_name("delayer.py")


def lacking() -> str:
    """What keeps this machine from having namespaces, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root may make network namespaces"
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        return f"{', '.join(missing)} missing: apt-get install iproute2 nftables iptables"
    if subprocess.run(["unshare", "--net", "--mount", "true"], check=False).returncode != 0:
        return "this machine allows no namespaces"
    return ""


class Network:
    """Hosts in namespaces; ``joined`` makes them."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = {host: number for number, host in enumerate(hosts, 1)}
        """The number of each host."""
        self._moves = dict.fromkeys(hosts, 0)
        self._delayer: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Make the hosts, and the hub between them."""
        self._add(HUB)
        self._in(HUB, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._rules("add table ip faults")
        self._rules("add chain ip faults passing { type filter hook forward priority 0 ; }")
        for host, number in self.hosts.items():
            self._add(host)
            run("ip", "link", "add", f"h{number}", "netns", self._name(HUB), "type", "veth",
                "peer", "name", "eth0", "netns", self._name(host))  # fmt: skip
            for address in (f"10.77.{number}.1/24", f"10.78.{number}.1/24"):
                run("ip", "-n", self._name(HUB), "addr", "add", address, "dev", f"h{number}")
            for address in (f"{self.address(host)}/24", f"{self.window(host)}/24"):
                run("ip", "-n", self._name(host), "addr", "add", address, "dev", "eth0")
            run("ip", "-n", self._name(HUB), "link", "set", f"h{number}", "up")
            run("ip", "-n", self._name(host), "link", "set", "eth0", "up")
            route = ("route", "add", "default", "via", f"10.77.{number}.1")
            run("ip", "-n", self._name(host), *route)
        self._tell_addresses()
        self._eye = self.threads(HUB, 8)

    def close(self) -> None:
        """Remove the hosts, and end what still runs in them."""
        if hasattr(self, "_eye"):
            self._eye.shutdown()
        self._end_delay()
        for host in (*self.hosts, HUB):
            remove(self._name(host))

    # Hosts

    def address(self, host: str) -> str:
        """Where other hosts reach a host now."""
        return f"10.77.{self.hosts[host]}.{2 + self._moves[host]}"

    def window(self, host: str) -> str:
        """Where the hub alone reaches a host, whatever happens to it."""
        return f"10.78.{self.hosts[host]}.2"

    def command(self, host: str, *words: str) -> list[str]:
        """The command line that runs another one on a host."""
        return ["ip", "netns", "exec", self._name(host), *words]

    def threads(self, host: str, count: int = 1) -> ThreadPoolExecutor:
        """Threads of this process whose sockets are those of a host."""
        return ThreadPoolExecutor(count, host, self._enter, (host,))

    def look(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The future of a call that sees the network from the hub: no fault is in its way."""
        return self._eye.submit(call, *arguments)

    def move(self, host: str) -> None:
        """Give a host another address, and tell it everybody who asks for its name."""
        old = f"{self.address(host)}/24"
        self._moves[host] += 1
        run("ip", "-n", self._name(host), "addr", "del", old, "dev", "eth0")
        run("ip", "-n", self._name(host), "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        # Routes went with the last address of their network.
        number = self.hosts[host]
        route = ("route", "replace", "default", "via", f"10.77.{number}.1")
        run("ip", "-n", self._name(host), *route)
        self._tell_addresses()

    # Faults

    def cut(self, *hosts: str) -> None:
        """Lose everything from these hosts and to them."""
        for host in hosts:
            self._rules(
                f"add rule ip faults passing ip saddr {self._net(host)} drop",
                f"add rule ip faults passing ip daddr {self._net(host)} drop",
            )

    def block(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Lose everything from some hosts to others; answers come through."""
        of, to = (", ".join(map(self._net, hosts)) for hosts in (sources, targets))
        self._rules(f"add rule ip faults passing ip saddr {{ {of} }} ip daddr {{ {to} }} drop")

    def reset(self, host: str) -> None:
        """Answer everything from a host and to it with a TCP reset."""
        for side in ("saddr", "daddr"):
            end = "meta l4proto tcp reject with tcp reset"
            self._rules(f"add rule ip faults passing ip {side} {self._net(host)} {end}")

    def lose(self, percent: int) -> None:
        """Lose some packets of everybody, by chance."""
        self._rules(f"add rule ip faults passing numgen random mod 100 < {percent} drop")

    def slow(self, megabits: int, *hosts: str) -> None:
        """Let each of these hosts, or of all, send and receive no more than this in a second."""
        limit = ("root", "tbf", "rate", f"{megabits}mbit", "burst", "64kb", "latency", "200ms")
        for host in hosts or self.hosts:
            self._in(HUB, "tc", "qdisc", "add", "dev", f"h{self.hosts[host]}", *limit)
            self._in(host, "tc", "qdisc", "add", "dev", "eth0", *limit)

    def delay(self, milliseconds: int) -> None:
        """Hold up every packet, each way."""
        words = self.command(HUB, sys.executable, str(DELAYER), QUEUE, str(milliseconds))
        self._delayer = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self._delayer.stdout is not None
        if self._delayer.stdout.readline() != b"ready\n":
            raise RuntimeError("packets cannot be delayed on this machine")
        self._in(HUB, "iptables", "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", QUEUE)

    def heal(self) -> None:
        """End every fault."""
        self._rules("flush chain ip faults passing")
        if self._delayer:
            self._in(HUB, "iptables", "-F", "FORWARD")
            self._end_delay()
        for host, number in self.hosts.items():
            self._in(HUB, "tc", "qdisc", "del", "dev", f"h{number}", "root", check=False)
            self._in(host, "tc", "qdisc", "del", "dev", "eth0", "root", check=False)

    # How

    def _name(self, host: str) -> str:
        return f"{PREFIX}-{os.getpid()}-{host}"

    def _net(self, host: str) -> str:
        return f"10.77.{self.hosts[host]}.0/24"

    def _add(self, host: str) -> None:
        run("ip", "netns", "add", self._name(host))
        run("ip", "-n", self._name(host), "link", "set", "lo", "up")
        _files(self._name(host)).mkdir(parents=True)

    def _in(self, host: str, *words: str, check: bool = True) -> None:
        run(*self.command(host, *words), check=check)

    def _rules(self, *lines: str) -> None:
        self._in(HUB, "nft", "; ".join(lines))

    def _tell_addresses(self) -> None:
        lines = [f"{self.address(host)} {host}\n" for host in self.hosts]
        text = "127.0.0.1 localhost\n" + "".join(lines)
        for host in (*self.hosts, HUB):
            # In place: what runs there has this very file for its /etc/hosts.
            (_files(self._name(host)) / "hosts").write_text(text)

    def _enter(self, host: str) -> None:
        """Move this thread, and those that it starts, to a host."""
        with Path("/run/netns", self._name(host)).open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"no thread can enter {host}")

    def _end_delay(self) -> None:
        if self._delayer:
            self._delayer.kill()
            self._delayer.communicate()
            self._delayer = None


@contextmanager
def joined(hosts: Sequence[str]) -> Iterator[Network]:
    """Hosts that reach one another, of which nothing is left."""
    remove_leftovers()
    network = Network(hosts)
    try:
        network.make()
        yield network
    finally:
        network.close()


def _files(namespace: str) -> Path:
    """What ``ip netns exec`` puts in the place of files in /etc."""
    return Path("/etc/netns", namespace)


def remove_leftovers() -> None:
    """Remove the hosts of runs that have ended without doing so."""
    for namespace in Path("/run/netns").glob(f"{PREFIX}-*"):
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-\w+", namespace.name)
        if owner and not Path("/proc", owner[1]).exists():
            remove(namespace.name)


def remove(namespace: str) -> None:
    """Remove a host, and end what still runs in it."""
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, check=False)
    for pid in found.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "del", namespace, check=False)
    shutil.rmtree(_files(namespace), ignore_errors=True)


def run(*words: str, check: bool = True) -> None:
    """Run a command; what it says belongs to the error."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
