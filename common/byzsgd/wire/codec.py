"""Messages to frames and back; docs/protocol.md describes the bytes for other languages.

Frame 0 is a msgpack map. A vector's map ends in the header of a bin32 whose bytes are the frames
that follow, raw little-endian float32 or what ``halves`` makes of it: joined, the frames are one
msgpack document, and apart, no vector is ever copied into a document. Which coordinates are which
(their ``Layout``) follows from the cluster file, its task and the roles of both nodes, and never
from what is received.

What a peer sends is believed in this order: sizes (``limits``), header (strictly: exactly the
known keys, each once, each of exactly its type), announced length against the configured one, and
only then the payload. Nothing but ``WireError`` leaves ``decode``, whatever the bytes.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import msgpack
import numpy as np

from byzsgd.errors import WireError
from byzsgd.messages import (
    STEP_MAX,
    GatherModel,
    Gradient,
    Hello,
    Message,
    Model,
    Pull,
    Reason,
)
from byzsgd.vectors import Vector, copy_finite, is_finite, is_vector
from byzsgd.wire import halves, limits
from byzsgd.wire.limits import Layout

Frame: TypeAlias = bytes | bytearray | memoryview
"""One frame as received: anything flat whose ``len`` is its number of bytes."""


class Kind(StrEnum):
    """The word for a message's type on the wire and in metric labels."""

    MODEL = "model"
    GATHER = "gather"
    GRADIENT = "gradient"
    PULL = "pull"
    HELLO = "hello"


VECTOR_KINDS: Mapping[Kind, type[Model] | type[GatherModel] | type[Gradient]] = {
    Kind.MODEL: Model,
    Kind.GATHER: GatherModel,
    Kind.GRADIENT: Gradient,
}
"""Kinds that carry a vector; the others are a header alone."""

KIND_OF: Mapping[type[Message], Kind] = {
    Model: Kind.MODEL,
    GatherModel: Kind.GATHER,
    Gradient: Kind.GRADIENT,
    Pull: Kind.PULL,
    Hello: Kind.HELLO,
}
"""The kind of each type of message."""

_COMMON_KEYS = frozenset(("v", "kind", "step", "boot"))
_KEYS: Mapping[Kind, frozenset[str]] = {
    **dict.fromkeys(VECTOR_KINDS, _COMMON_KEYS | {"n", "data"}),
    Kind.PULL: _COMMON_KEYS,
    Kind.HELLO: _COMMON_KEYS | {"reply", "digests"},
}
_KIND_NAMED: Mapping[object, Kind] = {kind.value: kind for kind in Kind}

_EMPTY_BIN = msgpack.packb(b"")
_BIN32 = struct.Struct(">BI")
_BIN32_CODE = 0xC6
_FLOAT32 = np.dtype("<f4")  # On a big-endian host, the two copies below also swap bytes.


@dataclass(frozen=True, slots=True)
class Received:
    """A message that a peer may have meant; whether it counts is the protocol's affair."""

    message: Message
    boot: bytes
    """Chance bytes of the sender's process: others than before mean that it has restarted."""


@dataclass(frozen=True, slots=True)
class Header:
    """What frame 0 says, already checked; no byte of a payload has been read."""

    kind: Kind
    step: int
    boot: bytes
    payload_bytes: int
    """Bytes of all the following frames; 0 for a kind that is a header alone."""
    reply: bool = False
    digests: Mapping[str, bytes] | None = None


def encode(message: Message, boot: bytes, layout: Layout | None = None) -> list[bytes | memoryview]:
    """The frames of a message; those of a vector are views of it, so it may not change any more.

    Args:
        message: Its vector, if any, is ``(d,)`` float32, C-contiguous.
        boot: 8 chance bytes of this process.
        layout: Of the vector; where it rounds, the frames are a copy. None stands for float32.
    """
    # Half a message in a socket would be glued to the next one: whatever can be wrong is found
    # here, before the first frame goes out.
    assert 0 <= message.step <= STEP_MAX
    assert len(boot) == limits.BOOT_BYTES
    kind = KIND_OF[type(message)]
    fields: dict[str, Any] = {
        "v": limits.VERSION,
        "kind": kind.value,
        "step": message.step,
        "boot": boot,
    }
    if isinstance(message, Model | GatherModel | Gradient):
        return _encode_vector(fields, message.vector, layout or Layout(message.vector.size))
    if isinstance(message, Hello):
        assert len(message.digests) <= limits.DIGESTS_MAX
        fields |= {"reply": message.reply, "digests": dict(message.digests)}
    header: bytes = msgpack.packb(fields)
    assert len(header) <= limits.HEADER_BYTES_MAX
    return [header]


