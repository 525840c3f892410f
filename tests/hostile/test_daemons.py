"""Hostile input against running daemons: training goes on, memory is bounded, refusals are counted.

One cluster of real daemons takes all attacks, one after the other: what one leaves behind must not
help the next. The last worker and the last server are the attacker's, so every correct node is
needed for every step.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tests.hostile.attacks import ATTACKS
from tests.hostile.standing import Standing, standing
from tests.rig import LOOK_SECONDS, PATIENCE_SECONDS

from byzsgd import memory
from byzsgd.cluster import Role

pytestmark = pytest.mark.processes

MIB = 1 << 20

ALLOWED_BYTES = 64 * MIB
"""What a daemon may take above the formula; and what any attack may add where vectors are small."""

STEPS = 5
"""How far everybody must come during an attack and after it."""

D_SMALL, D_LARGE = 100, 250_000

SECONDS = 1.0
"""How long an attack takes at least; longer until it has done its work, on a busy machine."""

W, S = "w3", "s4"

EXPECTED: dict[str, set[tuple[str, str]]] = {
    "strangers": {("stranger", "stranger")},
    "churn": {("stranger", "stranger")},
    "silence": {("stranger", "stranger")},
    "unfinished": {("stranger", "flood")},
    "unknown-keys": {("stranger", "stranger")},
    "malformed": {(W, "malformed"), (W, "version"), (W, "wrong-length")},
    "not-finite": {(W, "non-finite")},
    "equivocation": {(W, "equivocation")},
    "wrong-role": {(W, "wrong-role")},
    "wrong-server-key": {("stranger", "stranger")},
    "logins": {("logins", "throttled")},
    "endless": {("endless", "flood")},
    "endless-empty": {("endless-empty", "flood")},
    "storm": {(W, "malformed")},
    "lying-server": {(S, "malformed"), (S, "non-finite"), (S, "other-cluster")},
    "bound-liar": {(S, "malformed"), (S, "non-finite")},
    "bound-endless": {(S, "flood")},
}
"""What must be counted, at the least; elsewhere nothing is refused that is not counted too."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing(tmp_path_factory.mktemp("hostile") / "cluster", D_SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing(tmp_path_factory.mktemp("hostile") / "cluster", D_LARGE) as made:
        yield made


def attack(cluster: Standing, name: str) -> None:
    """Everybody goes on while an attack runs, and after it; what it does is counted."""
    expected, before = EXPECTED.get(name, set()), cluster.refused()
    began = time.monotonic()
    attacker = cluster.attack(name, seconds=PATIENCE_SECONDS)
    try:
        cluster.wait_for_steps(STEPS)
        while not expected <= set(counted := cluster.refused() - before):
            assert time.monotonic() < began + PATIENCE_SECONDS, counted
            time.sleep(LOOK_SECONDS)
        time.sleep(max(began + SECONDS - time.monotonic(), 0.0))
        assert attacker.poll() is None, "it ended too early"
    finally:
        attacker.kill()
        attacker.communicate()
    cluster.wait_for_steps(STEPS)
    assert cluster.ended() == []


def bound(cluster: Standing, identity: str) -> int:
    """The formula's, without torch, which no daemon here imports."""
    if cluster.cluster.role(identity) is Role.SERVER:
        return memory.server_bytes(cluster.cluster, cluster.d)
    return memory.worker_bytes(cluster.cluster, cluster.d, base=memory.SERVER_BASE_BYTES)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_changes_nothing_that_matters(small: Standing, name: str) -> None:
    """Everybody goes on, takes little memory, and counts what was refused, by peer and reason."""
    small.forget_peaks()
    before = {identity: small.memory_bytes(identity) for identity in small.correct}

    attack(small, name)

    for identity in small.correct:
        peak = small.memory_bytes(identity, "VmHWM")
        assert peak <= before[identity] + ALLOWED_BYTES, (identity, peak // MIB)
        assert peak <= bound(small, identity) + ALLOWED_BYTES, (identity, peak // MIB)


@pytest.mark.parametrize(
    "name", ["far-ahead", "never-reads", "endless", "endless-empty", "bound-liar"]
)
def test_memory_keeps_to_the_formula_where_vectors_are_large(large: Standing, name: str) -> None:
    """Queues and windows full of vectors, and no end of frames: at most 64 MB above it."""
    large.forget_peaks()

    attack(large, name)

    for identity in large.correct:
        peak = large.memory_bytes(identity, "VmHWM")
        assert peak <= bound(large, identity) + ALLOWED_BYTES, (identity, peak // MIB)


def test_log_lines_are_limited(small: Standing) -> None:
    """However often something is refused: one line a second, peer and reason, with how many more.

    Runs after the attacks, on their logs; on its own it makes one.
    """
    for _ in range(5):  # The second line of a kind comes a second after the first.
        attack(small, "wrong-role")
        if len(_told(small)) > 1:
            break

    for identity in small.correct:
        times = defaultdict(list)
        for line in small.log_lines(identity):
            if "reason" in line:
                at = datetime.fromisoformat(line["time"]).timestamp()
                times[line["peer"], line["reason"]].append(at)
        for key, each in times.items():
            # A clock of the day, which may be set, against one that only goes on: one to spare.
            assert len(each) <= each[-1] - each[0] + 2, (identity, key, each)
    assert any("more like it" in message for message in _told(small)), _told(small)


def _told(cluster: Standing) -> list[str]:
    lines = cluster.log_lines("s0")
    return [line["message"] for line in lines if line.get("reason") == "wrong-role"]


def test_what_a_log_quotes_of_a_peer_is_short_and_on_one_line(small: Standing) -> None:
    """Whatever its messages hold. Runs after the attacks; on its own it makes one."""
    if not any("reason" in line for line in small.log_lines("s0")):
        attack(small, "malformed")

    for identity in small.correct:
        text = Path(small.log(identity)).read_text()
        assert max(map(len, text.splitlines()), default=0) < 500
        assert "\x1b" not in text
