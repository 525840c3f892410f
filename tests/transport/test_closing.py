"""A node that stops while its peers do, with half of a message sent to each of them."""

import asyncio
import threading

import numpy as np
import zmq

from byzsgd.messages import Model

D = 3_000_000
"""More than the system's buffers hold, in a dozen frames."""

TIMES = 4


def test_no_process_ends_because_its_peers_leave_as_it_does(net, outsiders) -> None:
    """What is half sent to a connection that ends is thrown away before its socket is closed."""
    model = Model(1, np.ones(D, np.float32))
    outsiders.context.rcvhwm = 1  # Of the next message some is taken, the rest is on its way.

    async def stop_together() -> None:
        async with net.running("s1", d=D) as (s1, _):
            peers = [
                outsiders.dial(zmq.SUB, "s1", net.keys[worker], topic=b"m")
                for worker in ("w1", "w2") * 6
            ]
            for peer in peers:
                while not peer.poll(10):
                    s1.publish(model)
                    await asyncio.sleep(0)
            s1.publish(model)
            leaving = threading.Thread(target=lambda peers=peers: [peer.close() for peer in peers])
            leaving.start()
        leaving.join()

    for _ in range(TIMES):
        asyncio.run(stop_together())