def _encode_vector(
    fields: dict[str, Any], vector: Vector, layout: Layout
) -> list[bytes | memoryview]:
    assert is_vector(vector, layout.d)
    assert layout.d <= limits.COORDINATES_MAX
    packed: bytes = msgpack.packb(fields | {"n": layout.d, "data": b""})
    header = packed.removesuffix(_EMPTY_BIN) + _BIN32.pack(_BIN32_CODE, layout.payload_bytes)
    payload = _payload(vector, layout)
    cuts = range(0, len(payload), limits.FRAME_BYTES)
    return [header, *(payload[low : low + limits.FRAME_BYTES] for low in cuts)]


def _payload(vector: Vector, layout: Layout) -> memoryview:
    """The bytes of a vector: its own memory, unless some of it is rounded."""
    if not layout.rounded:
        return vector.astype(_FLOAT32, copy=False).data.cast("B")
    payload = np.empty(layout.payload_bytes, dtype=np.uint8)
    rounded, exact = payload[: 2 * layout.rounded], payload[2 * layout.rounded :]
    halves.pack(vector[: layout.rounded], layout.wire_type, rounded)
    exact[...] = vector[layout.rounded :].astype(_FLOAT32, copy=False).view(np.uint8)
    return payload.data


def decode(frames: Sequence[Frame], layout: Layout) -> Received:
    """The message in these frames; its vector is a copy of its own.

    Args:
        frames: As received, without routing id or topic.
        layout: Of vectors from their sender.

    Raises:
        WireError: Its reason says why this is no message that may count.
    """
    return complete(decode_header(frames, layout), frames, layout)


def decode_header(frames: Sequence[Frame], layout: Layout) -> Header:
    """What frame 0 says, after every check that needs no look at a payload.

    Takes microseconds whatever the message; ``complete`` does the rest, in a thread if it is much.

    Args:
        frames: As received, without routing id or topic.
        layout: Of vectors from their sender.

    Raises:
        WireError: ``malformed``, ``version`` or ``wrong-length``.
    """
    limits.check_sizes([len(frame) for frame in frames], layout)
    payload_bytes = sum(len(frame) for frame in frames[1:])
    fields = _unpack(bytes(frames[0]), payload_bytes)
    version = fields.get("v")
    if type(version) is int and version != limits.VERSION:
        raise WireError(Reason.VERSION, f"{version}, and this node speaks {limits.VERSION}")
    header = _strict(fields, payload_bytes)
    if payload_bytes and fields["n"] != layout.d:
        raise WireError(Reason.WRONG_LENGTH, f"{fields['n']} coordinates, not {layout.d}")
    return header


def _unpack(frame: bytes, payload_bytes: int) -> dict[str, Any]:
    """The map in frame 0; where frames follow, "data" comes last in it, as an empty bin."""
    if payload_bytes:
        if frame[-_BIN32.size :] != _BIN32.pack(_BIN32_CODE, payload_bytes):
            raise WireError(Reason.MALFORMED, "no bin32 header of the payload ends the header")
        frame = frame[: -_BIN32.size] + _EMPTY_BIN
    try:
        pairs = msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_Pairs,
            max_str_len=limits.TEXT_BYTES_MAX,
            max_bin_len=limits.BOOT_BYTES,
            max_map_len=limits.DIGESTS_MAX,
            max_array_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException):
        # The text of the cause may quote the peer at length; this says all that matters.
        raise WireError(Reason.MALFORMED, "a header that is no msgpack map") from None
    if not isinstance(pairs, _Pairs) or (payload_bytes and pairs[-1:] != [("data", b"")]):
        raise WireError(Reason.MALFORMED, "a header that is no msgpack map ending in its data")
    return _unique(pairs)


class _Pairs(list[tuple[Any, Any]]):
    """A msgpack map before duplicate keys are lost; no peer can send one in any other way."""


