"""Messages between authenticated identities: the contract, and ZeroMQ with CURVE behind it."""

from byzsgd.transport.base import (
    STRANGER,
    Direction,
    Handlers,
    Statistics,
    Transport,
    TransportError,
)
from byzsgd.transport.zeromq import ZeroMQ

__all__ = [
    "STRANGER",
    "Direction",
    "Handlers",
    "Statistics",
    "Transport",
    "TransportError",
    "ZeroMQ",
]
