"""The bytes of this suite: messages to frames and back, with a limit on everything.

``docs/protocol.md`` describes them completely enough to write a peer in another language.
"""

from byzsgd.wire.codec import (
    KIND_OF,
    Frame,
    Header,
    Kind,
    Received,
    complete,
    decode,
    decode_header,
    encode,
)
from byzsgd.wire.limits import BOOT_BYTES, FRAME_BYTES, Layout

__all__ = [
    "BOOT_BYTES",
    "FRAME_BYTES",
    "KIND_OF",
    "Frame",
    "Header",
    "Kind",
    "Layout",
    "Received",
    "complete",
    "decode",
    "decode_header",
    "encode",
]
