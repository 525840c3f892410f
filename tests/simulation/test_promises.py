"""Each promise, broken once: what watches the simulations must see it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byzsgd.cluster import Cluster
from byzsgd.messages import GatherModel, Gradient, Message, Model
from byzsgd.protocol import Aggregate, ComputeGradient
from byzsgd.simulation.promises import Promises, digest_of

V = {who: np.float32([n]) for n, who in enumerate(["s1", "s2", "s3", "s4", "s5"])}
G = {who: np.float32([n]) for n, who in enumerate(["w1", "w2", "w3", "w4"])}
GATHER = {"step": 5, "rule": "coordinate_median", "who": "s1 s2 s3 s4", "own": "s1"}
UPDATE = {"step": 4, "rule": "mda", "who": "w1 w2 w3", "model": np.float32([7])}
MEDIAN = {"step": 4, "rule": "coordinate_median", "who": "s1 s2 s3 s4"}
CATCH_UP = {"step": 4, "rule": "coordinate_median", "who": "s2 s3 s4"}


@pytest.fixture
def promises(cluster: Callable[..., Cluster]) -> Promises:
    """Watches who was told all of step 4, and the votes for the gather of 5; s4 and w1 lie."""
    watch = Promises(cluster(gather_period=5), ("s4", "w1"))
    for identity in ("s1", "s2", "s3", "s5"):
        watch.starts(identity, 0, np.float32([0]))
    for identity in ("w2", "w3"):
        watch.starts(identity)
    for identity in ("s1", "s2", "s3", "s5"):
        watch.said(identity, Model(4, np.float32([7])), digest_of(np.float32([7])))
    for told in ("s1", "w2", "w3"):
        for who, vector in V.items():
            kinds: tuple[Message, ...] = (Model(4, vector), GatherModel(5, vector))
            for message in kinds:
                watch.told(told, who, message, digest_of(vector))
        for who, vector in G.items():
            watch.told(told, who, Gradient(4, vector), digest_of(vector))
    return watch


def effect(*, step: int, rule: str, who: str, **changes: Any) -> Aggregate:
    identities = tuple(who.split())
    vectors = changes.pop("vectors", None) or tuple((V | G)[voter] for voter in identities)
    return Aggregate(step, rule, identities, vectors, f=1, **changes)


@pytest.mark.parametrize(
    ("identity", "asked"), [("s1", GATHER), ("s1", UPDATE), ("w2", MEDIAN), ("s1", CATCH_UP)]
)
def test_what_is_allowed(promises: Promises, identity: str, asked: dict[str, Any]) -> None:
    """A gather, an update, a worker's median and a catch-up of what was told break no promise."""
    promises.aggregated(identity, effect(**asked), np.float32([1.5]))


@pytest.mark.parametrize(
    ("identity", "asked", "changes", "broken"),
    [
        ("s1", UPDATE, {"who": "w1 w1 w3"}, "double vote"),
        ("s1", UPDATE, {"who": "w3 w1 w2"}, "out of order"),
        ("s1", UPDATE, {"who": "w1 w2"}, "2 votes, not 3"),
        ("s1", UPDATE, {"who": "w1 w2 w3 w4"}, "4 votes, not 3"),
        ("s1", UPDATE, {"who": "s1 w2 w3"}, "foreign vote of s1"),
        ("s1", UPDATE, {"step": 5}, "the model of step 5 was another one"),
        ("s1", UPDATE, {"model": np.float32([8])}, "the model of step 4 was another one"),
        ("s1", UPDATE, {"vectors": tuple(np.float32([[9], [1], [2]]))}, "w1 did not say that"),
        ("s1", UPDATE, {"vectors": tuple(np.float32([[np.nan], [1], [2]]))}, "invalid vote of w1"),
        ("s1", GATHER, {"who": "s2 s3 s4 s5"}, "without the own model"),
        ("s1", GATHER, {"own": "s2"}, "a gather of s2"),
        ("s1", GATHER, {"step": 4}, "no gather belongs to step 4"),
        ("s1", GATHER, {"step": 10}, "did not say that"),
        ("s1", GATHER, {"who": "s1 s2 s3"}, "3 votes, not 4"),
        ("s1", GATHER, {"who": "s1 s2 s3 w4"}, "foreign vote of w4"),
        ("w2", MEDIAN, {"step": 5}, "did not say that"),
        ("s1", CATCH_UP, {"step": 6}, "no correct server is at step 6"),
        ("s1", CATCH_UP, {"who": "s2 s3"}, "2 votes, not 3"),
        ("s1", CATCH_UP, {"who": "s1 s2 s3"}, "the own model is no vote"),
    ],
)
def test_broken_votes(
    promises: Promises,
    identity: str,
    asked: dict[str, Any],
    changes: dict[str, Any],
    broken: str,
) -> None:
    """No invalid, double, foreign, unspoken or untimely vote counts."""
    with pytest.raises(AssertionError, match=broken):
        promises.aggregated(identity, effect(**{**asked, **changes}), np.float32([1.5]))


