"""Each promise, broken once: what watches the simulations must see it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byzsgd.cluster import Cluster
from byzsgd.messages import GatherModel, Gradient, Model
from byzsgd.protocol import Aggregate, ComputeGradient, SaveCheckpoint, TryModel
from byzsgd.simulation.promises import Promises, digest_of

Vectors = Model | GatherModel | Gradient
V = {who: np.float32([n]) for n, who in enumerate(["s1", "s2", "s3", "s4", "s5"])}
G = {who: np.float32([n]) for n, who in enumerate(["w1", "w2", "w3", "w4"])}
GATHER = {"step": 5, "rule": "coordinate_median", "who": "s1 s2 s3 s4", "own": "s1"}
UPDATE = {
    "step": 4,
    "rule": "mda",
    "who": "w1 w2 w3",
    "model": np.float32([7]),
    "learning_rate": 1.0,
}
MEDIAN = {"step": 4, "rule": "coordinate_median", "who": "s1 s2 s3 s4"}
CATCH_UP = {"step": 4, "rule": "coordinate_median", "who": "s2 s3 s4"}


@pytest.fixture
def promises(cluster: Callable[..., Cluster]) -> Promises:
    """Watches who was told all of step 4, and the votes for the gather of 5; s4 and w1 lie."""
    watch = Promises(cluster(gather_period=5), ("s4", "w1"))
    for identity in ("s1", "s2", "s3", "s5"):
        watch.starts(identity, 4, np.float32([7]))
        says(watch, identity, Model(4, np.float32([7])))
    for identity in ("w2", "w3"):
        watch.starts(identity)
    for told in ("s1", "w2", "w3"):
        for who, vector in V.items():
            hears(watch, told, who, Model(4, vector))
            if who != told:
                hears(watch, told, who, GatherModel(5, vector))
        for who, vector in G.items():
            hears(watch, told, who, Gradient(4, vector))
    watch.aggregated("s1", effect(**{**UPDATE, "who": "w2 w3 w4"}), V["s1"])
    says(watch, "s1", GatherModel(5, V["s1"]))
    return watch


def hears(promises: Promises, identity: str, sender: str, message: Vectors) -> None:
    promises.told(identity, sender, message, digest_of(message.vector))


def says(promises: Promises, identity: str, message: Vectors) -> None:
    promises.said(identity, message, digest_of(message.vector))


def effect(*, step: int, rule: str, who: str, **changes: Any) -> Aggregate:
    identities = tuple(who.split())
    vectors = changes.pop("vectors", None) or tuple((V | G)[voter] for voter in identities)
    return Aggregate(step, rule, identities, vectors, **{"f": 1, **changes})


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
        ("s1", UPDATE, {"learning_rate": 0.0}, "a learning rate of 0 at step 4, not 1"),
        ("s1", UPDATE, {"rule": "average"}, "an update by average, not mda"),
        ("s1", UPDATE, {"f": 0}, "0 lies expected, not 1"),
        ("s1", UPDATE, {"model": np.float32([8])}, "the model of step 4 was another one"),
        ("s1", UPDATE, {"vectors": tuple(np.float32([[9], [1], [2]]))}, "w1 did not say that"),
        ("s1", UPDATE, {"vectors": tuple(np.float32([[np.nan], [1], [2]]))}, "invalid vote of w1"),
        ("s1", GATHER, {"who": "s2 s3 s4 s5"}, "without the own model"),
        ("s1", GATHER, {"own": "s2"}, "a gather of s2"),
        ("s1", GATHER, {"step": 4}, "no gather belongs to step 4"),
        ("s1", GATHER, {"step": 10}, "without the own model"),
        (
            "s1",
            GATHER,
            {"vectors": tuple(np.float32([[3], [1], [2], [3]]))},
            "without the own model",
        ),
        ("s1", GATHER, {"rule": "average"}, "models by average"),
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


def test_what_a_server_says_it_has_computed(promises: Promises) -> None:
    """A median in a gather step, and else an update; a checkpoint is the same."""
    promises.aggregated("s1", effect(**GATHER), np.float32([1.5]))
    says(promises, "s1", GatherModel(5, V["s1"]))
    with pytest.raises(AssertionError, match="model 5 is not its own"):
        promises.saved("s1", SaveCheckpoint(5, V["s1"]))

    promises.saved("s1", SaveCheckpoint(5, np.float32([1.5])))
    says(promises, "s1", Model(5, np.float32([1.5])))
    with pytest.raises(AssertionError, match="model 6 is not its own"):
        says(promises, "s1", Model(6, np.float32([1.5])))


def test_no_scatter_without_a_gather(promises: Promises) -> None:
    """The update before a gather step is a vote and no model."""
    with pytest.raises(AssertionError, match="model 5 is not its own"):
        says(promises, "s1", Model(5, V["s1"]))


def test_a_server_votes_for_its_update(promises: Promises) -> None:
    """For nothing older: an update that was thrown away is seen."""
    hears(promises, "s2", "w1", Gradient(4, G["w1"]))
    for who in ("w2", "w3"):
        hears(promises, "s2", who, Gradient(4, G[who]))
    promises.aggregated("s2", effect(**UPDATE), np.float32([6.9]))

    with pytest.raises(AssertionError, match="vote 5 is not its own"):
        says(promises, "s2", GatherModel(5, np.float32([7])))


@pytest.fixture
def overlapped(cluster: Callable[..., Cluster]) -> Promises:
    """Watches s1 in a gather of every step that overlaps, after an update to the vote 0."""
    watch = Promises(cluster(overlapped_gather=True), ("s4", "w1"))
    watch.starts("s1", 4, np.float32([7]))
    for who, vector in G.items():
        hears(watch, "s1", who, Gradient(4, vector))
        hears(watch, "s1", who, Gradient(5, vector))
    for who in ("s2", "s3", "s4"):
        hears(watch, "s1", who, GatherModel(5, V[who]))
    watch.aggregated("s1", effect(**UPDATE), V["s1"])
    says(watch, "s1", Model(5, V["s1"]))
    says(watch, "s1", GatherModel(5, V["s1"]))
    return watch


def test_where_gathers_overlap_the_vote_is_scattered(overlapped: Promises) -> None:
    """And the contracted model is saved, and is what the next update starts from."""
    overlapped.aggregated("s1", effect(**GATHER), np.float32([1.5]))
    says(overlapped, "s1", Model(5, V["s1"]))
    overlapped.saved("s1", SaveCheckpoint(5, np.float32([1.5])))

    started = {**UPDATE, "step": 5, "model": np.float32([1.5])}
    overlapped.aggregated("s1", effect(**started), np.float32([0.5]))


def test_where_gathers_overlap_no_update_precedes_the_contraction(overlapped: Promises) -> None:
    """Neither is the model saved that the workers were told, before or after it."""
    early = {**UPDATE, "step": 5, "model": V["s1"]}
    for _ in range(2):
        with pytest.raises(AssertionError, match="the model of step 5 was another one"):
            overlapped.aggregated("s1", effect(**early), np.float32([0.5]))
        with pytest.raises(AssertionError, match="model 5 is not its own"):
            overlapped.saved("s1", SaveCheckpoint(5, V["s1"]))
        overlapped.aggregated("s1", effect(**GATHER), np.float32([1.5]))


def test_where_gathers_overlap_workers_never_hear_the_contracted_model(
    overlapped: Promises,
) -> None:
    """They were told the vote of that step: another model would be equivocation."""
    overlapped.aggregated("s1", effect(**GATHER), np.float32([1.5]))

    with pytest.raises(AssertionError, match="equivocates about the model of step 5"):
        says(overlapped, "s1", Model(5, np.float32([1.5])))


def test_a_server_that_caught_up(promises: Promises) -> None:
    """It votes for and scatters what it adopted."""
    promises.new_life("s1", 4)
    promises.aggregated("s1", effect(**{**CATCH_UP, "step": 5}), np.float32([1.5]))

    says(promises, "s1", GatherModel(5, np.float32([1.5])))
    says(promises, "s1", Model(5, np.float32([1.5])))


def test_the_learning_rate_decays(cluster: Callable[..., Cluster]) -> None:
    """It is eta / (1 + t / tau): with tau = 2 a third of it at step 4."""
    watch = Promises(cluster(learning_rate=0.6, learning_rate_decay_steps=2), ())
    watch.starts("s1", 4, np.float32([7]))
    for who, vector in G.items():
        hears(watch, "s1", who, Gradient(4, vector))
    with pytest.raises(AssertionError, match=r"a learning rate of 0\.6 at step 4, not 0\.2"):
        watch.aggregated("s1", effect(**{**UPDATE, "learning_rate": 0.6}), V["s1"])

    watch.aggregated("s1", effect(**{**UPDATE, "learning_rate": 0.2}), V["s1"])


def test_no_earlier_step_within_a_life(promises: Promises) -> None:
    """A server never goes back, unless it says that its life begins anew."""
    promises.aggregated("s1", effect(**{**CATCH_UP, "step": 3}), V["s2"])
    with pytest.raises(AssertionError, match="the model of step 3 after that of 4"):
        says(promises, "s1", Model(3, V["s2"]))

    promises.new_life("s1", 3)
    says(promises, "s1", Model(3, V["s2"]))


@pytest.mark.parametrize("step", [5, 6])
def test_a_new_life_begins_at_an_earlier_step(promises: Promises, step: int) -> None:
    """Who goes on, or stays where it is, has no reason for one."""
    with pytest.raises(AssertionError, match=f"a new life at step {step}, not before that of 5"):
        promises.new_life("s1", step)


def test_gradients_of_the_life_before(promises: Promises) -> None:
    """They count no more, but where they were sent again."""
    promises.new_life("s1", 4)
    with pytest.raises(AssertionError, match="w1 did not say that"):
        promises.aggregated("s1", effect(**UPDATE), np.float32([1.5]))

    for who, vector in G.items():
        hears(promises, "s1", who, Gradient(4, vector))
    promises.aggregated("s1", effect(**UPDATE), np.float32([1.5]))


def test_no_two_models_of_a_step(promises: Promises) -> None:
    """A correct server tells everybody the same."""
    with pytest.raises(AssertionError, match="equivocates about the model of step 4"):
        says(promises, "s1", Model(4, V["s2"]))


def test_no_vote_where_nobody_gathers(promises: Promises) -> None:
    """T is 5."""
    with pytest.raises(AssertionError, match="a vote at step 6"):
        says(promises, "s1", GatherModel(6, V["s1"]))


def sends(
    promises: Promises, step: int, momentum: float | None, vector: float, drawn: float = 10
) -> None:
    """Let w2 draw a gradient at the median 0, and send a vector as its moving average."""
    average, last = np.float32([vector]), None if momentum is None else np.float32([momentum])
    for who in MEDIAN["who"].split():
        hears(promises, "w2", who, Model(step, V[who]))
    promises.aggregated("w2", effect(**{**MEDIAN, "step": step}), V["s1"])
    promises.drawn("w2", np.float32([drawn]))
    promises.computed("w2", ComputeGradient(step, V["s1"], last, 0.9), average)
    says(promises, "w2", Gradient(step, average))


def test_the_moving_average(promises: Promises) -> None:
    """It continues what was sent last, whatever was sent once more in between."""
    sends(promises, 0, None, 1.0)
    sends(promises, 1, 1.0, 1.9)
    says(promises, "w2", Gradient(0, np.float32([1.0])))
    sends(promises, 2, 1.9, 2.71)

    with pytest.raises(AssertionError, match="momentum of step 3 is not what was sent last"):
        sends(promises, 3, None, 1.0)


@pytest.mark.parametrize("vector", [1.0, 1.8])
def test_a_wrong_moving_average(promises: Promises, vector: float) -> None:
    """Beta m + (1 - beta) g, recomputed."""
    sends(promises, 0, None, 1.0)

    with pytest.raises(AssertionError, match="the moving average of step 1 is another vector"):
        sends(promises, 1, 1.0, vector)


def test_buffers_are_no_part_of_the_moving_average(promises: Promises) -> None:
    """They are sent as they were drawn."""
    for who in MEDIAN["who"].split():
        hears(promises, "w2", who, Model(4, V[who]))
    promises.aggregated("w2", effect(**{**MEDIAN, "step": 4}), V["s1"])
    promises.drawn("w2", np.float32([10]))
    asked = ComputeGradient(4, V["s1"], None, 0.9, buffers=1)
    promises.computed("w2", asked, np.float32([10]))

    with pytest.raises(AssertionError, match="the moving average of step 4 is another vector"):
        promises.computed("w2", asked, np.float32([1]))


def test_parts_that_cancel(promises: Promises) -> None:
    """Float32 loses a part of the summands, and where they cancel more than that of their sum."""
    first, drawn = np.float32(0.0317402), np.float32(-0.28627428)
    average = np.float32(0.9) * first + np.float32(0.1) * drawn
    exact = 0.9 * float(first) + 0.1 * float(drawn)
    assert abs(average / exact - 1) > 1e-5

    sends(promises, 0, None, float(first), drawn=float(first) * 10)
    sends(promises, 1, float(first), float(average), drawn=float(drawn))


def test_a_gradient_taken_elsewhere(promises: Promises) -> None:
    """A worker takes it at the median of the step, not at one server's model of it."""
    promises.aggregated("w2", effect(**MEDIAN), np.float32([1.5]))
    promises.drawn("w2", np.float32([10]))
    promises.computed("w2", ComputeGradient(4, np.float32([1.5]), None, 0.9), np.float32([1]))

    with pytest.raises(AssertionError, match="no model of step 4 is where it takes its gradient"):
        promises.computed("w2", ComputeGradient(4, V["s1"], None, 0.9), np.float32([1]))


