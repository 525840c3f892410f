"""The protocol as plain state machines: events in, effects out, no input or output.

Who runs a node (a daemon, a simulation, a test) must:

1. call ``start`` once, then ``handle`` with one event at a time, always with a ``now`` (seconds of
   a clock that never goes back);
2. carry out the returned effects in their order; ``Aggregate`` and ``ComputeGradient`` may run
   elsewhere (``work``), and their result comes back as an event;
3. after each call read ``deadline``, and hand in ``DeadlinePassed`` once the clock gets there;
4. hand in ``Received`` only for messages whose sender is authenticated, whose vector has exactly
   d finite float32 coordinates, and never change a vector that went in or came out.
"""

from byzsgd.protocol.effects import (
    Aggregate,
    ComputeGradient,
    Effect,
    Publish,
    Refuse,
    SaveCheckpoint,
    Send,
    Stop,
)
from byzsgd.protocol.events import (
    Aggregated,
    DeadlinePassed,
    Event,
    GradientComputed,
    PeerConnected,
    Received,
    Report,
)
from byzsgd.protocol.node import Node
from byzsgd.protocol.server import ParameterServer
from byzsgd.protocol.worker import Worker

__all__ = [
    "Aggregate",
    "Aggregated",
    "ComputeGradient",
    "DeadlinePassed",
    "Effect",
    "Event",
    "GradientComputed",
    "Node",
    "ParameterServer",
    "PeerConnected",
    "Publish",
    "Received",
    "Refuse",
    "Report",
    "SaveCheckpoint",
    "Send",
    "Stop",
    "Worker",
]
