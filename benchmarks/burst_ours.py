"""Our transport, as the daemons run it: uvloop, the allocator tuned, every check.

The centre publishes models, the leaves send gradients, hellos acknowledge them. Without
encryption, which the product does not have, the same code logs in with ZeroMQ's PLAIN in the place
of CURVE: the name is the public key, and nothing after the login is encrypted or signed.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import uvloop
from benchmarks import keyless
from benchmarks.burst import CENTRE, Part, Receiver, Sender, cpu_seconds, report, say

from byzsgd.cluster import Cluster
from byzsgd.messages import Gradient, Hello, Message, Model, Reason
from byzsgd.transport import ZeroMQ, malloc

SUBSCRIBED_SECONDS = 0.5
"""After a hello, a subscription should have come too."""


class Node:
    """One process: the handlers of a transport, and what they count."""

    def __init__(self, part: Part) -> None:
        nodes = [
            {"id": name, "role": "server" if name == CENTRE else "worker", "public_key": public}
            for name, (public, _) in part.keys.items()
        ]
        nodes[0]["address"] = f"{part.host}:{part.port}"
        mapping = {"f_servers": 0, "f_workers": 0, "task": "digits", "nodes": nodes}
        secret = part.keys[part.name][1]
        d = part.payload_bytes // 4
        self._part = part
        self._vector = np.random.default_rng(1).standard_normal(d, dtype=np.float32)
        self.transport = ZeroMQ(part.name, Cluster.from_mapping(mapping), secret, d, self)
        self.counter = Sender(part, self.send) if part.sends else Receiver(part)
        self.heard = set[str]()
        self._changed = asyncio.Event()

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for what a message can change."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def send(self, number: int) -> None:
        if self._part.is_centre:
            self.transport.publish(Model(number, self._vector))
        else:
            self.transport.send((CENTRE,), Gradient(number, self._vector))

    def received(self, peer: str, message: Message) -> None:
        self.heard.add(peer)
        if isinstance(self.counter, Sender):
            self.counter.acknowledged(peer, message.step)
        elif not isinstance(message, Hello):
            self.counter.got(peer, message.step)
            self.transport.send((peer,), Hello(message.step))
        self._changed.set()

    def refused(self, peer: str, reason: Reason, detail: str) -> None:
        sys.exit(f"{self._part.name} refused {peer}: {reason}: {detail}")

    def connected(self, peer: str) -> None:
        # As daemons do: the guard gives those that have said nothing less room.
        self.transport.send((peer,), Hello(0))
        self.heard.add(peer)
        self._changed.set()

    def disconnected(self, peer: str) -> None: ...


async def take_part(part: Part) -> None:
    """Take part in bursts until the parent closes the pipe."""
    node = Node(part)
    await node.transport.open()
    run = asyncio.create_task(node.transport.run())
    if isinstance(node.counter, Sender):
        await node.wait(lambda: node.heard >= set(part.peers))
        await asyncio.sleep(SUBSCRIBED_SECONDS)
        while not node.counter.is_warm:
            node.counter.warm_up()
            with suppress(TimeoutError):
                async with asyncio.timeout(part.repeat_seconds):
                    await node.wait(lambda: node.counter.is_warm)
    say()
    while line := await asyncio.to_thread(sys.stdin.readline):
        cpu = cpu_seconds()
        node.counter.start(int(line))
        await node.wait(lambda: node.counter.done)
        report(node.counter.began, node.counter.ended, cpu_seconds() - cpu)
    run.cancel()
    node.transport.close()


def main() -> None:
    malloc.tune()
    part = Part.from_json(sys.argv[1])
    if not part.encrypted:
        keyless.log_in_plainly()
    with suppress(asyncio.CancelledError):
        uvloop.run(take_part(part))


if __name__ == "__main__":
    main()
