"""Every size on the wire, and the check that frames keep to it before their bytes are believed."""

from collections.abc import Sequence
from dataclasses import dataclass

from byzsgd.cluster import WireType
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


@dataclass(frozen=True, slots=True)
class Layout:
    """How every vector lies on the wire between two nodes: both know, and no message says.

    First come the coordinates that are rounded, as halves, then all others as float32. Layouts of
    the same d that differ in what they round differ in the length of the payload.
    """

    d: int
    """Coordinates of a vector."""
    wire_type: WireType = WireType.FLOAT32
    """What its coordinates travel as, but for buffers."""
    buffers: int = 0
    """So many at the end are buffers, and float32 always: a running average changes by less in a
    step than a half can tell, and would stand still."""

    def __post_init__(self) -> None:
        assert 0 <= self.buffers < self.d

    def __str__(self) -> str:
        among = f", {self.buffers} of them buffers" if self.buffers and self.rounded else ""
        return f"{self.d} coordinates{among}"

    @property
    def rounded(self) -> int:
        """How many coordinates, from the first on, travel as halves."""
        return 0 if self.wire_type is WireType.FLOAT32 else self.d - self.buffers

    @property
    def payload_bytes(self) -> int:
        """Bytes of all frames but the header."""
        return 4 * self.d - 2 * self.rounded

    @property
    def frame_count(self) -> int:
        """How many frames a vector travels in, its header among them."""
        return 1 + -(-self.payload_bytes // FRAME_BYTES)


def check_sizes(sizes: Sequence[int], layout: Layout) -> None:
    """Returns when frames of these sizes can be a message; their content is not looked at.

    Args:
        sizes: Bytes of each frame, the header's first.
        layout: Of vectors from their sender.

    Raises:
        WireError: ``malformed``, when there are too many or too few frames, the header is too
            long, or the payload is not cut into full frames and one last, shorter or full.
            ``wrong-length``, when it is well cut, but does not hold exactly one vector.
    """
    if not sizes:
        raise WireError(Reason.MALFORMED, "no frame")
    if not 1 <= sizes[0] <= HEADER_BYTES_MAX:
        raise WireError(Reason.MALFORMED, f"a header of {sizes[0]} bytes")
    payload = sizes[1:]
    if not payload:
        return
    if len(sizes) > layout.frame_count:
        raise WireError(Reason.WRONG_LENGTH, f"{len(sizes)} frames for {layout}")
    if any(size != FRAME_BYTES for size in payload[:-1]) or not 1 <= payload[-1] <= FRAME_BYTES:
        raise WireError(Reason.MALFORMED, "a payload that is not cut into full frames")
    if sum(payload) != layout.payload_bytes:
        raise WireError(
            Reason.WRONG_LENGTH, f"{sum(payload)} bytes, not the {layout.payload_bytes} of {layout}"
        )
