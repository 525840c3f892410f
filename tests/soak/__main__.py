"""Many seeds, one story each: ``make soak``.

A seed that ends badly is told again in the simplest way that still does, and the node that broke
its promise writes a transcript for tests/scenarios.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing import Pool
from typing import NamedTuple

from tests.soak.bugs import BUGS, planted
from tests.soak.shrink import shrink
from tests.soak.story import Outcome, Story, story_of, tell
from tests.soak.transcript import transcript

FAILURES_MAX = 5
"""Seeds that end badly before the search stops."""

BUG_SEEDS_MAX = 1000
"""Seeds among which a planted bug should be caught."""


class Told(NamedTuple):
    """What became of a seed."""

    seed: int
    events: int
    seconds: float
    why: str


def main() -> int:
    """0 if every seed ends well, or every bug badly."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="tell this one alone, at length")
    parser.add_argument("--story", help="tell a story that a search has printed")
    parser.add_argument("--plant", default="", choices=["", *BUGS], help="plant a bug")
    parser.add_argument(
        "--bugs", action="store_true", help="find the first seed that catches each bug"
    )
    options = parser.parse_args()
    if options.bugs:
        return _every_bug(options.first, options.plant)
    if options.seed is not None or options.story:
        story = story_of(options.seed) if not options.story else Story.from_json(options.story)
        with planted(options.plant):
            return _at_length(story)
    return _search(range(options.first, options.first + options.seeds), options.plant)


def _search(seeds: range, plant: str) -> int:
    began, done, events, slowest = time.monotonic(), 0, 0, 0.0
    failed: list[Told] = []
    for told in _told(seeds, plant):
        done, events = done + 1, events + told.events
        slowest = slowest if told.why else max(slowest, told.seconds)
        if told.why:
            failed.append(told)
            print(f"\rseed {told.seed}: {told.why.splitlines()[0]}", flush=True)
        if done % 50 == 0 or done == len(seeds):
            rate = done / (time.monotonic() - began)
            words = f"{done} of {len(seeds)} seeds, {rate:.1f}/s, longest {slowest:.1f} virtual s"
            print(f"\r{words}", end="", file=sys.stderr)
        if len(failed) == FAILURES_MAX:
            break
    print(f"\n{done} seeds, {events} events, {len(failed)} failed; the longest story took ")
    print(f"{slowest:.1f} virtual seconds; {time.monotonic() - began:.0f} s of wall time")
    for told in failed:
        print(f"replay: make soak SEED={told.seed}" + (f" PLANT={plant}" if plant else ""))
    if failed:
        with planted(plant):
            _explain(tell(story_of(failed[0].seed)))
    return 1 if failed else 0


def _told(seeds: Iterable[int], plant: str) -> Iterator[Told]:
    """Every seed's outcome, on all cores, as they come."""
    with Pool(os.cpu_count(), _plant_here, (plant,)) as pool:
        yield from pool.imap_unordered(_one, seeds, chunksize=4)


def _plant_here(plant: str) -> None:
    if plant:
        BUGS[plant]().__enter__()  # For as long as the process lives.


def _one(seed: int) -> Told:
    outcome = tell(story_of(seed))
    return Told(seed, outcome.record.events, outcome.seconds, outcome.why)


def _at_length(story: Story) -> int:
    outcome = tell(story)
    print(f"story: {story.to_json()}")
    print(f"{outcome.record.events} events, {outcome.seconds:.3f} virtual seconds")
    print(f"digest {outcome.record.digest()}")
    if not outcome.why:
        print("every promise is kept, and every correct node is done")
        return 0
    _explain(outcome)
    return 1


def _explain(outcome: Outcome) -> None:
    print(f"\n{outcome.identity}: {outcome.why}\n\nsimpler:")
    simplest = shrink(outcome)
    print(f"make soak STORY='{simplest.story.to_json()}'")
    print(f"\n{simplest.identity}: {simplest.why.splitlines()[0]}\n")
    print(transcript(simplest))


def _every_bug(first: int, only: str) -> int:
    missed = 0
    print("bug | first seed that catches it | promise")
    for name in [only] if only else BUGS:
        with planted(name):
            found = next(
                (
                    outcome
                    for seed in range(first, first + BUG_SEEDS_MAX)
                    if (outcome := tell(story_of(seed))).why
                ),
                None,
            )
        missed += found is None
        words = f"{found.story.seed} | {found.why.splitlines()[0]}" if found else "none | "
        print(f"{name} | {words}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