AHEAD = ComputeGradient(6, np.float32([1.5]), None, 0.0)
TRIED = {
    "step": 6,
    "vector": V["s3"],
    "base": np.float32([1.5]),
    "momentum": np.float32([1]),
    "learning_rate": 1.0,
    "reference": np.float32([10]),
}


@pytest.fixture
def pulling(cluster: Callable[..., Cluster]) -> Promises:
    """Watches w2, which sent 1 after the median 1.5 of step 5, looks ahead, and pulled of s3."""
    watch = Promises(cluster(gather_period=5, variant="synchronous"), ("s4", "w1"))
    watch.starts("w2")
    for who, vector in V.items():
        hears(watch, "w2", who, Model(5, vector))
    watch.aggregated("w2", effect(**{**MEDIAN, "step": 5}), np.float32([1.5]))
    watch.drawn("w2", np.float32([10]))
    watch.computed("w2", ComputeGradient(5, np.float32([1.5]), None, 0.9), np.float32([1]))
    says(watch, "w2", Gradient(5, np.float32([1])))
    watch.computed("w2", AHEAD, np.float32([10]))
    hears(watch, "w2", "s3", Model(6, V["s3"]))
    return watch


def tries(**changes: Any) -> TryModel:
    return TryModel(**{**TRIED, "bound": 1.0, "beta": 0.9, **changes})


