"""Means of the middle values of each coordinate: networks, run on all of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from byzsgd.aggregation import jit
from byzsgd.aggregation.mixture import Row
from byzsgd.aggregation.network import Network
from byzsgd.aggregation.rule import refuse_non_finite
from byzsgd.vectors import Vector

CHUNK = 1 << 15
"""Coordinates handled at once: 128 KiB a register. Smaller ones pay for NumPy's calls; with larger
ones a rule would need more memory than a row."""


def write_mean(network: Network, rows: Sequence[Row], result: Vector) -> None:
    """Write the mean of a network's middles to ``result``: compiled code does it, or NumPy.

    Args:
        network: A program whose inputs are the rows.
        rows: n rows of length d.
        result: ``(d,)`` float32, contiguous, sharing no memory with a row.

    Raises:
        AggregationError: If a row is not finite.
    """
    if not jit.run(network, rows, result):
        for middles, scratch, target in chunks(network, rows, result):
            mean(middles, scratch, target)


def chunks(
    network: Network, rows: Sequence[Row], result: Vector
) -> Iterator[tuple[list[Vector], Vector, Vector]]:
    """Run a network chunk by chunk: its middles, a scratch buffer and where the result belongs.

    The middles must be left as they are, for they may be rows.

    Raises:
        AggregationError: If a row is not finite.
    """
    width = min(CHUNK, len(result))
    buffers = np.empty((network.registers - len(rows) + 1, width), np.float32)
    for low in range(0, len(result), width):
        target = result[low : low + width]
        registers = [row[low : low + width] for row in rows]
        refuse_non_finite(registers)
        registers += [buffer[: len(target)] for buffer in buffers]
        for minimum, left, right, to in network.operations:
            extremum = np.minimum if minimum else np.maximum
            extremum(registers[left], registers[right], out=registers[to])
        yield [registers[middle] for middle in network.middles], registers[-1], target


def mean(values: Sequence[Vector], scratch: Vector, target: Vector) -> None:
    """Write the mean of ascending values to ``target``; they are left as they are.

    The outermost pair is added first, then the next: so the mean of the negatives, which are in
    the opposite order, is the negative of the mean, bit for bit.
    """
    count = len(values)
    if count == 1:
        np.add(values[0], 0.0, out=target)
        return
    if count == 2:
        # Halves first: the sum of two values may exceed float32.
        np.multiply(values[0], 0.5, out=scratch)
        np.multiply(values[1], 0.5, out=target)
        np.add(target, scratch, out=target)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            np.add(values[0], values[-1], out=target)
            for k in range(1, count // 2):
                np.add(values[k], values[-1 - k], out=scratch)
                np.add(target, scratch, out=target)
            if count % 2:
                np.add(target, values[count // 2], out=target)
            np.divide(target, count, out=target)
        wrong = ~np.isfinite(target)
        if wrong.any():  # The float32 sum overflowed; the mean is within float32 again.
            target[wrong] = np.mean([value[wrong] for value in values], axis=0, dtype=np.float64)
    # Which of -0.0 and +0.0 counts as the smaller differs between CPUs.
    np.add(target, 0.0, out=target)
