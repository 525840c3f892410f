"""Asynchronous ByzSGD: gather, whenever (t + 1) mod T = 0."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import GatherModel, Gradient

Make = Callable[..., Any]


def v(value: float) -> np.ndarray:
    return np.float32([value])


def update(s1: Any, step: int) -> list[str]:
    """One update, by 1."""
    s1.hears(("w1", "w2", "w3"), Gradient(step, v(-1)))
    return s1.works()


@pytest.mark.parametrize("period", [1, 2, 5])
def test_when_servers_gather(cluster: Make, server: Make, period: int) -> None:
    """Gather, whenever (t + 1) mod T = 0."""
    s1 = server(cluster(gather_period=period))
    gathered = []
    for step in range(10):
        if update(s1, step)[0].startswith("send GatherModel"):
            gathered.append(step + 1)
            s1.hears(("s2", "s3", "s4"), GatherModel(step + 1, v(step + 1)))
            s1.works()

    assert gathered == [step for step in range(1, 11) if step % period == 0]


def test_servers_send_their_models_to_one_another(server: Make) -> None:
    """The servers also send theta_{t+1} to one another."""
    assert update(server(), 0) == ["send GatherModel step=1 value=1 to s2 s3 s4 s5"]


def test_each_waits_for_q_ps_models(server: Make) -> None:
    """Each waits for q_ps of them, its own among them."""
    s1 = server()
    update(s1, 0)

    assert s1.hears(("s5", "s4"), GatherModel(1, v(9))) == []
    assert s1.receives("s3", GatherModel(1, v(9))) == [
        "coordinate_median step=1 f=1: s1=1 s3=9 s4=9 s5=9; own s1"
    ]


def test_its_own_model_is_among_them_even_if_all_others_were_faster(server: Make) -> None:
    """Each waits for q_ps of them, its own among them."""
    s1 = server()
    s1.hears(("s2", "s3", "s4", "s5"), GatherModel(1, v(9)))

    assert "s1=1" in update(s1, 0)[-1]


def test_the_median_replaces_the_model(server: Make) -> None:
    """And replaces theta_{t+1} by their M (that is DMC) before it scatters."""
    s1 = server()
    assert not [words for words in update(s1, 0) if words.startswith("publish")]
    for peer, value in {"s2": 3, "s3": 5, "s4": 900}.items():
        s1.receives(peer, GatherModel(1, v(value)))

    assert s1.works() == ["publish Model step=1 value=4"]
    assert s1.node.vector == v(4)


def test_an_overlapped_gather(cluster: Make, server: Make) -> None:
    """theta_{t+1} goes to workers and servers at once, the next update from the contracted one."""
    s1 = server(cluster(overlapped_gather=True))
    assert update(s1, 0) == [
        "publish Model step=1 value=1",
        "send GatherModel step=1 value=1 to s2 s3 s4 s5",
    ]
    for peer, value in {"s2": 3, "s3": 5, "s4": 900}.items():
        s1.receives(peer, GatherModel(1, v(value)))

    assert s1.works() == []
    assert s1.hears(("w1", "w2", "w3"), Gradient(1, v(-1)))[0].endswith("; from 4 at rate 1")


def test_an_even_count_takes_the_mean_of_the_two_middles(server: Make) -> None:
    """M: coordinate-wise median; an even count takes the mean of the two middles."""
    s1 = server()
    update(s1, 0)
    s1.hears(("s2", "s3"), GatherModel(1, v(2)))
    s1.receives("s4", GatherModel(1, v(1)))

    assert s1.works() == ["publish Model step=1 value=1.5"]


def test_servers_with_the_same_quorum_compute_the_same_model(server: Make) -> None:
    """Two servers with the same quorum compute bit-identical models."""
    votes = {"s1": 0.1, "s2": 0.7, "s3": 0.3, "s4": 1 / 3}
    gradients = {"w1": 0.1, "w2": 0.2, "w3": -0.7}
    models = set()
    for me, others in (("s1", ("s2", "s3", "s4")), ("s4", ("s1", "s2", "s3"))):
        for order in permutations(others):
            node = server(identity=me, value=votes[me])
            node.hears(("w1", "w2", "w3"), Gradient(0, v(0)))
            node.works()
            for peer in order:
                node.receives(peer, GatherModel(1, v(votes[peer])))
            node.works()
            for worker in sorted(gradients, key=lambda name, me=me: (name[1] == me[1], name)):
                node.receives(worker, Gradient(1, v(gradients[worker])))
            node.works()
            models.add(node.node._vote.vector.tobytes())

    assert len(models) == 1


def test_f_ps_liars_leave_the_model_within_the_correct_ones(server: Make) -> None:
    """With at most f_ps liars among q_ps models M lies within the range of the correct ones."""
    for lie in (-1e30, 1e30):
        s1 = server()
        update(s1, 0)
        s1.receives("s5", GatherModel(1, v(lie)))
        s1.receives("s2", GatherModel(1, v(2)))
        s1.receives("s3", GatherModel(1, v(4)))
        s1.works()

        assert 1 <= s1.node.vector.item() <= 4
