"""One seed, one run, bit for bit; and what a story that ends badly shrinks to."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from tests.soak.bugs import planted
from tests.soak.shrink import shrink
from tests.soak.story import Mishap, Story, story_of, tell
from tests.soak.transcript import transcript

from byzsgd.protocol import Node

ROOT = Path(__file__).parents[2]

DIGESTS = """
from tests.soak.story import story_of, tell
for seed in range(4):
    print(tell(story_of(seed)).record.digest())
"""


def test_same_seed_same_run() -> None:
    """Equal histories in processes that order sets and hashes otherwise: to the bit."""
    told = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
                "PYTHONHASHSEED": salt,
            },
        ).stdout.split()
        for salt in ("1", "2")
    ]

    assert told[0] == told[1]
    assert len(set(told[0])) == 4, "and every seed tells another story"


def test_a_story_survives_its_words() -> None:
    """What a search prints can be told again."""
    for seed in range(50):
        assert Story.from_json(story_of(seed).to_json()) == story_of(seed)


SURVIVED = {
    "crash": Mishap("crash", 0.05, 0.5, ("s2",)),
    "crash without disk": Mishap("crash", 0.05, 0.5, ("s2",), bad=True),
    "power": Mishap("power", 0.05, 0.5),
    "power without disk": Mishap("power", 0.05, 0.5, bad=True),
    "uneven": Mishap("uneven", 0.05, 0.5, ("s5",)),
    "cut": Mishap("cut", 0.05, 0.5),
    "split": Mishap("split", 0.05, 1.0, ("s2", "s3", "w2")),
    "one-way split": Mishap("split", 0.05, 1.0, ("s2", "s3", "w2"), bad=True),
    "slow": Mishap("slow", 0.02, 2.0, ("s2",), factor=100.0),
}


@pytest.mark.parametrize("kind", ["asynchronous", "overlapped", "synchronous"])
@pytest.mark.parametrize("name", SURVIVED)
def test_every_mishap_changes_a_run_and_stops_none(name: str, kind: str) -> None:
    """Each leaves its trace in what happens, and all correct nodes still get there."""
    variant = "asynchronous" if kind == "overlapped" else kind
    calm = Story(
        variant=variant,
        overlapped=kind == "overlapped",
        steps=6,
        checkpoint_period=1,
        servers_say="random",
        queue=2,
    )
    without, outcome = tell(calm), tell(replace(calm, mishaps=(SURVIVED[name],)))

    assert outcome.why == without.why == ""
    assert outcome.record.digest() != without.record.digest()


@pytest.mark.parametrize("disk", [True, False])
def test_a_lost_disk(disk: bool) -> None:
    """A server that comes back with its disk goes on at its checkpoint, and else at step 0."""
    mishap = Mishap("crash", 0.1, 0.5, ("s2",), bad=not disk)
    outcome = tell(Story(steps=6, checkpoint_period=1, servers_say="random", mishaps=(mishap,)))
    _, step, _, _ = outcome.record.lives["s2"]

    assert outcome.why == ""
    assert (step > 0) == disk


def test_clocks_that_differ() -> None:
    """Nodes whose clocks agree in nothing get there, by their own deadlines."""
    outcome = tell(Story(steps=4, loss=0.2, workers_say="mute", clocks=True))
    began = [now for now, _, _, _ in outcome.record.lives.values()]

    assert outcome.why == ""
    assert len(set(began)) == len(began)


def test_who_never_asks_again_never_ends() -> None:
    """Once nothing breaks any more every correct node must get there: this is seen."""
    with mock.patch.object(Node, "_pull"):
        outcome = tell(Story(steps=8, loss=0.15))

    assert outcome.why.startswith("no end: ")
    assert f"{outcome.identity} waits for" in outcome.why


def test_a_bad_story_shrinks_to_a_transcript() -> None:
    """To the fewest nodes and steps, no mishap, and a few commands of tests/scenarios."""
    with planted("arrival-order"):
        outcome = tell(story_of(0))
        simplest = shrink(outcome)
        text = transcript(simplest)

    assert simplest.kind == outcome.kind
    assert simplest.story.mishaps == ()
    assert simplest.story.steps == 1
    assert text.startswith(f"# {simplest.why}")
    assert "servers=" not in text or simplest.story.servers != 5, "only what is unusual is said"
    assert len(text.splitlines()) < 20
