"""What must hold of the decoder for any bytes: one property, for pytest and for the fuzzer."""

from collections.abc import Sequence

from byzsgd.cluster import WireType
from byzsgd.errors import WireError
from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Model, Reason
from byzsgd.vectors import is_finite, is_vector
from byzsgd.wire import Layout, Received, decode, encode
from byzsgd.wire.codec import Frame

D = 3
"""Coordinates of every vector here: what is checked does not depend on how many there are."""

LAYOUTS = (
    *(Layout(D, wire_type) for wire_type in WireType),
    Layout(D, WireType.FLOAT16, 1),
    Layout(D, WireType.BFLOAT16, 2),
)
"""What nodes may agree on: the three types, and halves with buffers after them."""

DETAIL_CHARS_MAX = 200
"""Of a refusal's text, which goes into a log: a peer must not be able to fill that."""


def check(data: bytes) -> None:
    """Assert the property of the frames that some bytes stand for, whatever is agreed on."""
    for layout in LAYOUTS:
        check_frames(split(data), layout)


def check_frames(frames: Sequence[Frame], layout: Layout = LAYOUTS[0]) -> bool:
    """Whether frames are a message; assert that they are one in full, or refused in good order.

    A message comes back out of its own encoding, byte for byte, and its vector is the payload.
    What is refused raises ``WireError`` with a reason of the closed set and a short text.
    """
    received: Received | WireError
    try:
        received = decode(frames, layout)
    except WireError as refusal:
        received = refusal
    if isinstance(received, WireError):
        assert received.reason in set(Reason), received.reason
        assert len(str(received)) <= DETAIL_CHARS_MAX
        return False
    message = received.message
    assert type(message.step) is int
    assert 0 <= message.step <= STEP_MAX
    encoded = [bytes(frame) for frame in encode(message, received.boot, layout)]
    again = decode(encoded, layout)
    assert [bytes(frame) for frame in encode(again.message, again.boot, layout)] == encoded
    assert (type(again.message), again.message.step) == (type(message), message.step)
    if isinstance(message, Model | GatherModel | Gradient):
        assert is_vector(message.vector, D)
        assert is_finite(message.vector)
        assert b"".join(encoded[1:]) == b"".join(bytes(frame) for frame in frames[1:])
    return True


def join(frames: Sequence[Frame]) -> bytes:
    """Frames as one string of bytes, each with its length before it but the last one."""
    *others, last = map(bytes, frames)
    return b"".join(len(frame).to_bytes(2) + frame for frame in others) + b"\xff\xff" + last


def split(data: bytes) -> list[Frame]:
    """The frames that some bytes stand for: any bytes stand for some."""
    frames: list[Frame] = []
    while len(data) >= 2 and data[:2] != b"\xff\xff":
        size = int.from_bytes(data[:2])
        frames.append(data[2 : 2 + size])
        data = data[2 + size :]
    return [*frames, data[2:]]
