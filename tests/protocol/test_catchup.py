"""How a server that fell behind comes back: by its peers' models, none of them believed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzsgd.messages import STEP_MAX
from byzsgd.protocol.catchup import CatchUp
from byzsgd.vectors import Vector


def v(value: float) -> Vector:
    return np.float32([value])


@pytest.fixture
def catch_up() -> CatchUp:
    """What s1 of five servers, one of them Byzantine, knows: q_ps - 1 = 3 models are needed."""
    return CatchUp(5, 1, needed=3, recent=5.0)


def test_nothing_is_known_at_first(catch_up: CatchUp) -> None:
    """Without a word from anybody there is no step to go on at."""
    assert catch_up.rumour() == catch_up.target(0) == catch_up.gathered() == -1
    assert catch_up.votes(0) == {}


def test_one_peer_is_not_believed(catch_up: CatchUp) -> None:
    """With f_ps = 1, one peer's word about a step may be a lie; of two, one is correct."""
    catch_up.stands("s2", STEP_MAX)
    assert catch_up.rumour() == -1

    catch_up.stands("s3", 9)
    assert catch_up.rumour() == 9


def test_an_old_vote_does_not_say_where_its_sender_is(catch_up: CatchUp) -> None:
    """Who answers a pull sends its last vote before its model, which may be lost."""
    for peer in ("s2", "s3", "s4"):
        catch_up.stands(peer, 19)
        catch_up.vote(peer, 12, v(0), now=0)
    assert catch_up.rumour() == 19
    assert catch_up.target(0) == catch_up.others(0) == -1

    for peer in ("s2", "s3", "s4"):
        catch_up.vote(peer, 24, v(0), now=0)
    assert catch_up.target(0) == catch_up.others(0) == 24


def test_no_model_is_adopted_before_enough_are_there(catch_up: CatchUp) -> None:
    """q_ps - 1 peers' models are needed, and steps without models are none."""
    for peer in ("s2", "s3", "s4", "s5"):
        catch_up.stands(peer, 9)
    catch_up.model("s2", 9, v(2), now=0)
    catch_up.model("s3", 9, v(3), now=0)
    assert catch_up.target(0) == -1

    catch_up.model("s4", 9, v(4), now=0)
    assert catch_up.target(0) == 9
    assert catch_up.votes(0) == {"s2": v(2), "s3": v(3), "s4": v(4)}


def test_a_liar_with_a_far_step_leads_nobody_there(catch_up: CatchUp) -> None:
    """The step to go on at is the (f_ps + 1)-th largest: some correct peer has reached it."""
    catch_up.model("s2", STEP_MAX, v(900), now=0)
    catch_up.model("s3", 4, v(3), now=0)
    catch_up.model("s4", 6, v(4), now=0)

    assert catch_up.target(0) == 6


def test_a_liar_with_an_old_step_holds_nobody_back(catch_up: CatchUp) -> None:
    """A correct peer's step counts although a liar pretends to be at an earlier one."""
    catch_up.model("s2", 0, v(900), now=0)
    catch_up.model("s3", 9, v(3), now=0)
    catch_up.model("s4", 9, v(4), now=0)

    assert catch_up.target(0) == 9


def test_the_last_model_of_a_peer_replaces_the_one_before(catch_up: CatchUp) -> None:
    """One vector a peer, so memory is bounded."""
    for step in range(100):
        catch_up.model("s2", step, v(step), now=0)

    assert catch_up.models == {"s2": (99, v(99))}


def test_a_model_also_says_where_its_peer_stands(catch_up: CatchUp) -> None:
    """And a later Hello says it anew, for a peer that restarted from an earlier checkpoint."""
    catch_up.model("s2", 5, v(2), now=0)
    catch_up.model("s3", 5, v(3), now=0)
    assert catch_up.rumour() == 5

    catch_up.stands("s2", 3)
    assert catch_up.rumour() == 3


def test_the_newest_models_are_adopted(catch_up: CatchUp) -> None:
    """Of more models than needed those of the latest steps; of equal ones the first by name."""
    for peer, step in {"s5": 9, "s4": 7, "s3": 8, "s2": 7}.items():
        catch_up.model(peer, step, v(step), now=0)

    assert list(catch_up.votes(0)) == ["s5", "s3", "s2"]


