"""The vertex cover search, against trying every set of vertices."""

import numpy as np
import pytest

from byzsgd.aggregation.cover import bits, vertex_cover


def neighbours(edges: np.ndarray) -> list[int]:
    """Adjacency as sets of bits, of a symmetric boolean matrix."""
    return [sum(1 << int(other) for other in np.flatnonzero(row)) for row in edges]


def is_cover(adjacent: list[int], alive: int, cover: int) -> bool:
    """Whether no edge within ``alive`` is untouched."""
    rest = alive & ~cover
    return all(not adjacent[vertex] & rest for vertex in bits(rest))


def smallest_cover(adjacent: list[int], alive: int) -> int:
    """The size of the smallest cover, by trying every subset of the vertices."""
    return min(
        cover.bit_count()
        for cover in range(1 << len(adjacent))
        if cover & ~alive == 0 and is_cover(adjacent, alive, cover)
    )


def random_graph(chance: np.random.Generator, n: int) -> list[int]:
    edges = np.triu(chance.random((n, n)) < chance.choice([0.1, 0.3, 0.5, 0.8]), 1)
    return neighbours(edges | edges.T)


def test_bits_are_ascending() -> None:
    """The members of a set come in ascending order."""
    assert list(bits(0b1001_0110)) == [1, 2, 4, 7]
    assert list(bits(0)) == []


def test_small_graphs_have_the_cover_that_every_subset_shows() -> None:
    """On random graphs a cover is found exactly for budgets that allow one, and it is a cover."""
    chance = np.random.default_rng(1)
    for _ in range(300):
        n = int(chance.integers(1, 10))
        adjacent = random_graph(chance, n)
        alive = int(chance.integers(0, 1 << n))
        least = smallest_cover(adjacent, alive)
        for budget in range(-1, n + 1):
            cover = vertex_cover(adjacent, alive, budget)

            assert (cover is not None) == (budget >= least)
            if cover is not None:
                assert cover.bit_count() <= budget
                assert cover & ~alive == 0
                assert is_cover(adjacent, alive, cover)


@pytest.mark.parametrize("n", [14, 16])
def test_graphs_that_need_every_rule(n: int) -> None:
    """Sparse graphs without vertices of degree one, where bounds and branching meet."""
    chance = np.random.default_rng(n)
    members = np.arange(1 << n)
    for _ in range(60):
        edges = np.zeros((n, n), bool)
        for _ in range(2):  # Two random cycles through every vertex.
            order = chance.permutation(n)
            edges[order, np.roll(order, 1)] = True
        edges |= edges.T
        adjacent = neighbours(edges)
        covers = np.ones(1 << n, bool)
        for i, j in np.argwhere(np.triu(edges)):
            covers &= (members >> i | members >> j) & 1 == 1
        least = int(np.bitwise_count(members[covers]).min())
        cover = vertex_cover(adjacent, (1 << n) - 1, least)

        assert vertex_cover(adjacent, (1 << n) - 1, least - 1) is None
        assert cover is not None
        assert is_cover(adjacent, (1 << n) - 1, cover)


def test_known_graphs() -> None:
    """Cycles, cliques, stars and the Petersen graph need as many as they are known to."""

    def least(adjacent: list[int]) -> int:
        everyone = (1 << len(adjacent)) - 1
        return next(k for k in range(99) if vertex_cover(adjacent, everyone, k) is not None)

    def cycle(n: int) -> np.ndarray:
        edges = np.zeros((n, n), bool)
        edges[np.arange(n), (np.arange(n) + 1) % n] = True
        return edges | edges.T

    star = np.zeros((9, 9), bool)
    star[0, 1:] = star[1:, 0] = True
    petersen = np.zeros((10, 10), bool)
    petersen[:5, :5] = cycle(5)
    petersen[5:, 5:] = cycle(5)[np.ix_(*[[0, 2, 4, 1, 3]] * 2)]
    petersen[np.arange(5), np.arange(5) + 5] = petersen[np.arange(5) + 5, np.arange(5)] = True

    assert [least(neighbours(cycle(n))) for n in (3, 4, 5, 8, 9)] == [2, 2, 3, 4, 5]
    assert least(neighbours(~np.eye(7, dtype=bool))) == 6
    assert least(neighbours(star)) == 1
    assert least(neighbours(petersen)) == 6
    assert least([0] * 5) == 0


def test_many_vertices_do_not_exhaust_the_stack() -> None:
    """A graph of a thousand vertices, as many as a cluster may have, is searched."""
    n = 1000
    edges = np.zeros((n, n), bool)
    for offset in (1, 2):
        edges[np.arange(n), (np.arange(n) + offset) % n] = True
    cover = vertex_cover(neighbours(edges | edges.T), (1 << n) - 1, 667)

    assert cover is not None
    assert cover.bit_count() <= 667