def test_a_step_of_the_synchronous_variant(pulling: Promises) -> None:
    """What was pulled is compared with the worker's own step, and its gradient sent."""
    pulling.tried("w2", tries())
    pulling.tried("w2", tries(reference=None))
    pulling.computed("w2", tries(), np.float32([1.9]))
    says(pulling, "w2", Gradient(6, np.float32([1.9])))
    pulling.computed("w2", ComputeGradient(7, V["s3"], None, 0.0), np.float32([10]))


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"vector": V["s2"]}, "no model of step 6 is where"),
        ({"base": V["s1"]}, "tries step 6 from another model"),
        ({"momentum": np.float32([2])}, "momentum of step 6 is not what was sent last"),
        ({"learning_rate": 0.0}, "a learning rate of 0 at step 5, not 1"),
        ({"reference": np.float32([1])}, "step 6 is compared with another gradient"),
    ],
)
def test_compared_with_something_else(
    pulling: Promises, changes: dict[str, Any], broken: str
) -> None:
    """The filters see the own last step, and the gradient where it began."""
    with pytest.raises(AssertionError, match=broken):
        pulling.tried("w2", tries(**changes))


@pytest.mark.parametrize("step", [5, 6])
def test_a_pulled_model_in_a_gather_step(pulling: Promises, step: int) -> None:
    """There a worker goes by the median alone."""
    gradient = ComputeGradient(step, V["s3"], np.float32([1]), 0.9)
    if step == 6:
        pulling.computed("w2", gradient, np.float32([1.9]))
        return
    with pytest.raises(AssertionError, match="no model of step 5 is where"):
        pulling.computed("w2", gradient, np.float32([1.9]))


def test_looking_ahead_from_elsewhere(pulling: Promises) -> None:
    """A worker goes on from the model that it accepted last, and sends nothing of it."""
    with pytest.raises(AssertionError, match="looks ahead to step 6 from another model"):
        pulling.computed("w2", ComputeGradient(6, V["s3"], None, 0.0), np.float32([10]))
    with pytest.raises(AssertionError, match="gradient 6 is not its own"):
        says(pulling, "w2", Gradient(6, np.float32([10])))


def test_a_gradient_of_nobody(promises: Promises) -> None:
    """What a worker sends it has computed."""
    with pytest.raises(AssertionError, match="gradient 0 is not its own"):
        says(promises, "w2", Gradient(0, np.float32([7])))


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
