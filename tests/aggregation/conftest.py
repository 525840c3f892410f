"""Every rule and pre-step by its definition, in float64 and without a thought for speed."""

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import pytest

Naive = Callable[[np.ndarray, int], np.ndarray]


def squared(wide: np.ndarray) -> np.ndarray:
    return ((wide[:, None] - wide[None]) ** 2).sum(axis=2)


def neighbour_sum(distances: np.ndarray, count: int) -> float:
    """Sum of a row's smallest distances, its own left out."""
    return float(np.sort(distances)[1 : count + 1].sum())


def krum_winner(wide: np.ndarray, f: int) -> int:
    count = max(len(wide) - f - 2, 1)
    return int(np.argmin([neighbour_sum(row, count) for row in squared(wide)]))


def multi_krum(wide: np.ndarray, f: int) -> np.ndarray:
    scores = [neighbour_sum(row, len(wide) - f - 2) for row in squared(wide)]
    return wide[np.argsort(scores)[: len(wide) - f]].mean(axis=0)


def mda(wide: np.ndarray, f: int) -> np.ndarray:
    distances = squared(wide)
    subsets = [list(subset) for subset in combinations(range(len(wide)), len(wide) - f)]
    return wide[min(subsets, key=lambda s: distances[np.ix_(s, s)].max())].mean(axis=0)


def monna(wide: np.ndarray, f: int) -> np.ndarray:
    distances = squared(wide)
    size = len(wide) - f
    trusted = int(np.argmin([neighbour_sum(row, size - 1) for row in distances]))
    return wide[np.argsort(distances[trusted])[:size]].mean(axis=0)


def closest(wide: np.ndarray, count: int) -> np.ndarray:
    """Mean of the values closest to the median, coordinate by coordinate."""
    ascending = np.sort(wide, axis=0)
    order = np.argsort(np.abs(ascending - np.median(wide, axis=0)), axis=0, kind="stable")
    return np.take_along_axis(ascending, order[:count], axis=0).mean(axis=0)


def bulyan(wide: np.ndarray, f: int) -> np.ndarray:
    rest, selected = list(range(len(wide))), []
    for _ in range(len(wide) - 2 * f):
        selected.append(rest.pop(krum_winner(wide[rest], f)))
    return closest(wide[selected], len(wide) - 4 * f)


def geometric_median(wide: np.ndarray, f: int) -> np.ndarray:
    """Weiszfeld's algorithm on the vectors themselves."""
    point = np.median(wide, axis=0)
    for _ in range(2000):
        distances = np.linalg.norm(wide - point, axis=1)
        if np.median(distances) == 0:
            break
        nearness = 1 / np.maximum(distances, 1e-9 * np.median(distances))
        before, point = point, nearness @ wide / nearness.sum()
        if np.linalg.norm(point - before) <= 1e-10 * np.median(distances):
            break
    return point


def centered_clipping(wide: np.ndarray, f: int) -> np.ndarray:
    reach = np.sort(squared(wide), axis=1)[:, len(wide) // 2]
    centre = wide[reach.argmin()]
    for _ in range(1000):
        away = wide - centre
        distances = np.linalg.norm(away, axis=1)
        radius = np.sort(distances)[len(wide) - f - 1]
        shares = [min(1.0, radius / distance) if distance else 1.0 for distance in distances]
        move = np.array(shares) @ away / len(wide)
        centre = centre + move
        if np.linalg.norm(move) <= 1e-10 * radius:
            break
    return centre


NAIVE: Mapping[str, Naive] = {
    "average": lambda wide, f: wide.mean(axis=0),
    "bulyan": bulyan,
    "centered_clipping": centered_clipping,
    "coordinate_median": lambda wide, f: np.median(wide, axis=0),
    "geometric_median": geometric_median,
    "krum": lambda wide, f: wide[krum_winner(wide, f)],
    "mda": mda,
    "mean_around_median": lambda wide, f: closest(wide, len(wide) - f),
    "monna": monna,
    "multi_krum": multi_krum,
    "trimmed_mean": lambda wide, f: np.sort(wide, axis=0)[f : len(wide) - f].mean(axis=0),
}


@pytest.fixture(scope="session")
def naive() -> Callable[[str, np.ndarray, int], np.ndarray]:
    """What a rule makes of vectors, by its definition."""
    return lambda rule, vectors, f: NAIVE[rule](vectors.astype(np.float64), f)
