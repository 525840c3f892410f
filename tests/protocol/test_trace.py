"""The last events and effects of a node, capped."""

import numpy as np

from byzsgd.messages import GatherModel, Gradient, Hello, Model, Pull, Reason
from byzsgd.protocol import (
    Aggregate,
    Aggregated,
    ComputeGradient,
    DeadlinePassed,
    Effect,
    Event,
    GradientComputed,
    NewLife,
    PeerConnected,
    Publish,
    Received,
    Refuse,
    SaveCheckpoint,
    Send,
    Stop,
)
from byzsgd.protocol.trace import LINES_MAX, Trace, describe

VECTOR = np.zeros(10**6, np.float32)

EVENTS: list[tuple[Event, str]] = [
    (Received("w3", Gradient(7, VECTOR)), "Received Gradient step=7 peer=w3"),
    (Received("s2", GatherModel(8, VECTOR)), "Received GatherModel step=8 peer=s2"),
    (Received("op", Pull(9)), "Received Pull step=9 peer=op"),
    (PeerConnected("s2"), "PeerConnected peer=s2"),
    (Aggregated(7, VECTOR), "Aggregated step=7"),
    (GradientComputed(7, VECTOR), "GradientComputed step=7"),
    (DeadlinePassed(), "DeadlinePassed"),
]
EFFECTS: list[tuple[Effect, str]] = [
    (Send(("w1", "w2"), Pull(0)), "Send Pull step=0 peers=w1 w2"),
    (Send(("s2",), Hello(4)), "Send Hello step=4 peers=s2"),
    (Publish(Model(1, VECTOR)), "Publish Model step=1"),
    (
        Aggregate(1, "mda", ("w1", "w2"), (VECTOR, VECTOR), 0),
        "Aggregate step=1 rule=mda identities=w1 w2",
    ),
    (ComputeGradient(3, VECTOR, None, 0.9), "ComputeGradient step=3"),
    (SaveCheckpoint(5, VECTOR), "SaveCheckpoint step=5"),
    (NewLife(), "NewLife"),
    (Refuse("w3", 0, Reason.EQUIVOCATION), "Refuse step=0 peer=w3 reason=equivocation"),
    (Stop("give every node the same file"), "Stop sentence=give every node the same file"),
]


def test_every_event_and_effect_is_told_without_its_vector() -> None:
    """Kind, step, peers and reason are told; a million coordinates are not."""
    for happening, told in (*EVENTS, *EFFECTS):
        assert describe(happening) == told


def test_a_story_has_one_line_for_each_event() -> None:
    """Oldest first: when it was, what happened and what the node wanted done about it."""
    trace = Trace()
    trace.record(0.25, EVENTS[0][0], [EFFECTS[7][0], EFFECTS[0][0]])
    trace.record(1.5, DeadlinePassed(), [])

    assert trace.story() == [
        "0.250 Received Gradient step=7 peer=w3"
        "; Refuse step=0 peer=w3 reason=equivocation; Send Pull step=0 peers=w1 w2",
        "1.500 DeadlinePassed",
    ]


def test_a_story_is_capped() -> None:
    """Ten times as many events leave the last ones alone."""
    trace = Trace()
    for now in range(10 * LINES_MAX):
        trace.record(now, DeadlinePassed(), [])

    assert len(trace.story()) == LINES_MAX
    assert trace.story()[0] == f"{9 * LINES_MAX}.000 DeadlinePassed"
