"""Every size on the wire, and the check that frames keep to it before their bytes are believed."""

from collections.abc import Sequence

from byzsgd.errors import WireError
from byzsgd.messages import Reason

KIB = 1024
MIB = 1024 * KIB

VERSION = 1
"""Of this wire format. Another one is refused, and the refusal says so."""

FRAME_BYTES = 1 * MIB
"""Payload bytes of a full frame. A megabyte passes any usable line in seconds, two frames of one
message can be encrypted and sent at once, and a receiver's limit on the size of a frame, which is
what a peer can make it hold before it has logged in, stays small."""

HEADER_BYTES_MAX = 1 * KIB
"""Of frame 0. msgpack can ask for far more memory than it is long; what is short asks little."""

COORDINATES_MAX = (2**32 - 1) // 4
"""Of a vector: a bin32 of msgpack holds no more than 4 GiB - 1 byte, and every vector travels as
float32 somewhere."""

BOOT_BYTES = 8
"""Of the chance bytes that tell one life of a process from the next."""

DIGEST_BYTES = 4
"""Of the digest of one key's value in a hello: enough to name a difference, not to prove equality
against an adversary; nothing is decided by it."""

DIGESTS_MAX = 32
"""Keys in a hello."""

TEXT_BYTES_MAX = 64
"""Of any text in a header."""


def frame_count(d: int, itemsize: int = 4) -> int:
    """How many frames a vector of ``d`` coordinates travels in, its header among them.

    Args:
        d: Coordinates.
        itemsize: Bytes of each.
    """
    return 1 + -(-itemsize * d // FRAME_BYTES)


def check_sizes(sizes: Sequence[int], d: int, itemsize: int = 4) -> None:
    """Returns when frames of these sizes can be a message; their content is not looked at.

    Args:
        sizes: Bytes of each frame, the header's first.
        d: Coordinates of every vector in this cluster.
        itemsize: Bytes of a coordinate.

    Raises:
        WireError: ``malformed``, when there are too many or too few frames, the header is too
            long, or the payload is not cut into full frames and one last, shorter or full.
            ``wrong-length``, when it is well cut, but does not hold exactly d coordinates.
    """
    if not sizes:
        raise WireError(Reason.MALFORMED, "no frame")
    if not 1 <= sizes[0] <= HEADER_BYTES_MAX:
        raise WireError(Reason.MALFORMED, f"a header of {sizes[0]} bytes")
    payload = sizes[1:]
    if not payload:
        return
    if len(sizes) > frame_count(d, itemsize):
        raise WireError(Reason.WRONG_LENGTH, f"{len(sizes)} frames for {d} coordinates")
    if any(size != FRAME_BYTES for size in payload[:-1]) or not 1 <= payload[-1] <= FRAME_BYTES:
        raise WireError(Reason.MALFORMED, "a payload that is not cut into full frames")
    if sum(payload) != itemsize * d:
        raise WireError(Reason.WRONG_LENGTH, f"{sum(payload)} bytes for {d} coordinates")
