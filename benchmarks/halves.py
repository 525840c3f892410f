"""What wire types of two bytes cost: time to encode and decode, and accuracy under attack.

    python -m benchmarks.halves
    python -m benchmarks.halves --accuracy --variant synchronous

Times are process CPU time of one thread; the types take turns, and medians over the rounds count.
The floor of encoding is a copy of the vector: float32 is sent as it lies. Accuracy takes minutes:
digits in memory, 300 steps, five servers and seven workers, of which one and two lie.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from benchmarks import rows

from byzsgd.cluster import WireType
from byzsgd.messages import Gradient
from byzsgd.wire import Layout, decode, encode
from byzsgd_daemons.evaluate.memory import train
from byzsgd_daemons.evaluate.plan import Run
from byzsgd_daemons.init import Plan
from byzsgd_daemons.local import Drill

TABLE = "Wire types of two bytes"
BOOT = bytes(8)
HALVES = (WireType.BFLOAT16, WireType.FLOAT16)
CELLS = (
    *((None, server_attack) for server_attack in ("equivocate", "random", "push")),
    *(("alie", server_attack) for server_attack in ("equivocate", "push")),
    ("sign-flip", "push"),
    ("empire", "random"),
)
"""What lying workers do, if any lie, and what a lying server does."""


def calls(d: int) -> dict[str, Callable[[], object]]:
    """What takes turns, by name."""
    vector = np.random.default_rng(1).standard_normal(d, np.float32)
    message, copied = Gradient(1, vector), np.empty_like(vector)
    found: dict[str, Callable[[], object]] = {"copy": lambda: np.copyto(copied, vector)}
    for wire_type in WireType:
        layout = Layout(d, wire_type)
        frames = [bytes(frame) for frame in encode(message, BOOT, layout)]
        found[f"encode {wire_type}"] = lambda at=layout: encode(message, BOOT, at)
        found[f"decode {wire_type}"] = lambda at=layout, f=frames: decode(f, at)
    return found


def milliseconds(call: Callable[[], object]) -> float:
    """CPU time of the second of two calls."""
    call()
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1e6


def times(d: int, rounds: int) -> Iterator[rows.Row]:
    """Encoding beside a copy, and decoding beside that of float32."""
    contestants = calls(d)
    turns = [
        {name: milliseconds(call) for name, call in contestants.items()} for _ in range(rounds)
    ]
    for work, floor, words in (
        ("encode", "copy", "a copy of float32"),
        ("decode", f"decode {WireType.FLOAT32}", "float32's"),
    ):
        for wire_type in HALVES:
            name = f"{work} {wire_type}"
            taken = statistics.median(turn[name] for turn in turns)
            base = statistics.median(turn[floor] for turn in turns)
            yield rows.Row(
                TABLE,
                f"{name}, d = {d}",
                statistics.median(turn[name] / turn[floor] for turn in turns),
                f"x {words}",
                note=f"{taken:.2f} ms, {words} {base:.2f} ms",
            )


def accuracies(variant: str, steps: int, seeds: int) -> Iterator[rows.Row]:
    """Points of accuracy that each type costs against float32, cell by cell."""
    gaps: dict[WireType, list[float]] = {half: [] for half in HALVES}
    for attack, server_attack in CELLS:
        found = {
            each: _accuracy(each, variant, steps, seeds, attack, server_attack) for each in WireType
        }
        line = ", ".join(f"{each} {100 * accuracy:.2f}" for each, accuracy in found.items())
        print(f"{variant}, {attack or 'nobody'} + {server_attack}: {line}", flush=True)
        for half in HALVES:
            gaps[half].append(100 * (found[WireType.FLOAT32] - found[half]))
    for half, points in gaps.items():
        yield rows.Row(
            TABLE,
            f"accuracy, {half}, {variant}",
            statistics.mean(points),
            "points below float32",
            note=f"mean of {len(points)} cells, {min(points):+.2f} to {max(points):+.2f}",
        )


def _accuracy(
    wire_type: WireType, variant: str, steps: int, seeds: int, attack: str | None, server: str
) -> float:
    runs = [
        Run(
            plan=Plan(task="digits", steps=steps, variant=variant, wire_type=wire_type, seed=seed),
            drill=Drill(attack=attack, server_attack=server),
            in_memory=True,
        )
        for seed in range(1, seeds + 1)
    ]
    return statistics.mean(train(run).accuracy() for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=1_750_000)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--accuracy", action="store_true", help="accuracy instead of times")
    parser.add_argument("--variant", default="asynchronous")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    if words.accuracy:
        found = list(accuracies(words.variant, words.steps, words.seeds))
    else:
        found = list(times(words.d, words.rounds))
    print(rows.markdown(found))
    if words.json:
        rows.write(found, words.json)


if __name__ == "__main__":
    main()
