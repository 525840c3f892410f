"""What Byzantine nodes may do: for drills, simulations and tests only.

No correct node imports this package. An attack turns what the liars have seen of the correct nodes
into what they say; who they are, when they speak and how they share what they see is the affair of
``byzsgd.simulation.adversary``.

An attack is a frozen dataclass whose fields are its numbers; ``ATTACKS`` names them all::

    attack = make("alie", Role.WORKER, z=1.0)
    lie = attack.forge(view, receiver="s0")
"""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from byzsgd.attacks.alie import Alie, AlieAdaptive
from byzsgd.attacks.attack import Attack, View
from byzsgd.attacks.empire import Empire
from byzsgd.attacks.equivocate import Equivocate
from byzsgd.attacks.mute import Mute
from byzsgd.attacks.nan import NotANumber
from byzsgd.attacks.noise import Random
from byzsgd.attacks.sign_flip import SignFlip
from byzsgd.attacks.stale import Stale
from byzsgd.cluster import Role, nearest
from byzsgd.errors import ConfigError

ATTACKS: Mapping[str, type[Attack]] = MappingProxyType(
    {
        "alie": Alie,
        "alie-adaptive": AlieAdaptive,
        "empire": Empire,
        "equivocate": Equivocate,
        "mute": Mute,
        "nan": NotANumber,
        "random": Random,
        "sign-flip": SignFlip,
        "stale": Stale,
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
    for option in options:
        if option not in known:
            takes = nearest(option, known) if known else "it takes no numbers"
            raise ConfigError(f"attack {name}: unknown option {option!r}; {takes}")
    return attack(**options)


__all__ = ["ATTACKS", "Attack", "View", "make", "names"]
