"""docs/attacks.md says what there is, and nothing else."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from byzsgd.attacks import ATTACKS
from byzsgd.cluster import Role
from byzsgd.simulation import Timing

DOCUMENT = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text()
ROWS = {
    row[0]: row[1:]
    for row in re.findall(r"^\| `([a-z-]+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$", DOCUMENT, re.M)
}
"""Whose it is, its numbers, the lie, the paper."""

TITLE = re.compile(r'"([^"]+)"')

every_attack = pytest.mark.parametrize("name", ATTACKS)


def test_the_table_is_the_table() -> None:
    """It has a row for each attack, in order."""
    assert list(ROWS) == list(ATTACKS)


@every_attack
def test_roles_and_numbers(name: str) -> None:
    """A row names the roles that can play the attack, and every number with its default."""
    attack = ATTACKS[name]
    roles = ", ".join(f"{r}s" for r in (Role.WORKER, Role.SERVER) if r in attack.roles)
    numbers = ", ".join(f"`{field.name}={field.default:g}`" for field in fields(attack))

    assert ROWS[name][:2] == (roles, numbers or "-")
    assert ROWS[name][2]


@every_attack
def test_papers(name: str) -> None:
    """A row names the paper that the attack's docstring names, or says that it is ours."""
    source = " ".join((inspect.getdoc(ATTACKS[name]) or "").partition("Source: ")[2].split())
    cell = ROWS[name][3]

    assert source
    assert TITLE.findall(cell) == TITLE.findall(source)
    assert cell.startswith("ours") == source.startswith("ours")
    assert source.removeprefix("ours, after ").startswith(
        cell.removeprefix("ours, after ").partition(" et al.")[0]
    )


def test_timings() -> None:
    """Each timing has a row of its own."""
    assert re.findall(r"^\| `([a-z]+)` \| [^|]+ \|$", DOCUMENT, re.M) == [*Timing]


def test_who_needs_no_sight() -> None:
    """It names those who need not see gradients, and those who tell receivers different things."""
    blind = [f"`{name}`" for name, attack in ATTACKS.items() if not attack.needs_sight]
    several = [f"`{name}`" for name, attack in ATTACKS.items() if attack.per_receiver]

    assert f"all but {', '.join(blind[:-1])} and {blind[-1]}" in DOCUMENT
    assert f"other than {', '.join(several[:-1])} and {several[-1]}" in DOCUMENT
