"""What liars compute of what workers would send."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from byzsgd.cluster import Cluster
from byzsgd.errors import TaskError
from byzsgd.messages import Gradient, Message
from byzsgd.simulation import Coalition, Simulation, coalition_of
from byzsgd.simulation.oracle import Gradients, flipped_gradients
from byzsgd.tasks import Task, load_task
from byzsgd.vectors import Vector


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("quadratic", {"d": 3}, directory=Path())


class Ear(Coalition):
    """Silent liars, who keep what correct nodes say."""

    def __init__(self, cluster: Cluster, liars: list[str]) -> None:
        super().__init__(cluster, liars)
        self.heard: list[tuple[str, Message]] = []

    def overhear(self, sender: str, message: Message) -> list:  # type: ignore[type-arg]
        self.heard.append((sender, message))
        return []


def test_just_what_workers_send(task: Task, cluster: Callable[..., Cluster]) -> None:
    """Asked at the models that a worker worked at, it says the very gradients that it sent."""
    members = cluster(servers=1, f_servers=0, f_workers=0, workers=2, rule="average", steps=5)
    ear = Ear(members, [])
    simulation = Simulation(members, task, seed=1, liars=ear)
    simulation.run()
    models = {m.step: m.vector for who, m in ear.heard if who == "s1" and hasattr(m, "vector")}
    oracle = Gradients(task, members, ["w1", "w2"])
    computed = {step: oracle(step, models[step]) for step in range(5)}

    sent = [(who, m) for who, m in ear.heard if isinstance(m, Gradient)]
    assert len(sent) == 10
    for who, message in sent:
        np.testing.assert_array_equal(computed[message.step][who], message.vector)


def test_only_some_workers(task: Task, cluster: Callable[..., Cluster]) -> None:
    """It answers for the workers that it was told, each with batches of its own."""
    answers = Gradients(task, cluster(), ["w2", "w4"])(0, np.zeros(3, np.float32))

    assert list(answers) == ["w2", "w4"]
    assert (answers["w2"] != answers["w4"]).any()


def test_flipped(task: Task, cluster: Callable[..., Cluster]) -> None:
    """With flipped labels the first lying worker's gradient points at the wrong target."""
    members = cluster(worker_momentum=0.0, batch_size=10**6)
    gradient = flipped_gradients(task, members, ["s1", "w3", "w2"])(0, np.zeros(3, np.float32))

    np.testing.assert_allclose(gradient, np.cos(np.arange(3)), atol=0.01)


class Unflippable:
    """A task of somebody's own."""

    def initial(self, seed: int) -> Vector:
        raise NotImplementedError

    source = accuracy = state = initial


def test_unflippable(cluster: Callable[..., Cluster]) -> None:
    """A task without label_flipped is refused, and the sentence names the method."""
    with pytest.raises(TaskError, match="label_flipped"):
        flipped_gradients(Unflippable(), cluster(), ["w1"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attack", "server_attack", "overhears", "loads"),
    [
        ("sign-flip", None, False, True),
        ("sign-flip", None, True, False),
        ("sign-flip", "mute", False, False),
        ("random", None, False, False),
        ("mute", None, False, False),
        ("label-flip", "mute", True, True),
        (None, "push", False, False),
    ],
)
def test_a_task_is_loaded_when_needed(
    attack: str | None,
    server_attack: str | None,
    overhears: bool,
    loads: bool,
    task: Task,
    cluster: Callable[..., Cluster],
) -> None:
    """Only liars who compute gradients load the task: unseen ones, or those on flipped labels."""
    loaded: list[Task] = []

    def load() -> Task:
        loaded.append(task)
        return task

    liars = [*(["w1"] if attack else []), *(["s1"] if server_attack else [])]
    coalition = coalition_of(
        cluster(), liars, load, attack=attack, server_attack=server_attack, overhears=overhears
    )

    assert coalition.liars == tuple(sorted(liars))
    assert bool(loaded) == loads
