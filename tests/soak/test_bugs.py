"""Each bug, planted by itself, is caught by a story that ends well without it."""

import pytest
from tests.soak.bugs import BUGS, planted
from tests.soak.story import story_of, tell

CAUGHT: dict[str, tuple[int, str]] = {
    "quorum-off-by-one": (4, "5 votes, not 6"),
    "vote-counted-twice": (3, "deque([0, 0])"),
    "claimed-identity": (0, "s2 did not say that"),
    "old-step": (0, "s2 did not say that"),
    "arrival-order": (0, "votes out of order"),
    "without-own-model": (0, "tuple.index(x): x not in tuple"),
    "lower-median": (1, "coordinate_median of step 2 is another vector"),
    "no-finite-check": (0, "row 0 has a coordinate that is not finite"),
    "one-peer-believed": (3, "no correct server is at step 1000"),
    "unbounded-window": (85, "vectors, not 48 at most"),
    "gather-off-by-one": (0, "a vote at step 2, where nobody gathers"),
    "momentum-reset": (1, "momentum of step 1 is not what was sent last"),
    "update-thrown-away": (0, "model 1 is not its own"),
    "wrong-learning-rate": (0, "a learning rate of 0 at step 0, not 0.5"),
    "gradient-elsewhere": (0, "no model of step 0 is where it takes its gradient"),
    "liars-beside": (198, "no end: s3 waits for 5 of 5 gradients of step 0"),
    "old-models": (18, "the model of s2 is 13.0 s old"),
    "votes-of-old": (76, "w1 did not say that"),
    "uncontracted": (4, "the model of step 2 was another one"),
    "told-again": (4, "equivocates about the model of step 8"),
}
"""A seed that catches each bug, found by ``make soak BUGS=1``, and the promise that is broken."""


def test_every_bug_has_a_seed() -> None:
    """None is forgotten here."""
    assert CAUGHT.keys() == BUGS.keys()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    """By the promise that it breaks."""
    seed, promise = CAUGHT[name]
    with planted(name):
        outcome = tell(story_of(seed))

    assert promise in outcome.why


@pytest.mark.parametrize("seed", sorted({seed for seed, _ in CAUGHT.values()}))
def test_without_it_all_is_well(seed: int) -> None:
    """What was caught was the bug."""
    assert tell(story_of(seed)).why == ""
