"""The votes of one step: one an identity, the first q of them count."""

from itertools import permutations

import numpy as np
import pytest

from byzsgd.messages import Reason
from byzsgd.protocol.quorum import Quorum
from byzsgd.vectors import Vector


def v(*coordinates: float) -> Vector:
    return np.float32(coordinates)


def test_votes_of_several_identities_count() -> None:
    """Each identity adds one vote, whatever it says."""
    quorum = Quorum()

    assert [quorum.vote(who, v(1)) for who in ("w2", "w1", "w3")] == [None, None, None]
    assert len(quorum) == 3
    assert list(quorum) == ["w2", "w1", "w3"]
    assert "w1" in quorum
    assert "w4" not in quorum


def test_a_second_and_different_vote_is_equivocation() -> None:
    """Of an identity that says two different things the first one counts."""
    quorum = Quorum()
    quorum.vote("w1", v(1, 2))

    assert quorum.vote("w1", v(1, 3)) is Reason.EQUIVOCATION
    assert len(quorum) == 1
    assert quorum.first(1)[1][0].tolist() == [1, 2]


def test_the_same_vote_again_is_a_duplicate() -> None:
    """An equal vector, though it is another array, is no equivocation; it counts once."""
    quorum = Quorum()
    quorum.vote("w1", v(1, 2))

    assert quorum.vote("w1", v(1, 2)) is Reason.DUPLICATE
    assert len(quorum) == 1


def test_the_first_to_arrive_are_the_quorum() -> None:
    """Who comes after the q-th vote is not in it, however small its name."""
    quorum = Quorum()
    for number, who in enumerate(("w4", "w3", "w2", "w1")):
        quorum.vote(who, v(number))

    identities, vectors = quorum.first(3)

    assert identities == ("w2", "w3", "w4")
    assert [vector.item() for vector in vectors] == [2, 1, 0]


def test_the_own_vote_is_among_the_first() -> None:
    """A gather takes q_ps models, its own among them, however many others were faster."""
    quorum = Quorum()
    for number, who in enumerate(("s4", "s3", "s2", "s1")):
        quorum.vote(who, v(number))

    assert quorum.first(3, own="s1")[0] == ("s1", "s3", "s4")
    assert quorum.first(3, own="s4")[0] == ("s2", "s3", "s4")


def test_the_order_of_arrival_leaves_no_trace() -> None:
    """The same votes in any order come out in the order of the identities."""
    votes = {"w1": v(1), "w2": v(2), "w3": v(3)}
    for order in permutations(votes):
        quorum = Quorum()
        for who in order:
            quorum.vote(who, votes[who])

        assert quorum.first(3) == (("w1", "w2", "w3"), (votes["w1"], votes["w2"], votes["w3"]))


def test_a_vote_that_is_withdrawn_is_forgotten() -> None:
    """The identity may vote again, behind those who voted meanwhile."""
    quorum = Quorum()
    quorum.vote("w1", v(1))
    quorum.vote("w2", v(2))

    quorum.withdraw("w1")

    assert list(quorum) == ["w2"]
    assert quorum.vote("w1", v(9)) is None
    assert list(quorum) == ["w2", "w1"]


def test_more_votes_than_there_are_cannot_be_had() -> None:
    """Asking for a quorum that is not there is a bug of the caller."""
    quorum = Quorum()
    quorum.vote("w1", v(1))

    with pytest.raises(AssertionError):
        quorum.first(2)
