"""Each of fifteen bugs, planted by itself, is caught by a story that ends well without it."""

import pytest
from tests.soak.bugs import BUGS, planted
from tests.soak.story import story_of, tell

CAUGHT: dict[str, tuple[int, str]] = {
    "quorum-off-by-one": (6, "3 votes, not 4"),
    "vote-counted-twice": (0, "('s1', deque([0, 0]))"),
    "claimed-identity": (0, "w2 did not say that"),
    "old-step": (0, "w2 did not say that"),
    "arrival-order": (0, "votes out of order"),
    "without-own-model": (1, "KeyError: 's6'"),
    "lower-median": (0, "coordinate_median of step 3 is another vector"),
    "no-finite-check": (6, "row 0 has a coordinate that is not finite"),
    "one-peer-believed": (0, "no correct server is at step 32"),
    "unbounded-window": (34, "vectors, not 54 at most"),
    "gather-off-by-one": (2, "a vote at step 4, where nobody gathers"),
    "momentum-reset": (6, "momentum of step 3 is not what was sent last"),
    "update-thrown-away": (0, "model 1 is not its own"),
    "wrong-learning-rate": (0, "a learning rate of 0 at step 0, not 0.5"),
    "gradient-elsewhere": (0, "no model of step 0 is where it takes its gradient"),
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
