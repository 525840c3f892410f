"""What Byzantine nodes may do: for drills, simulations and tests only.

No correct node imports this package. An attack turns what the liars have seen of the correct nodes
into what they say; who they are, when they speak and how they share what they see is the affair of
``byzsgd.simulation.adversary``.

An attack is a frozen dataclass whose fields are its numbers; ``ATTACKS`` names them all, and
``docs/attacks.md`` says what each is for::

    attack = make("alie", Role.WORKER, z=1.0)
    lie = attack.forge(view, receiver="s0")
"""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from types import MappingProxyType

from byzsgd.attacks.alie import Alie
from byzsgd.attacks.alie_adaptive import AlieAdaptive
from byzsgd.attacks.attack import Attack, View
from byzsgd.attacks.empire import Empire
from byzsgd.attacks.equivocate import Equivocate
from byzsgd.attacks.huge import Huge
from byzsgd.attacks.infinite import Infinite
from byzsgd.attacks.keep import Keep
from byzsgd.attacks.label_flip import LabelFlip
from byzsgd.attacks.median_edge import MedianEdge
from byzsgd.attacks.mimic import Mimic
from byzsgd.attacks.mute import Mute
from byzsgd.attacks.nan import NotANumber
from byzsgd.attacks.noise import Random
from byzsgd.attacks.optimal import Optimal
from byzsgd.attacks.push import Push
from byzsgd.attacks.replay import Replay
from byzsgd.attacks.scaled import Scaled
from byzsgd.attacks.sign_flip import SignFlip
from byzsgd.attacks.slow_drift import SlowDrift
from byzsgd.attacks.stale import Stale
from byzsgd.attacks.zero import Zero
from byzsgd.cluster import Role, nearest
from byzsgd.errors import ConfigError

ATTACKS: Mapping[str, type[Attack]] = MappingProxyType(
    {
        "alie": Alie,
        "alie-adaptive": AlieAdaptive,
        "empire": Empire,
        "equivocate": Equivocate,
        "huge": Huge,
        "inf": Infinite,
        "keep": Keep,
        "label-flip": LabelFlip,
        "median-edge": MedianEdge,
        "mimic": Mimic,
        "mute": Mute,
        "nan": NotANumber,
        "optimal": Optimal,
        "push": Push,
        "random": Random,
        "replay": Replay,
        "scaled": Scaled,
        "sign-flip": SignFlip,
        "slow-drift": SlowDrift,
        "stale": Stale,
        "zero": Zero,
    }
)
"""Every attack by its name."""


def names(role: Role) -> list[str]:
    """The names of the attacks that nodes of a role can play, sorted."""
    return sorted(name for name, attack in ATTACKS.items() if role in attack.roles)


def make(name: str, role: Role, /, **options: float) -> Attack:
    """The attack of that name.

    Args:
        name: A name of ``ATTACKS``.
        role: Who attacks: servers or workers.
        options: Its numbers; what is left out keeps its default.

    Raises:
        ConfigError: If there is no such attack for that role, or if it takes no such number.
    """
    attack = ATTACKS.get(name)
    if attack is None or role not in attack.roles:
        raise ConfigError(f"attack {name!r} of {role.value}s: {nearest(name, names(role))}")
    known = [field.name for field in fields(attack)]
    for option, number in options.items():
        if option not in known:
            takes = nearest(option, known) if known else "it takes no numbers"
            raise ConfigError(f"attack {name}: unknown option {option!r}; {takes}")
        if not isfinite(number):
            raise ConfigError(f"attack {name}: {option}: found {number}; must be finite")
    return attack(**options)


def numbers(attack: Attack) -> dict[str, float]:
    """All numbers that an attack goes by, defaults included: for logs and reports."""
    return {field.name: getattr(attack, field.name) for field in fields(attack)}


def described(attack: Attack | None) -> str:
    """An attack and all its numbers in words: ``alie z=1.5 ddof=0 sign=-1``."""
    if attack is None:
        return "none"
    name = next(name for name, kind in ATTACKS.items() if type(attack) is kind)
    return " ".join([name, *(f"{option}={number:g}" for option, number in numbers(attack).items())])


__all__ = ["ATTACKS", "Attack", "View", "described", "make", "names", "numbers"]
