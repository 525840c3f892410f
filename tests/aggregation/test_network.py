"""The minimum and maximum networks that medians and trimmed means run on."""

import numpy as np
import pytest

from byzsgd.aggregation.network import Network, median_network, middle_network


def middles(vectors: np.ndarray, network: Network | None = None) -> list[np.ndarray]:
    """What the network finds for the columns, written by the definition of a network."""
    network = network or median_network(len(vectors))
    registers = [*vectors, *[None] * (network.registers - len(vectors))]
    for minimum, left, right, target in network.operations:
        extremum = np.minimum if minimum else np.maximum
        registers[target] = extremum(registers[left], registers[right])
    return [registers[middle] for middle in network.middles]


@pytest.mark.parametrize("n", range(1, 18))
def test_every_order_is_sorted_out(n: int) -> None:
    """A network finds the middles of every 0-1 column, and so, being monotone, of every column."""
    columns = (np.arange(2**n) >> np.arange(n)[:, None] & 1).astype(np.int8)
    expected = np.sort(columns, axis=0)[(n - 1) // 2 : n // 2 + 1]

    np.testing.assert_array_equal(middles(columns), expected)


@pytest.mark.parametrize("n", [18, 31, 32, 33, 64, 65, 100, 101])
def test_large_networks_find_the_middles(n: int) -> None:
    """Networks too large for every 0-1 column find the middles of thousands of random columns."""
    columns = np.random.default_rng(n).integers(0, 50, (n, 5000))
    expected = np.sort(columns, axis=0)[(n - 1) // 2 : n // 2 + 1]

    np.testing.assert_array_equal(middles(columns), expected)


@pytest.mark.parametrize("n", range(1, 15))
def test_every_order_is_sorted_but_for_the_ends(n: int) -> None:
    """Of every 0-1 column all values are found in order but the few that are left out."""
    columns = (np.arange(2**n) >> np.arange(n)[:, None] & 1).astype(np.int8)
    for trimmed in range((n + 1) // 2):
        expected = np.sort(columns, axis=0)[trimmed : n - trimmed]

        np.testing.assert_array_equal(middles(columns, middle_network(n, trimmed)), expected)


@pytest.mark.parametrize("n", range(1, 41))
@pytest.mark.parametrize("kind", ["median", "sorted", "trimmed"])
def test_inputs_are_never_written(n: int, kind: str) -> None:
    """No operation targets an input, and each reads only registers that hold something."""
    trimmed = {"sorted": 0, "trimmed": (n - 1) // 3}
    network = median_network(n) if kind == "median" else middle_network(n, trimmed[kind])
    filled = set(range(n))
    for operation in network.operations:
        assert {operation.left, operation.right} <= filled
        filled.add(operation.target)

        assert n <= operation.target < network.registers
    assert filled == set(range(network.registers))


@pytest.mark.parametrize(
    ("n", "operations"), [(1, 0), (2, 2), (3, 4), (4, 8), (5, 10), (7, 22), (9, 30), (10, 50)]
)
def test_networks_are_short(n: int, operations: int) -> None:
    """What no middle depends on is left out: the time of a median is the number of operations."""
    network = median_network(n)

    assert len(network.operations) == operations
    assert network.registers <= 2 * n + 1
