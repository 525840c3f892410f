"""l, the Lipschitz constant of a loss's gradient, estimated; and the gather period it allows."""

import math

import numpy as np

from byzsgd.tasks.task import Share, Task, buffers_of
from byzsgd.vectors import distance, is_finite

STEPS = 10
"""Learning steps that are looked at: the gradient changes fastest at the start."""


def gather_period(task: Task, *, seed: int, learning_rate: float, batch_size: int) -> int:
    """T = 1 / (3 l eta_1), rounded down, at least 1.

    Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine
    Machine Learning" (ByzSGD).

    Args:
        task: What is learned.
        seed: The cluster's seed.
        learning_rate: eta_1, the first and largest step size.
        batch_size: Examples in a mini-batch.

    Raises:
        TaskError: If a loaded task's code fails.
    """
    bend = smoothness(task, seed=seed, learning_rate=learning_rate, batch_size=batch_size)
    # A loss that looks flat says nothing of how it bends elsewhere: gather every step.
    return max(1, math.floor(1 / (3 * bend * learning_rate))) if bend else 1


def smoothness(task: Task, *, seed: int, learning_rate: float, batch_size: int) -> float:
    """The largest change of the gradient per distance, along the first steps of plain SGD.

    Both gradients of a ratio are taken on the same mini-batch: on two different ones the ratio
    measures the noise between them, which is up to 50 times larger.

    Args:
        task: What is learned.
        seed: Seed of the first model and of the mini-batches.
        learning_rate: Step size.
        batch_size: Examples in a mini-batch.

    Returns:
        A lower estimate of l: 0 if the model never moved, infinity if it went out of bounds.
    """
    source = task.source(Share("smoothness", 0, 1, seed, batch_size))
    here = task.initial(seed)
    d = len(here) - buffers_of(task)
    largest = 0.0
    for step in range(STEPS):
        gradient, _ = source.gradient(here, step)
        gradient[d:] = 0  # Buffers have none, and stay as they are.
        with np.errstate(over="ignore", invalid="ignore"):
            there = here - np.float32(learning_rate) * gradient
        ahead, _ = source.gradient(there, step)
        ahead[d:] = 0
        if not (is_finite(there) and is_finite(ahead)):
            return math.inf
        if moved := distance(here, there):
            largest = max(largest, distance(gradient, ahead) / moved)
        here = there
    return largest
