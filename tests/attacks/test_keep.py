"""Each server is told what it believes already."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from byzsgd.attacks import View
from byzsgd.attacks.keep import Keep
from byzsgd.cluster import Role


def test_a_server_hears_its_own_model(view: Callable[..., View]) -> None:
    """A server is told its own model; with a larger scale, one further out on its side."""
    seen = view(role=Role.SERVER)
    mean = np.mean(seen.vectors, 0)
    for place, server in enumerate(seen.receivers):
        own = seen.vectors[place]
        np.testing.assert_allclose(Keep().forge(seen, server), own, atol=1e-5)
        further = Keep(scale=3).forge(seen, server)
        np.testing.assert_allclose(further, mean + 3 * (own - mean), atol=1e-4)


def test_workers_are_dealt_out(view: Callable[..., View]) -> None:
    """A worker is told the model of the server whose turn it is."""
    seen = replace(view(role=Role.SERVER, correct=3), receivers=("w1", "w2", "w3", "w4"))

    for place, worker in enumerate(seen.receivers):
        np.testing.assert_allclose(Keep().forge(seen, worker), seen.vectors[place % 3], atol=1e-5)