def test_only_recent_models_count(catch_up: CatchUp) -> None:
    """Those of the last 5 s, here: an old one beside a lie could be most of the median."""
    catch_up.model("s2", 1000, v(1000), now=0)
    catch_up.model("s3", 4001, v(0), now=6)
    catch_up.model("s4", 4000, v(4000), now=6)
    assert catch_up.target(5) == 4000
    assert catch_up.target(6) == catch_up.others(6) == -1
    assert catch_up.rumour() == 4000, "so that all are asked"

    catch_up.model("s2", 4000, v(4000), now=7)
    assert catch_up.target(7) == 4000
    assert catch_up.votes(7) == {"s3": v(0), "s2": v(4000), "s4": v(4000)}


@pytest.mark.parametrize("f_servers", [0, 1, 2, 3])
def test_without_liars_the_newest_step_counts(f_servers: int) -> None:
    """With f_ps = 0 the largest step is taken, with every liar more the next smaller one."""
    catch_up = CatchUp(5, f_servers, needed=4, recent=5.0)
    for peer, step in {"s2": 10, "s3": 20, "s4": 30, "s5": 40}.items():
        catch_up.model(peer, step, v(step), now=0)

    assert catch_up.target(0) == 40 - 10 * f_servers


def test_who_went_back_is_no_witness_of_where_it_was(catch_up: CatchUp) -> None:
    """Its last model is of a life that it has given up."""
    for peer in ("s2", "s3", "s4"):
        catch_up.model(peer, 9, v(0), now=0)
    catch_up.stands("s2", 5)
    assert catch_up.target(0) == 9

    catch_up.stands("s3", 5)
    assert catch_up.target(0) == 5


def test_who_doubts_follows_more() -> None:
    """Of 8 servers 2 lie, and one correct server more is not believed: the 4th largest step."""
    doubtful = CatchUp(8, 2, needed=4, recent=5.0)
    for peer, step in {"s2": 9, "s3": 8, "s4": 7, "s5": 6}.items():
        doubtful.model(peer, step, v(0), now=0)

    assert doubtful.target(0) == 7
    assert doubtful.target(0, doubts=True) == 6


def test_liars_do_not_hide_where_the_others_are() -> None:
    """Of 8 servers 2 lie, and say that they are at 9 as s2 is. The others stand at 5."""
    catch_up = CatchUp(8, 2, needed=5, recent=5.0)
    said = {"s2": 9, "s7": 9, "s8": 9, "s3": 5, "s4": 5, "s5": 5}
    for peer, step in said.items():
        catch_up.stands(peer, step)
        catch_up.model(peer, step, v(0), now=0)
    assert catch_up.gathered() == catch_up.others(0) == -1
    assert catch_up.beside(9, 0) == 3, "and so many may be: liars and f_ps - 1 more"

    catch_up.stands("s6", 5)
    assert catch_up.gathered() == 5
    catch_up.model("s6", 5, v(0), now=0)
    assert catch_up.others(0) == 5


def test_liars_alone_are_no_others() -> None:
    """An earlier step where f_ps peers are may be where nobody is."""
    catch_up = CatchUp(8, 2, needed=5, recent=5.0)
    for peer, step in {"s2": 9, "s3": 9, "s4": 9, "s5": 9, "s6": 5, "s7": 5, "s8": 5}.items():
        catch_up.model(peer, step, v(0), now=0)

    assert catch_up.others(0) == catch_up.gathered() == 9


@settings(max_examples=200)
@given(
    f_servers=st.integers(1, 2),
    correct=st.lists(st.integers(0, 20), min_size=7, max_size=7),
    lies=st.lists(st.integers(0, STEP_MAX), min_size=2, max_size=2),
    said_first=st.integers(0, 9),
)
def test_no_lie_leads_beyond_a_correct_peer(
    f_servers: int, correct: list[int], lies: list[int], said_first: int
) -> None:
    """Whatever f_ps liars say, the step to go on at is no later than some correct peer's."""
    peers = dict(enumerate(correct)) | {7 + n: lie for n, lie in enumerate(lies[:f_servers])}
    catch_up = CatchUp(11, f_servers, needed=2 * f_servers + 1, recent=5.0)
    order = sorted(peers, key=lambda peer: (peer - said_first) % 10)
    for peer in order:
        catch_up.stands(f"s{peer}", peers[peer])
        assert catch_up.rumour() <= max(correct)
        catch_up.model(f"s{peer}", peers[peer], v(0), now=0)
        assert catch_up.target(0) <= max(correct)

    assert catch_up.target(0) >= min(correct)
