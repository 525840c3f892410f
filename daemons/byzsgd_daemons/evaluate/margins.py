"""How many points of accuracy an attack may cost, of our calibration, and what came of it.

From simulations of five servers and seven workers, two of them liars, with the settings that suit
the task. A gap below one point is noise; an attack beyond its margin is a finding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isnan

from byzsgd_daemons.evaluate.plan import ADAPTIVE

OPTIMAL = "optimal"
"""The attack of workers that costs most where servers lie too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Margins:
    """Points below vanilla's accuracy that are allowed on a task."""

    nobody: float
    """Nobody lies."""
    published: float
    """A published attack of workers alone."""
    adaptive: float
    """An attack of workers alone that searches for its strongest lie."""
    server: float
    """An attack of servers alone, also on the worst correct server."""
    both: float
    """Workers and servers lie."""
    both_optimal: float
    """The same with the optimal attack."""


MARGINS: Mapping[str, Margins] = {
    "digits": Margins(
        nobody=1.0, published=1.5, adaptive=2.5, server=1.0, both=1.5, both_optimal=3.5
    ),
    # Of 5,000 images, as the task has them; calibrated with a batch of 32, which is the harder.
    "mnist": Margins(
        nobody=1.5, published=2.5, adaptive=6.0, server=1.5, both=2.5, both_optimal=8.0
    ),
}
"""Of each task that was calibrated."""


class Verdict(StrEnum):
    """What a margin says of a gap."""

    WITHIN = "within"
    BEYOND = "BEYOND"
    UNKNOWN = "-"
    """No margin, or no result."""


def margin(task: str, attack: str, server_attack: str) -> float | None:
    """Points that a pair of attacks may cost on a task; None where nothing was calibrated.

    Args:
        task: What is learned.
        attack: What lying workers do, perhaps with its numbers; empty if none lies.
        server_attack: What lying servers do; empty if none lies.
    """
    found = MARGINS.get(task)
    if found is None:
        return None
    name = attack.partition(" ")[0]
    if attack and server_attack:
        return found.both_optimal if name == OPTIMAL else found.both
    if server_attack:
        return found.server
    if not attack:
        return found.nobody
    return found.adaptive if name in ADAPTIVE else found.published


def verdict(gap: float, allowed: float | None) -> Verdict:
    """Whether a gap in points is within what is allowed."""
    if allowed is None or isnan(gap):
        return Verdict.UNKNOWN
    # Percentages of a few hundred images: what differs in the last digit of a float does not.
    return Verdict.WITHIN if gap <= allowed + 1e-6 else Verdict.BEYOND
