"""A server that gathers while the workers compute: events in, effects out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import GatherModel, Gradient, Model, Pull

Make = Callable[..., Any]
THREE = ("w1", "w2", "w3")


def v(value: float) -> np.ndarray:
    return np.float32([value])


def update(s1: Any, step: int) -> list[str]:
    """Bring a server through the update of a step: one forward."""
    s1.hears(THREE, Gradient(step, v(-1)))
    return s1.works()


def gather(s1: Any, step: int, value: float) -> list[str]:
    """Bring a server through the gather of a step."""
    s1.hears(("s2", "s3", "s4"), GatherModel(step, v(value)))
    return s1.works()


@pytest.fixture
def overlapped(cluster: Make, server: Make) -> Callable[..., Any]:
    """Starts a server of a cluster whose gathers overlap, with whatever the test changes."""

    def start(options: dict[str, Any] | None = None, **changes: Any) -> Any:
        return server(cluster(overlapped_gather=True, **changes), **options or {})

    return start


@pytest.fixture
def gathering(overlapped: Make) -> Any:
    """A server in the gather of step 1, with the vote 1."""
    s1 = overlapped()
    update(s1, 0)
    return s1


# A step


def test_the_model_goes_to_workers_and_servers_at_once(overlapped: Make) -> None:
    """theta_{t+1} goes to workers and servers at once; the workers', which others wait for, first.

    It is the same to both.
    """
    s1 = overlapped()

    assert update(s1, 0) == [
        "publish Model step=1 value=1",
        "send GatherModel step=1 value=1 to s2 s3 s4 s5",
    ]
    assert s1.node.phase() == "gather"
    assert (s1.node.step, s1.node.model_step) == (1, 1)


def test_servers_contract_while_workers_compute(gathering: Any) -> None:
    """The contracted model is told to nobody, and the next update starts from it."""
    assert gather(gathering, 1, 5) == []
    assert gathering.node.vector == v(5)
    assert gathering.node.phase() == "scatter"

    assert gathering.hears(THREE, Gradient(1, v(-1))) == [
        "mda step=1 f=1: w1=-1 w2=-1 w3=-1; from 5 at rate 1"
    ]


def test_an_update_waits_for_the_contraction(gathering: Any) -> None:
    """However early its gradients are: they count once the contracted model is there."""
    assert gathering.hears(THREE, Gradient(1, v(-1))) == []
    assert gathering.hears(("s2", "s3", "s4"), GatherModel(1, v(5))) == [
        "coordinate_median step=1 f=1: s1=1 s2=5 s3=5 s4=5; own s1"
    ]
    assert gathering.receives("w4", Gradient(1, v(-1))) == []

    assert gathering.works() == ["mda step=1 f=1: w1=-1 w2=-1 w3=-1; from 5 at rate 1"]


def test_whom_it_waits_for(gathering: Any) -> None:
    """For the gather first, then for what gradients are lacking still."""
    gathering.receives("w2", Gradient(1, v(-1)))
    assert gathering.node.sentence(0).startswith("waits for 3 of 4 gather models of step 1: s2")
    assert gathering.waits(1.0) == [
        "send Pull step=1 to s2 s3 s4 s5",
        "send Hello step=1 to s2 s3 s4 s5",
    ]

    gather(gathering, 1, 5)
    assert gathering.node.sentence(0).startswith("waits for 2 of 3 gradients of step 1: w1")
    assert gathering.waits(1.0)[0] == "send Pull step=1 to w1 w3 w4"


def test_steps_between_gathers_have_none(overlapped: Make) -> None:
    """With T = 2 the model of step 1 goes to the workers alone."""
    s1 = overlapped(gather_period=2)

    assert update(s1, 0) == ["publish Model step=1 value=1"]
    assert update(s1, 1) == [
        "publish Model step=2 value=2",
        "send GatherModel step=2 value=2 to s2 s3 s4 s5",
    ]
    assert gather(s1, 2, 2) == []
    assert update(s1, 2) == ["publish Model step=3 value=3"]


def test_a_lone_server_gathers_with_nobody(overlapped: Make) -> None:
    """The vanilla parameter server has nothing to overlap."""
    s1 = overlapped(servers=1, f_servers=0, workers=3, f_workers=0)

    assert update(s1, 0) == ["publish Model step=1 value=1"]


def test_a_gather_shows_the_drift(gathering: Any) -> None:
    """As without overlap: the votes' distances, and what the gather did to them."""
    for peer, value in {"s2": 2, "s3": 3, "s4": 7}.items():
        gathering.receives(peer, GatherModel(1, v(value)))
    gathering.works()

    drift = gathering.node.progress.drift
    assert (drift.maximum, drift.median) == (6, 2)
    assert gathering.node.progress.gathers == 1


