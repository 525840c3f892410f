"""The protocol as plain state machines: events in, effects out, no input or output.

Who runs a node (a daemon, a simulation, a test) must:

1. call ``start`` once, then ``handle`` with one event at a time, always with a ``now`` (seconds of
   a clock that never goes back);
2. carry out the returned effects in their order; ``Aggregate``, ``ComputeGradient`` and
   ``TryModel`` may run elsewhere (``work``), and their result comes back as an event;
3. after each call read ``deadline``, and hand in ``DeadlinePassed`` once the clock gets there;
4. hand in ``Received`` only for messages whose sender is authenticated, whose vector has exactly
   d finite float32 coordinates, and never change a vector that went in or came out.
"""

from byzsgd.protocol.effects import (
    Aggregate,
    ComputeGradient,
    Effect,
    NewLife,
    Publish,
    Refuse,
    SaveCheckpoint,
    Send,
    Stop,
    TryModel,
)
from byzsgd.protocol.events import (
    Aggregated,
    DeadlinePassed,
    Event,
    GradientComputed,
    ModelTried,
    PeerConnected,
    Received,
    Report,
    Result,
)
from byzsgd.protocol.node import Node
from byzsgd.protocol.overlapped import OverlappedServer
from byzsgd.protocol.server import ParameterServer
from byzsgd.protocol.synchronous import SynchronousServer, SynchronousWorker
from byzsgd.protocol.variant import server_of, worker_of
from byzsgd.protocol.worker import Worker

__all__ = [
    "Aggregate",
    "Aggregated",
    "ComputeGradient",
    "DeadlinePassed",
    "Effect",
    "Event",
    "GradientComputed",
    "ModelTried",
    "NewLife",
    "Node",
    "OverlappedServer",
    "ParameterServer",
    "PeerConnected",
    "Publish",
    "Received",
    "Refuse",
    "Report",
    "Result",
    "SaveCheckpoint",
    "Send",
    "Stop",
    "SynchronousServer",
    "SynchronousWorker",
    "TryModel",
    "Worker",
    "server_of",
    "worker_of",
]