def test_the_first_vote_counts(promises: Promises) -> None:
    """Of an identity that says two things in one step, only the first may count."""
    promises.told("s1", "w1", Gradient(4, np.float32([9])), digest_of(np.float32([9])))
    second = {**UPDATE, "vectors": tuple(np.float32([[9], [1], [2]]))}

    with pytest.raises(AssertionError, match="w1 did not say that"):
        promises.aggregated("s1", effect(**second), np.float32([1.5]))


@pytest.mark.parametrize(("result", "where"), [(-0.5, "below"), (2.5, "above")])
def test_outside_the_correct_models(promises: Promises, result: float, where: str) -> None:
    """A median of models lies within the correct ones, whatever the liars among them say."""
    with pytest.raises(AssertionError, match=f"{where} every correct model"):
        promises.aggregated("s1", effect(**GATHER), np.float32([result]))


def test_equal_votes_different_results(promises: Promises) -> None:
    """Two nodes that hold the same votes compute the same bits."""
    for worker in ("w2", "w3"):
        promises.aggregated(worker, effect(**MEDIAN), np.float32([1.5]))

    with pytest.raises(AssertionError, match="different results"):
        promises.aggregated("w2", effect(**MEDIAN), np.float32([1.25]))


def test_no_scatter_without_a_gather(promises: Promises) -> None:
    """The model of a gather step is a median; other steps need none."""
    promises.said("s1", Model(6, V["s2"]), digest_of(V["s2"]))

    with pytest.raises(AssertionError, match="no gather before step 5"):
        promises.said("s1", Model(5, V["s2"]), digest_of(V["s2"]))


def test_no_earlier_step_within_a_life(promises: Promises) -> None:
    """A server never goes back, unless it says that its life begins anew."""
    with pytest.raises(AssertionError, match="the model of step 3 after that of 4"):
        promises.said("s1", Model(3, V["s2"]), digest_of(V["s2"]))

    promises.new_life("s1")
    promises.said("s1", Model(3, V["s2"]), digest_of(V["s2"]))


def test_no_two_models_of_a_step(promises: Promises) -> None:
    """A correct server tells everybody the same."""
    with pytest.raises(AssertionError, match="equivocates about the model of step 4"):
        promises.said("s1", Model(4, V["s2"]), digest_of(V["s2"]))


def test_no_vote_where_nobody_gathers(promises: Promises) -> None:
    """T is 5."""
    promises.said("s1", GatherModel(5, V["s1"]), digest_of(V["s1"]))

    with pytest.raises(AssertionError, match="a vote at step 6"):
        promises.said("s1", GatherModel(6, V["s1"]), digest_of(V["s1"]))


def sends(promises: Promises, step: int, momentum: float | None, vector: float) -> None:
    """Let w2 draw the gradient 10, and send a vector as its moving average."""
    average, last = np.float32([vector]), None if momentum is None else np.float32([momentum])
    promises.drawn("w2", np.float32([10]))
    promises.computed("w2", ComputeGradient(step, V["s1"], last, 0.9), average)
    promises.said("w2", Gradient(step, average), digest_of(average))


def test_the_moving_average(promises: Promises) -> None:
    """It continues what was sent last, whatever was sent once more in between."""
    sends(promises, 0, None, 1.0)
    sends(promises, 1, 1.0, 1.9)
    promises.said("w2", Gradient(0, np.float32([1.0])), digest_of(np.float32([1.0])))
    sends(promises, 2, 1.9, 2.71)

    with pytest.raises(AssertionError, match="momentum of step 3 is not what was sent last"):
        sends(promises, 3, None, 1.0)


@pytest.mark.parametrize("vector", [1.0, 1.8])
def test_a_wrong_moving_average(promises: Promises, vector: float) -> None:
    """Beta m + (1 - beta) g, recomputed."""
    sends(promises, 0, None, 1.0)

    with pytest.raises(AssertionError, match="the moving average of step 1 is another vector"):
        sends(promises, 1, 1.0, vector)


def test_a_gradient_of_nobody(promises: Promises) -> None:
    """What a worker sends it has computed."""
    with pytest.raises(AssertionError, match="gradient 0 is not its own"):
        promises.said("w2", Gradient(0, np.float32([7])), digest_of(np.float32([7])))


@pytest.mark.parametrize(("who", "most"), [("s1", 3 * 9 + 5 + 5 + 8), ("w2", 3 * 5 + 5 + 8 + 8)])
def test_too_much_in_memory(promises: Promises, who: str, most: int) -> None:
    """Three votes a peer, a quorum under way, a server's last models or a worker's kept ones."""
    promises.holds(who, most)

    with pytest.raises(AssertionError, match=f"{who} holds {most + 1} vectors, not {most} at most"):
        promises.holds(who, most + 1)


def test_what_pushes_itself_out(promises: Promises) -> None:
    """Who votes for so many steps that its own vote is forgotten may vote again."""
    for step in (4, 5, 6, 7, 4):
        promises.told("s1", "w1", Gradient(step, np.float32([9])), digest_of(np.float32([9])))
    second = {**UPDATE, "vectors": tuple(np.float32([[9], [1], [2]]))}

    promises.aggregated("s1", effect(**second), np.float32([1.5]))
