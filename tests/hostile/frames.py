"""Frames of messages, right and wrong, made without the code that reads them."""

import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

BOOT = b"hostile!"
FRAME_BYTES = 1 << 20
STEPS = (-1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, True, 7.0, float("nan"), None, "7", b"7", [7], {})
"""No step of any message."""


def header(kind: str, step: Any = 0, **fields: Any) -> bytes:
    """A header of the common keys, with more of them or others."""
    return msgpack.packb({"v": 1, "kind": kind, "step": step, "boot": BOOT} | fields)


def vector(kind: str, step: Any, payload: bytes, **fields: Any) -> list[bytes]:
    """A message that carries a payload, well cut; ``fields`` may spoil its header."""
    packed = header(kind, step, **({"n": len(payload) // 4} | fields | {"data": b""}))
    cuts = range(0, len(payload), FRAME_BYTES)
    return [
        packed[:-2] + struct.pack(">BI", 0xC6, len(payload)),
        *(payload[low : low + FRAME_BYTES] for low in cuts),
    ]


def filled(d: int, value: float) -> bytes:
    """A payload of one number."""
    return np.full(d, value, np.float32).tobytes()


def hello(step: int, digests: dict[str, bytes]) -> list[bytes]:
    return [header("hello", step, reply=True, digests=digests)]


def malformed(kind: str, d: int) -> Iterator[list[bytes]]:
    """Messages of a kind that are none: malformed, of another version or another length."""
    right = vector(kind, 1, filled(d, 0.5))
    yield [b""]
    yield [b"\0" * 1024]
    yield [b"\xff" * 1025]
    yield [b"\xc1"]
    yield right[:1]  # No payload.
    yield [right[0][:-1], *right[1:]]
    yield [right[0], *right[1:-1], right[-1][:-1]]
    yield [right[0], *right[1:-1], right[-1][:-4]]
    yield [right[0], *right[1:], b"x"]
    yield [right[0], b"", *right[1:]]
    yield [right[0]] + [right[1][:1]] * 4
    yield vector(kind, 1, filled(d + 1, 0.5))
    yield vector(kind, 1, filled(max(d - 1, 1), 0.5))
    yield vector(kind, 1, np.full(d, 0.5, np.float64).tobytes())
    yield vector(kind, 1, np.full(d, 0.5, np.float16).tobytes() + b"x" * (d % 2 * 2))
    yield vector(kind, 1, filled(d, 0.5), n=d + 1)
    yield vector(kind, 1, filled(d, 0.5), n=2**32)
    yield vector(kind, 1, filled(d, 0.5), n=-1)
    yield vector(kind, 1, filled(d, 0.5), n=float(d))
    yield vector(kind, 1, filled(d, 0.5), v=2)
    yield vector(kind, 1, filled(d, 0.5), v=True)
    yield vector(kind, 1, filled(d, 0.5), weight=1e9)
    yield vector("vote", 1, filled(d, 0.5))
    for step in STEPS:
        yield vector(kind, step, filled(d, 0.5))
        yield [header("pull", step)]
        yield [header("hello", step, reply=True, digests={})]
    yield [header("hello", 1, reply=1, digests={})]
    yield [header("hello", 1, reply=True, digests={"a\x1b[2J": b"abcd"})]
    yield [header("hello", 1, reply=True, digests={f"k{n}": b"abcd" for n in range(99)})]
    yield [b"\x80" * 1024]
    yield [b"\x91" * 1024]
    yield [b"\x81\xa1a" * 300]
    yield [b"\xdd\xff\xff\xff\xff"]
    yield [b"\xdf\xff\xff\xff\xff"]
    yield [b"\xc6\xff\xff\xff\xff"]
    yield [b"\xd6\xff" + bytes(4)]
    yield [b"\x90" * FRAME_BYTES]
    yield [b"\x80" * FRAME_BYTES, b"\x80" * FRAME_BYTES]
    yield [b"\x91" * 500, filled(d, 0.5)]
