"""No model of long ago counts in a catch-up: what watches the simulations must see it."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.cluster import Cluster
from byzsgd.protocol import Aggregate, server_of
from byzsgd.simulation.promises import digest_of
from byzsgd.simulation.recency import Recency

OLD, NEW = np.float32([1]), np.float32([2])


def test_a_model_of_long_ago(cluster: Callable[..., Cluster]) -> None:
    """After 5 s, unless it was said again; in a gather, where steps are equal, no age counts."""
    node, watch = server_of(cluster(), "s1", OLD), Recency()
    for peer, when in {"s2": 0.0, "s3": 6.0, "s4": 6.0}.items():
        watch.told("s1", peer, digest_of(NEW), when)
    effect = Aggregate(9, "coordinate_median", ("s2", "s3", "s4"), (NEW,) * 3, 1)
    watch.adopts(node, effect, 5.0)
    with pytest.raises(AssertionError, match=r"the model of s2 is 6\.0 s old"):
        watch.adopts(node, effect, 6.0)

    watch.adopts(node, Aggregate(9, "coordinate_median", ("s2",), (NEW,), 1, own="s1"), 6.0)
    watch.told("s1", "s2", digest_of(NEW), 6.0)
    watch.adopts(node, effect, 6.0)
