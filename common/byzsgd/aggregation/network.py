"""Straight-line programs of minima and maxima that find the middle values of n.

The same few operations whatever the values, so they run on whole blocks of coordinates at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple


class Operation(NamedTuple):
    """Set register ``target`` to the minimum or the maximum of two registers."""

    minimum: bool
    """Minimum if true, else maximum."""
    left: int
    right: int
    target: int
    """Never the register of an input; may be ``left`` or ``right``."""


@dataclass(frozen=True, slots=True)
class Network:
    """A program over registers, the first n of which hold the inputs and are never written."""

    operations: tuple[Operation, ...]
    """To be done in this order."""
    middles: tuple[int, ...]
    """Registers of the result: the middle values, ascending."""
    registers: int
    """How many registers the program needs, inputs included."""


@cache
def median_network(n: int) -> Network:
    """The network that finds the middle, or the two middles, of n values.

    Batcher's merge exchange sorts an even number of them; the last of an odd number is then
    clamped between the two middles of the others. What no middle depends on is left out.

    Args:
        n: How many values; at least 1.

    Source: Knuth, "The Art of Computer Programming", volume 3, algorithm 5.2.2 M.
    """
    # Values 0..n-1 are the inputs; value n + k is what the k-th operation computes.
    computed: list[tuple[bool, int, int]] = []
    even = n - n % 2
    values = _sorted(n, even, computed)
    middles = values[even // 2 - 1 : even // 2 + 1]
    if n % 2:
        last = n - 1
        for minimum, bound in zip((False, True), middles, strict=False):
            computed.append((minimum, last, bound))
            last = n + len(computed) - 1
        middles = [last]
    return _allocated(n, computed, middles)


@cache
def middle_network(n: int, trimmed: int) -> Network:
    """The network that finds, and sorts, all of n values but the smallest and the largest few.

    Args:
        n: How many values; at least 1.
        trimmed: How many to leave out on each side; fewer than half.
    """
    if n - 2 * trimmed <= 2:
        return median_network(n)
    computed: list[tuple[bool, int, int]] = []
    values = _sorted(n, n, computed)
    return _allocated(n, computed, values[trimmed : n - trimmed])


def _sorted(n: int, count: int, computed: list[tuple[bool, int, int]]) -> list[int]:
    """The first ``count`` of n inputs in ascending order; the operations are appended."""
    values = list(range(count))
    for i, j in _merge_exchange(count):
        low, high = values[i], values[j]
        for index, minimum in ((i, True), (j, False)):
            computed.append((minimum, low, high))
            values[index] = n + len(computed) - 1
    return values


def _merge_exchange(n: int) -> Iterator[tuple[int, int]]:
    """Batcher's comparisons: exchange i and j of each pair if they are out of order."""
    top = 1 << max(n - 1, 0).bit_length() >> 1
    p = top
    while p:
        q, r, distance = top, 0, p
        while True:
            yield from ((i, i + distance) for i in range(n - distance) if i & p == r)
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2


def _allocated(n: int, computed: list[tuple[bool, int, int]], middles: list[int]) -> Network:
    """The network of those operations that the middles depend on, in as few registers as needed."""
    needed = set(middles)
    last_use = dict.fromkeys(middles, len(computed))
    for index in reversed(range(len(computed))):
        if n + index in needed:
            for value in computed[index][1:]:
                needed.add(value)
                last_use.setdefault(value, index)
    register = {value: value for value in range(n)}
    free: list[int] = []
    registers = n
    operations = []
    for index, (minimum, left, right) in enumerate(computed):
        if n + index not in needed:
            continue
        sources = register[left], register[right]
        free += [
            register[value] for value in (left, right) if value >= n and last_use[value] == index
        ]
        if not free:
            free.append(registers)
            registers += 1
        target = register[n + index] = free.pop()
        operations.append(Operation(minimum, *sources, target))
    return Network(tuple(operations), tuple(register[value] for value in middles), registers)
