"""Real daemons under every pair of attacks, against a vanilla run that nobody attacks.

    python benchmarks/margins.py --task digits
    python benchmarks/margins.py --task mnist --attack sign-flip --attack nan

Prints the mean accuracy of the last five evaluations, and the gap to vanilla in points: what the
liars cost. Five servers of which one lies, seven workers of which two lie, the task's own settings.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from byzsgd import attacks
from byzsgd.cluster import Role
from byzsgd_daemons import init
from byzsgd_daemons.local import Drill, Training, free_addresses, train

LAST = 5
"""Evaluations whose mean counts."""

ADAPTIVE = frozenset({"alie-adaptive"})
"""Attacks that know the rule that they attack."""

MARGINS = {"digits": (1.5, 2.5), "mnist": (2.5, 6.0)}
"""Points that an attack may cost: a published one, and an adaptive one."""


class Silent:
    """A view that shows nothing."""

    def refresh(self, training: Training) -> None:
        """Nothing."""

    def evaluated(self, training: Training) -> None:
        """Nothing."""


def run(plan: init.Plan, drill: Drill) -> Training:
    """A training from beginning to end."""
    with tempfile.TemporaryDirectory(prefix="byzsgd-") as scratch:
        file = init.create(Path(scratch), plan, free_addresses(plan))
        logs = Path(scratch) / "logs"
        return asyncio.run(train(file, drill, Silent(), logs=logs, stall_seconds=20))


def accuracy(training: Training) -> tuple[float, float]:
    """Mean accuracy of the last evaluations in percent: of the median, and of the worst server."""
    last = training.points[-LAST:]
    mean = sum(point.accuracy for point in last) / len(last)
    worst = sum(point.accuracy_worst for point in last) / len(last)
    return 100 * mean, 100 * worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="digits")
    parser.add_argument("--attack", action="append", help="default: every one of workers")
    parser.add_argument("--server-attack", action="append", help="default: every one of servers")
    words = parser.parse_args()
    plan = init.Plan(task=words.task)
    trusting = init.Plan(
        task=words.task, servers=1, f_servers=0, f_workers=0, rule="average", gather_period=1
    )
    vanilla, _ = accuracy(run(trusting, Drill()))
    print(f"{words.task}: vanilla without attack {vanilla:.1f} %", flush=True)
    calm, worst = accuracy(run(plan, Drill()))
    print(f"{'nobody lies':<32} {calm:5.1f} %  worst {worst:5.1f} %  gap {vanilla - calm:+.1f}")
    published, adaptive = MARGINS.get(words.task, (float("inf"), float("inf")))
    for attack in words.attack or attacks.names(Role.WORKER):
        for server_attack in words.server_attack or attacks.names(Role.SERVER):
            training = run(plan, Drill(attack=attack, server_attack=server_attack))
            mean, worst = accuracy(training)
            margin = adaptive if attack in ADAPTIVE else published
            verdict = "" if vanilla - mean <= margin else f"  BEYOND {margin}"
            print(
                f"{attack:<14} + {server_attack:<15} {mean:5.1f} %  worst {worst:5.1f} %  "
                f"gap {vanilla - mean:+.1f}  drift {max(p.drift for p in training.points):.2g}  "
                f"{training.steps_per_second():.1f} steps/s{verdict}{training.stalled}",
                flush=True,
            )


if __name__ == "__main__":
    main()
