"""A worker that knows nothing of this code base: only docs/protocol.md, pyzmq and msgpack."""

import array
import asyncio
import struct
import threading

import msgpack
import numpy as np
import zmq

from byzsgd.messages import Gradient, Hello, Model, Pull

D = 300_000  # Two frames of payload.
FRAME_BYTES = 1 << 20


class ForeignWorker:
    """Works for one server, in a thread of its own, with blocking sockets."""

    def __init__(self, host, port, public, secret, server_public):
        self.context = zmq.Context()
        self.models = self.socket(zmq.SUB, public, secret, server_public)
        self.models.subscribe(b"m")
        self.models.connect(f"tcp://{host}:{port}")
        self.requests = self.socket(zmq.DEALER, public, secret, server_public)
        self.requests.connect(f"tcp://{host}:{port + 1}")

    def socket(self, kind, public, secret, server_public):
        socket = self.context.socket(kind)
        socket.linger = 30_000  # What was said last must go out before the socket is closed.
        socket.rcvtimeo = 30_000
        socket.curve_publickey = public
        socket.curve_secretkey = secret
        socket.curve_serverkey = server_public
        return socket

    def header(self, kind, step, **fields):
        return {"v": 1, "kind": kind, "step": step, "boot": b"a boot.."} | fields

    def say(self, kind, step, **fields):
        self.requests.send(msgpack.packb(self.header(kind, step, **fields)))

    def hear(self, socket):
        """A message as a map; the frames joined are one msgpack document."""
        frames = socket.recv_multipart()
        return msgpack.unpackb(b"".join(frames[1:] if socket is self.models else frames))

    def vector(self, message):
        assert message["n"] == len(message["data"]) // 4 == D
        return array.array("f", message["data"])  # This host is little-endian, as the wire is.

    def answer(self, step, coordinates):
        payload = array.array("f", coordinates).tobytes()
        fields = self.header("gradient", step, n=len(payload) // 4, data=b"")
        frames = [msgpack.packb(fields)[:-2] + b"\xc6" + struct.pack(">I", len(payload))]
        for low in range(0, len(payload), FRAME_BYTES):
            frames.append(payload[low : low + FRAME_BYTES])
        self.requests.send_multipart(frames)

    def work(self):
        """Say hello, pull a model, answer it and the next published one with gradients, and end."""
        self.say("hello", 0, reply=False, digests={})
        assert self.hear(self.requests)["reply"] is True
        self.say("pull", 5)
        model = self.hear(self.requests)
        self.answer(model["step"], [2 * x for x in self.vector(model)])
        model = self.hear(self.models)
        self.answer(model["step"], [-x for x in self.vector(model)])
        for socket in (self.models, self.requests):
            socket.close()
        self.context.term()


def test_a_worker_written_from_the_documentation_takes_part(net) -> None:
    """It pulls a model, hears a published one, and its gradients of both arrive."""
    vector = np.arange(D, dtype=np.float32)
    foreign = ForeignWorker(
        "127.0.0.1",
        net.port("s1"),
        net.keys["w1"].public.encode(),
        net.keys["w1"].secret.encode(),
        net.keys["s1"].public.encode(),
    )

    async def main() -> None:
        async with net.running("s1", d=D) as (s1, at_s1):
            assert await at_s1.message(Hello) == ("w1", Hello(0))
            s1.send(("w1",), Hello(5, reply=True))
            assert await at_s1.message(Pull) == ("w1", Pull(5))
            s1.send(("w1",), Model(6, vector))
            peer, gradient = await at_s1.message(Gradient)
            assert (peer, gradient.step) == ("w1", 6)
            assert (gradient.vector == 2 * vector).all()

            await at_s1.repeat_until(lambda: at_s1.received_, lambda: s1.publish(Model(7, vector)))
            peer, gradient = await at_s1.message(Gradient)
            assert (peer, gradient.step) == ("w1", 7)
            assert (gradient.vector == -vector).all()
            assert not at_s1.refused_

    thread = threading.Thread(target=foreign.work)
    thread.start()
    asyncio.run(main())
    thread.join()
