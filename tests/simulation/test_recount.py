"""Aggregations, recomputed in the plainest way, and vectors counted from outside."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import Gradient, Model
from byzsgd.protocol import Aggregate, Aggregated
from byzsgd.protocol.events import Report
from byzsgd.protocol.work import aggregate
from byzsgd.simulation.memory import vectors_held
from byzsgd.simulation.recount import check_result

ROWS = tuple(np.float32([[1, 4], [2, -3], [4, 9], [900, 0]]))


def asked(rule: str, **changes: Any) -> Aggregate:
    return Aggregate(3, rule, ("w1", "w2", "w3", "w4"), ROWS, 1, **changes)


@pytest.mark.parametrize("rule", ["average", "coordinate_median", "mda", "krum"])
@pytest.mark.parametrize("model", [None, np.float32([5, 5])])
def test_right_results(rule: str, model: Any) -> None:
    """What the rules compute is right, also as an update; rules that are not recomputed pass."""
    if rule == "krum":
        rows = (*ROWS, np.float32([1, 1]))
        effect = Aggregate(3, rule, ("w1", "w2", "w3", "w4", "w5"), rows, 1, model)
    else:
        effect = asked(rule, model=model, learning_rate=0.1)
    check_result(effect, aggregate(effect))


@pytest.mark.parametrize(
    ("rule", "result"), [("coordinate_median", [2, 0]), ("average", [226.75, 3]), ("mda", [2, 3])]
)
def test_wrong_results(rule: str, result: list[float]) -> None:
    """The lower middle, a wrong sum and the mean of other votes than those selected are seen."""
    report = Report(left_out=("w4",)) if rule == "mda" else Report()

    with pytest.raises(AssertionError, match=f"{rule} of step 3 is another vector"):
        check_result(asked(rule), Aggregated(3, np.float32(result), report))


def test_a_huge_lie_hides_nothing() -> None:
    """What float32 loses is measured on the votes that the result is made of."""
    rows = tuple(np.float32([[1], [2], [4], [1e30]]))
    median = Aggregate(3, "coordinate_median", ("s1", "s2", "s3", "s4"), rows, 1)
    check_result(median, aggregate(median))

    with pytest.raises(AssertionError, match="coordinate_median of step 3 is another vector"):
        check_result(median, Aggregated(3, np.float32([2]), Report()))


@pytest.mark.parametrize("rule", ["average", "coordinate_median", "mda"])
def test_votes_that_cancel(rule: str) -> None:
    """A result that is next to nothing is as good as float32 makes its summands."""
    rows = tuple(np.float32([[0.1], [0.7], [-0.7], [-0.1000001]]))
    for model in (None, np.float32([1e-9])):
        effect = Aggregate(3, rule, ("w1", "w2", "w3", "w4"), rows, 0, model, 0.3)
        check_result(effect, aggregate(effect))


def test_buffers_are_recounted_as_medians() -> None:
    """Whatever is done to the parameters, and with pre-steps, too."""
    for changes in ({}, {"pre_steps": ("nnm",)}):
        effect = asked("mda", model=np.float32([5, 5]), learning_rate=0.1, buffers=1, **changes)
        right = aggregate(effect)
        check_result(effect, right)
        for place in (0, 1):
            wrong = right.vector.copy()
            wrong[place] += 1
            if place == 1 or not changes:
                with pytest.raises(AssertionError, match="of step 3 is another vector"):
                    check_result(effect, Aggregated(3, wrong, right.report))


def test_another_subset() -> None:
    """Minimum-diameter averaging selects n - f votes of the smallest diameter."""
    for left_out, words in ((("w1",), "not the smallest"), ((), "4 of 4 votes selected")):
        result = Aggregated(3, np.float32([302, 2]), Report(left_out=left_out))
        with pytest.raises(AssertionError, match=words):
            check_result(asked("mda"), result)


def test_vectors_held(server: Callable[..., Any], worker: Callable[..., Any]) -> None:
    """A server's model, and every vote that it keeps; a worker keeps what it sent."""
    one, other = server(), worker()
    assert vectors_held(one.node) == 1
    assert vectors_held(other.node) == 0

    one.hears(["w1", "w2"], Gradient(0, np.float32([1])))
    one.hears(["w1"], Gradient(7, np.float32([2])))
    other.hears(["s1", "s2"], Model(0, np.float32([1])))

    assert vectors_held(one.node) == 3, "equal ones are one where they are shared"
    assert vectors_held(other.node) == 1
