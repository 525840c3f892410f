"""Messages between authenticated identities: the contract, and ZeroMQ with CURVE behind it."""

from byzsgd.transport.base import (
    STRANGER,
    Direction,
    Handlers,
    Statistics,
    Transport,
    TransportError,
)
from byzsgd.transport.connection import SUPPORTED as WATCHES_MEMORY
from byzsgd.transport.guard import (
    CONNECTIONS_MAX,
    LOGIN_BYTES,
    POLL_SECONDS,
    SPARE_BYTES,
    STRANGERS_MAX,
    SUBSCRIPTION_BYTES,
    identity_bytes,
    message_bytes,
)
from byzsgd.transport.knock import Knock, knock
from byzsgd.transport.zeromq import ZeroMQ, is_address, queue_messages

__all__ = [
    "CONNECTIONS_MAX",
    "LOGIN_BYTES",
    "POLL_SECONDS",
    "SPARE_BYTES",
    "STRANGER",
    "STRANGERS_MAX",
    "SUBSCRIPTION_BYTES",
    "WATCHES_MEMORY",
    "Direction",
    "Handlers",
    "Knock",
    "Statistics",
    "Transport",
    "TransportError",
    "ZeroMQ",
    "identity_bytes",
    "is_address",
    "knock",
    "message_bytes",
    "queue_messages",
]