def _unique(pairs: _Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WireError(Reason.MALFORMED, "a key twice")
    return found


def _strict(fields: dict[str, Any], payload_bytes: int) -> Header:
    """A header of exactly the known keys, each of exactly its type: True is no integer here."""
    name, step, boot = fields.get("kind"), fields.get("step"), fields.get("boot")
    kind = _KIND_NAMED.get(name) if type(name) is str else None
    if kind is None:
        raise WireError(Reason.MALFORMED, "an unknown kind")
    if (kind in VECTOR_KINDS) != bool(payload_bytes) or fields.keys() != _KEYS[kind]:
        raise WireError(Reason.MALFORMED, f"not the keys and frames of kind {kind}")
    if type(fields["v"]) is not int:
        raise WireError(Reason.MALFORMED, "a version that is no integer")
    if type(step) is not int or not 0 <= step <= STEP_MAX:
        raise WireError(Reason.MALFORMED, "a step that is no integer of its range")
    if type(boot) is not bytes or len(boot) != limits.BOOT_BYTES:
        raise WireError(Reason.MALFORMED, f"a boot that is not {limits.BOOT_BYTES} bytes")
    if kind in VECTOR_KINDS and type(fields["n"]) is not int:
        raise WireError(Reason.MALFORMED, "a length that is no integer")
    if kind is not Kind.HELLO:
        return Header(kind, step, boot, payload_bytes)
    if type(fields["reply"]) is not bool:
        raise WireError(Reason.MALFORMED, "a reply that is no boolean")
    return Header(kind, step, boot, 0, fields["reply"], _digests(fields["digests"]))


def _digests(pairs: object) -> Mapping[str, bytes]:
    if not isinstance(pairs, _Pairs):
        raise WireError(Reason.MALFORMED, "digests that are no map")
    digests = _unique(pairs)
    for key, digest in digests.items():
        # These keys are shown to people: a peer writes no control character into a log.
        if type(key) is not str or not (key.isascii() and key.isidentifier()):
            raise WireError(Reason.MALFORMED, "a digest whose key is no name")
        if type(digest) is not bytes or len(digest) != limits.DIGEST_BYTES:
            raise WireError(Reason.MALFORMED, f"a digest that is not {limits.DIGEST_BYTES} bytes")
    return digests


def complete(header: Header, frames: Sequence[Frame], layout: Layout) -> Received:
    """The message that a checked header begins; copies its payload, without the GIL if large.

    Args:
        header: What ``decode_header`` returned for these very frames.
        frames: As received, without routing id or topic.
        layout: What ``decode_header`` was given.

    Raises:
        WireError: ``non-finite``.
    """
    message: Message
    if header.kind is Kind.PULL:
        message = Pull(header.step)
    elif header.kind is Kind.HELLO:
        message = Hello(header.step, header.digests or {}, header.reply)
    else:
        message = VECTOR_KINDS[header.kind](header.step, _take_payload(frames[1:], layout))
    return Received(message, header.boot)


def _take_payload(payload: Sequence[Frame], layout: Layout) -> Vector:
    """``(d,)`` float32, newly allocated and aligned, as a small received frame may not be."""
    vector = np.empty(layout.d, dtype=np.float32)
    if layout.rounded:
        _take_rounded(payload, layout, vector)
        return vector
    low = 0
    for index, frame in enumerate(payload, start=1):
        block = vector[low : low + len(frame) // 4]
        if not copy_finite(np.frombuffer(frame, dtype=_FLOAT32), block):
            raise _non_finite(index)
        low += len(block)
    return vector


def _take_rounded(payload: Sequence[Frame], layout: Layout, vector: Vector) -> None:
    """Write the coordinates of halves, and of float32 after them, which frames cut anywhere."""
    low, exact = 0, vector[layout.rounded :]
    unwritten = exact.view(np.uint8)
    for index, frame in enumerate(payload, start=1):
        block = vector[low : min(low + len(frame) // 2, layout.rounded)]
        halves.unpack(frame[: 2 * len(block)], layout.wire_type, block)
        if not is_finite(block):
            raise _non_finite(index)
        low += len(block)
        rest = np.frombuffer(frame[2 * len(block) :], dtype=np.uint8)
        unwritten[: len(rest)] = rest
        unwritten = unwritten[len(rest) :]
    if not copy_finite(exact.view(_FLOAT32), exact):
        raise WireError(Reason.NON_FINITE, "a buffer")


def _non_finite(index: int) -> WireError:
    return WireError(Reason.NON_FINITE, f"a coordinate of frame {index}")