def test_training_ends_with_the_last_contraction(overlapped: Make) -> None:
    """Workers know at once that there is no more to do; the model is the contracted one."""
    s1 = overlapped(options={"checkpoint_period": 100}, steps=1)

    assert update(s1, 0)[0] == "publish Model step=1 value=1"
    assert not s1.node.done
    assert gather(s1, 1, 5) == ["save step=1 value=5"]
    assert s1.node.done
    assert s1.receives("op", Pull(0)) == ["send Model step=1 value=5 to op"]


# Who is told what


def test_a_worker_is_told_the_same_before_and_after_the_contraction(gathering: Any) -> None:
    """A correct server says one thing of a step, or it would equivocate."""
    told = "send Model step=1 value=1 to w2"
    assert gathering.receives("w2", Pull(1)) == [told]

    gather(gathering, 1, 5)
    gathering.now = 0.5
    assert gathering.receives("w2", Pull(1)) == [told]
    assert update(gathering, 1)[0] == "publish Model step=2 value=6"


def test_between_gathers_workers_are_told_the_model(overlapped: Make) -> None:
    """The vote of the last gather is of another step."""
    s1 = overlapped(gather_period=2)
    update(s1, 0)
    update(s1, 1)
    gather(s1, 2, 5)
    update(s1, 2)

    assert s1.receives("w2", Pull(0)) == ["send Model step=3 value=6 to w2"]
    assert s1.receives("s2", Pull(0)) == [
        "send GatherModel step=2 value=2 to s2",
        "send Model step=3 value=6 to s2",
    ]


def test_a_server_is_told_the_vote(gathering: Any) -> None:
    """Before and after the contraction, which is no second answer."""
    assert gathering.receives("s2", Pull(1)) == ["send GatherModel step=1 value=1 to s2"]
    gather(gathering, 1, 5)
    assert gathering.receives("s3", Pull(1)) == ["send GatherModel step=1 value=1 to s3"]


def test_an_operator_gets_the_contracted_model(gathering: Any) -> None:
    """It waits for it during the gather, and gets it at once afterwards."""
    assert gathering.receives("op", Pull(0)) == []
    assert gather(gathering, 1, 5) == ["send Model step=1 value=5 to op"]
    assert gathering.receives("op", Pull(1)) == ["send Model step=1 value=5 to op"]


# Stopping, falling behind, going back


def test_the_contracted_model_is_saved(overlapped: Make) -> None:
    """And not what the gather begins with."""
    s1 = overlapped(options={"checkpoint_period": 1})

    assert not [words for words in update(s1, 0) if words.startswith("save")]
    assert gather(s1, 1, 5) == ["save step=1 value=5"]


def test_a_server_that_is_stopped_in_a_gather_saves_its_vote(gathering: Any) -> None:
    """No step is lost; the next gather contracts it."""
    saved = gathering.node.checkpoint()

    assert (saved.step, saved.vector) == (1, v(1))


def test_a_server_that_starts_at_a_gather_step_does_not_gather(overlapped: Make) -> None:
    """Its peers may have gone on: its model is its vote, and what its update starts from."""
    s1 = overlapped(options={"step": 6, "value": 5})

    assert s1.started == ["publish Model step=6 value=5"]
    assert s1.receives("s2", Pull(6)) == ["send GatherModel step=6 value=5 to s2"]
    assert s1.receives("w2", Pull(6)) == ["send Model step=6 value=5 to w2"]
    assert s1.hears(THREE, Gradient(6, v(-1)))[0].endswith("; from 5 at rate 1")


def test_a_contraction_that_was_overtaken_is_dropped(gathering: Any) -> None:
    """Who catches up goes on from its peers' models, and votes with them where they gather."""
    gathering.hears(("s2", "s3", "s4"), GatherModel(1, v(5)))
    gathering.hears(("s2", "s3", "s4"), GatherModel(4, v(8)))

    assert gathering.works() == []
    assert gathering.works() == [
        "send GatherModel step=4 value=8 to s2 s3 s4 s5",
        "publish Model step=4 value=8",
    ]
    assert gathering.hears(THREE, Gradient(4, v(-1)))[0].endswith("; from 8 at rate 1")


def test_a_server_alone_in_a_gather_goes_back(gathering: Any) -> None:
    """Workers have its model of that step, so that it belongs to the life before."""
    for seconds in (1, 6):
        gathering.waits(seconds)
        gathering.receives("s2", Model(0, v(0)))
        gathering.hears(("s2", "s3", "s4"), Model(0, v(0)))

    assert gathering.works() == [
        "begin a new life",
        "send Hello step=0 to s2 s3 s4 s5",
        "publish Model step=0 value=0",
    ]
    assert gathering.receives("w1", Pull(0)) == ["send Model step=0 value=0 to w1"]
