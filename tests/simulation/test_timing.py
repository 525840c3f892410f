"""When liars speak: words for it, and what a flood is made of."""

import numpy as np
import pytest

from byzsgd.errors import ConfigError
from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Hello, Model, Pull
from byzsgd.protocol import Send
from byzsgd.simulation import Timing, timing_named
from byzsgd.simulation.timing import FAR, flooded


def test_names() -> None:
    """Each timing has a name, and a wrong one is refused with the nearest."""
    assert [timing_named(timing.value) for timing in Timing] == list(Timing)
    with pytest.raises(ConfigError, match=r"timing 'earl': did you mean early\?"):
        timing_named("earl")


@pytest.mark.parametrize("kind", [Model, GatherModel, Gradient])
@pytest.mark.parametrize("step", [0, 5, STEP_MAX])
def test_a_flood(kind: type[Model | GatherModel | Gradient], step: int) -> None:
    """The lie comes first; what follows repeats, varies or mislabels it."""
    lie = kind(step, np.float32([3, -1]))
    told = flooded([("s1", Send(("w1", "w2"), lie))])
    messages = [effect.message for _, effect in told if isinstance(effect, Send)]
    of_step = [m for m in messages if isinstance(m, kind) and m.step == step]

    assert {liar for liar, _ in told} == {"s1"}
    assert messages[0] is lie
    assert all(isinstance(message, kind) for message in messages)
    assert all(0 <= message.step <= STEP_MAX for message in messages)
    assert {message.step for message in messages} == {
        step,
        max(step - FAR, 0),
        min(step - step % FAR + FAR, STEP_MAX),
    }
    if step == 5:
        assert [m.vector.tolist() for m in of_step] == [[3, -1], [-3, 1], [3, -1], [6, -2]]


def test_what_is_no_lie_is_told_once() -> None:
    """A flood leaves greetings and pulls alone."""
    orders = [("w1", Send(("s1",), Hello(0))), ("w1", Send(("s1",), Pull(0)))]

    assert flooded(orders) == orders


def test_the_lie_itself_stays_as_it_is() -> None:
    """Other vectors are new ones, also where they overflow."""
    vector = np.float32([3e38])
    told = flooded([("w1", Send(("s1",), Gradient(1, vector)))])

    assert vector == np.float32([3e38])
    assert len(told) > 1
