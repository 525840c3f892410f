"""What every attack promises, and how one is made by its name."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from byzsgd.attacks import ATTACKS, Attack, View, described, make, names, numbers
from byzsgd.cluster import Role
from byzsgd.errors import ConfigError

LARGEST = np.finfo(np.float32).max


def all_attacks() -> list[tuple[str, Role]]:
    return [(name, role) for role in (Role.WORKER, Role.SERVER) for name in names(role)]


@pytest.mark.parametrize(("name", "role"), all_attacks())
def test_a_lie_is_a_new_vector(name: str, role: Role, view: Callable[..., View]) -> None:
    """A lie is ``(d,)`` float32, newly allocated, or silence; what was seen stays as it is."""
    seen = view(role=role)
    assert seen.flipped is not None
    known = [*seen.vectors, *seen.first, seen.flipped()]
    before = [vector.copy() for vector in known]
    lie = make(name, role).forge(seen, "s1")

    assert (lie is None) == (name == "mute")
    if lie is not None:
        assert lie.shape == (40,)
        assert lie.dtype == np.float32
        assert lie.flags.c_contiguous
        assert not any(np.shares_memory(lie, vector) for vector in known)
    for vector, old in zip(known, before, strict=True):
        assert vector.tobytes() == old.tobytes()


@pytest.mark.parametrize(("name", "role"), all_attacks())
def test_a_lie_depends_on_the_view_alone(name: str, role: Role, view: Callable[..., View]) -> None:
    """Forged twice of one view, or of an equal one, a lie has the same bits."""
    seen = view(role=role)

    def bits(attack: Attack, view: View) -> bytes | None:
        lie = attack.forge(view, "s2")
        return None if lie is None else lie.tobytes()

    attack = make(name, role)

    assert bits(attack, seen) == bits(attack, seen) == bits(make(name, role), view(role=role))


@pytest.mark.parametrize(("name", "role"), all_attacks())
def test_lies_about_one_vector(name: str, role: Role, view: Callable[..., View]) -> None:
    """One correct vector is enough to forge a lie from."""
    lie = make(name, role).forge(view(role=role, correct=1), "s1")

    assert lie is None or lie.shape == (40,)


@pytest.mark.parametrize(("name", "role"), all_attacks())
@pytest.mark.parametrize("value", [0, LARGEST])
def test_lies_about_vectors_at_the_limits(
    name: str, role: Role, value: float, view: Callable[..., View]
) -> None:
    """No attack fails on vectors of zeros or of the largest numbers; its lie may be infinite."""
    seen = view(role=role)
    for vector in seen.vectors:
        vector[:] = value
    lie = make(name, role).forge(seen, "s1")

    assert lie is None or lie.dtype == np.float32


@pytest.mark.parametrize(("name", "role"), all_attacks())
def test_who_is_told_the_same(name: str, role: Role, view: Callable[..., View]) -> None:
    """Only an attack that says so tells receivers different things."""
    seen = view(role=role)
    attack = make(name, role)
    lies = {None if lie is None else lie.tobytes() for lie in _lies(attack, seen)}

    assert (len(lies) > 1) == attack.per_receiver


def _lies(attack: Attack, seen: View) -> list[np.ndarray | None]:
    return [attack.forge(seen, receiver) for receiver in seen.receivers]


def test_names_of_a_role() -> None:
    """Workers and servers have their own lists of attacks, and together they have all."""
    assert "alie" in names(Role.WORKER)
    assert "alie" not in names(Role.SERVER)
    assert "keep" in names(Role.SERVER)
    assert "keep" not in names(Role.WORKER)
    assert "equivocate" in {*names(Role.SERVER)} & {*names(Role.WORKER)}
    assert {*names(Role.WORKER), *names(Role.SERVER)} == set(ATTACKS)


@pytest.mark.parametrize(
    ("name", "role", "options", "sentence"),
    [
        ("alie-adaptiv", Role.WORKER, {}, "did you mean alie-adaptive?"),
        ("signflip", Role.SERVER, {}, "did you mean sign-flip?"),
        ("bribe", Role.SERVER, {}, "known: equivocate, keep, median-edge"),
        ("alie", Role.SERVER, {}, "attack 'alie' of servers: did you mean stale?"),
        ("push", Role.WORKER, {}, "attack 'push' of workers: known: alie"),
        ("alie", Role.OPERATOR, {}, "attack 'alie' of operators"),
        ("random", Role.WORKER, {"scales": 2.0}, "unknown option 'scales'; did you mean scale?"),
        ("alie", Role.WORKER, {"sigma": 2.0}, "unknown option 'sigma'; did you mean sign?"),
        ("mute", Role.WORKER, {"z": 2.0}, "unknown option 'z'; it takes no numbers"),
        ("alie", Role.WORKER, {"z": float("nan")}, "attack alie: z: found nan; must be finite"),
        ("huge", Role.WORKER, {"value": float("inf")}, "value: found inf; must be finite"),
    ],
)
def test_unknown_words(name: str, role: Role, options: dict[str, float], sentence: str) -> None:
    """An unknown attack, role or option is refused with the nearest known word, as is NaN."""
    with pytest.raises(ConfigError) as refused:
        make(name, role, **options)

    assert sentence in str(refused.value)


def test_numbers_of_an_attack() -> None:
    """An attack takes the numbers that it is given and keeps its default for the rest."""
    assert make("alie", Role.WORKER, z=1.0) == ATTACKS["alie"](z=1.0)
    assert make("alie", Role.WORKER) == ATTACKS["alie"](z=1.5, ddof=0, sign=-1)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attack_records(name: str) -> None:
    """Every number of an attack is a finite number with a default, recorded even if left out."""
    role = next(iter(sorted(ATTACKS[name].roles)))
    attack = make(name, role)
    recorded = numbers(attack)

    assert list(recorded) == [field.name for field in fields(attack)]
    assert all(np.isfinite(number) for number in recorded.values())
    assert make(name, role, **recorded) == attack
    assert described(attack).split() == [name, *(f"{k}={v:g}" for k, v in recorded.items())]


def test_nobody_lies() -> None:
    """Silence has a description too."""
    assert described(None) == "none"


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_change(name: str) -> None:
    """An attack is frozen and has no room for anything but its numbers."""
    attack = make(name, next(iter(sorted(ATTACKS[name].roles))))

    assert not hasattr(attack, "__dict__")
    for field in fields(attack):
        with pytest.raises(FrozenInstanceError):
            setattr(attack, field.name, 0.0)


@pytest.mark.parametrize(
    "name", [n for n, attack in ATTACKS.items() if not attack.needs_sight and n != "label-flip"]
)
def test_who_needs_no_sight(name: str, view: Callable[..., View]) -> None:
    """Who need not know gradients takes any one vector for what was seen, such as a model."""
    lie = make(name, Role.WORKER).forge(view(correct=1), "s1")

    assert lie is None or lie.shape == (40,)
