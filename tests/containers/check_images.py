"""A cluster of containers that trains under attack, as compose.yaml and a drill ask for it.

Not part of the suite: `make test-containers` builds the images and runs this beside a podman that
is its own. Servers are of the image without torch. Tests share the cluster, in this order.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
NODE, SERVER = "localhost/byzsgd:test", "localhost/byzsgd-server:test"
SERVERS, WORKERS, LIARS = ("s0", "s1", "s2", "s3"), ("w0", "w1", "w2"), ("s4", "w3")

PATIENCE_SECONDS = 240.0
"""Far above what anything here takes: only a wait that would be for ever runs into it."""

STOP_SECONDS = 60
"""What engines here give a container to stop: far above what a stop takes."""


def run(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command that has ended; what it said, if it fails and must not."""
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert not check or done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done


def podman(*words: str, check: bool = True) -> str:
    """What podman answers."""
    return run("podman", *words, check=check).stdout.strip()


def name(node: str) -> str:
    """The container of a service."""
    return f"byzsgd_{node}_1"


def inspect(node: str, what: str) -> str:
    """A figure of a container."""
    return podman("container", "inspect", "--format", f"{{{{{what}}}}}", name(node))


GET = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100/status').read().decode())"


def status(node: str) -> dict[str, Any]:
    """What a node says of itself; nothing while it does not answer."""
    done = run("podman", "exec", name(node), "python", "-c", GET, check=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def wait_for(condition: Callable[[], Any]) -> Any:
    """What a condition returns once that is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it was not to be"
        time.sleep(0.2)
    return found


def wait_for_step(step: int, *nodes: str) -> None:
    """Wait until each of some nodes has reached a step."""
    for node in nodes:
        wait_for(lambda node=node: status(node).get("step", -1) >= step)


Compose = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Runs podman-compose on the files of deploy; all it made is gone afterwards."""
    more = tmp_path_factory.mktemp("compose") / "more.yaml"
    # So that s1 is found unhealthy by one look, and at once.
    impatient = {"healthcheck": {"start_period": "0s", "retries": 1}}
    more.write_text(yaml.safe_dump({"services": {"s1": impatient}}))
    files = [DEPLOY / "compose.yaml", DEPLOY / "compose.drill.yaml", more]
    command = [Path(sys.executable).with_name("podman-compose"), "--in-pod=false"]
    command += [word for file in files for word in ("--file", file)]
    os.environ |= {
        "BYZSGD_IMAGE": NODE,
        "BYZSGD_SERVER_IMAGE": SERVER,
        "BYZSGD_INIT": "--task digits --steps 0",
    }

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return run(*command, *words)

    try:
        yield ask
    finally:
        ask("--profile", "operator", "down", "--volumes", "--timeout", "5")
    assert podman("ps", "--all", "--quiet") == ""
    assert podman("volume", "ls", "--quiet") == ""


@pytest.fixture(scope="session")
def cluster(compose: Compose) -> Compose:
    """The cluster, up."""
    began = time.monotonic()
    compose("up", "--detach")
    print(f"up in {time.monotonic() - began:.1f} s")
    return compose


# The images


def size(image: str) -> int:
    """Bytes of an image, its base among them."""
    return int(podman("image", "inspect", "--format", "{{.Size}}", image))


def test_images_are_small_beside_torch() -> None:
    """What the project and its libraries add to the base and, for workers, to torch."""
    base = min(
        size(image)
        for image in podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        if "python:" in image
    )
    torch = int(
        podman(
            *("run", "--rm", "--entrypoint", "sh", NODE),
            *("-c", "du -sb /opt/byzsgd/lib/python3.11/site-packages/torch | cut -f1"),
        )
    )
    figures = {"base": base, "torch": torch, NODE: size(NODE), SERVER: size(SERVER)}
    print({what: f"{figure / 1e6:.0f} MB" for what, figure in figures.items()})

    assert size(SERVER) - base < 350e6
    assert size(NODE) - base - torch < 500e6


@pytest.mark.parametrize("image", [NODE, SERVER])
def test_an_image_says_what_it_is(image: str) -> None:
    """By its labels, and byzsgd by its version and its help."""
    [found] = json.loads(podman("image", "inspect", image))
    version = found["Labels"]["org.opencontainers.image.version"]

    assert found["Config"]["User"] == "10001:10001"
    assert found["Healthcheck"]["Test"] == ["CMD", "python", "-m", "byzsgd_daemons.health"]
    assert podman("run", "--rm", image, "--version") == f"byzsgd {version}"
    assert "usage: byzsgd" in podman("run", "--rm", image)


@pytest.mark.parametrize("image", [NODE, SERVER])
def test_nothing_that_builds_is_left(image: str) -> None:
    """No compiler and no pip; and two folders alone belong to the daemon's user."""
    script = """
        for program in cc gcc make git pip pip3; do command -v $program && exit 1; done
        for python in /usr/local/bin/python3 /opt/byzsgd/bin/python3; do
            $python -m pip --version 2>/dev/null && exit 1
        done
        find / -xdev -user byzsgd
    """
    found = podman("run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", script)

    assert set(found.split()) == {"/state", "/cluster"}


def test_an_image_for_servers_has_no_torch() -> None:
    """And says so to who wants more of it."""
    words = ("run", "--rm", "--entrypoint", "python", SERVER, "-c", "import torch")
    done = run("podman", *words, check=False)

    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr


# The cluster


def test_containers_train_under_attack(cluster: Compose) -> None:
    """A server equivocates, a worker sends its gradients the other way round: digits are learnt."""
    began = time.monotonic()
    wait_for_step(150, *SERVERS, *WORKERS)
    print(f"150 steps in {time.monotonic() - began:.1f} s")
    said = cluster(
        "--profile", "operator", "run", "--rm", "-T", "operator", "fetch", "model.safetensors"
    ).stdout
    [accuracy] = re.findall(r"accuracy on .*: (\S+)", said)

    print(f"accuracy {accuracy}")
    assert float(accuracy) > 0.9


@pytest.mark.parametrize("node", ["s0", "w0"])
def test_a_container_can_do_next_to_nothing(node: str, cluster: Compose) -> None:
    """A fixed user without capabilities who cannot get any; a root that nobody writes to."""
    told = podman("exec", name(node), "cat", "/proc/1/status")
    facts = dict(re.findall(r"^(\w+):\t(.*)$", told, re.MULTILINE))

    assert facts["Uid"] == "10001\t10001\t10001\t10001"
    assert {facts[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    for path in ("/opt/byzsgd/x", "/x", "/state/x"):
        done = run("podman", "exec", "--user", "0", name(node), "touch", path, check=False)
        assert "Read-only file system" in done.stderr
    _, program, *_ = podman("exec", name(node), "cat", "/proc/1/cmdline").split("\0")
    assert program == "/opt/byzsgd/bin/byzsgd", "no shell, and no init"


@pytest.mark.parametrize("node", ["s0", "w0"])
def test_a_node_sees_its_own_key_alone(node: str, cluster: Compose) -> None:
    """Which only its user reads."""
    words = ("exec", name(node), "stat", "--format", "%n %a %u")

    assert podman(*words, f"keys/{node}.key") == f"keys/{node}.key 600 10001"
    assert podman("exec", name(node), "ls", "keys") == f"{node}.key"


def test_an_engine_sees_whether_a_node_is_well(cluster: Compose) -> None:
    """Healthy; unhealthy while the process stands still; healthy again."""

    def look() -> tuple[bool, str]:
        done = run("podman", "healthcheck", "run", name("s1"), check=False)
        return done.returncode == 0, inspect("s1", ".State.Health.Status")

    wait_for(lambda: look() == (True, "healthy"))
    podman("kill", "--signal", "STOP", name("s1"))
    try:
        assert look() == (False, "unhealthy")
    finally:
        podman("kill", "--signal", "CONT", name("s1"))
    wait_for(lambda: look() == (True, "healthy"))


def test_a_server_that_is_stopped_saves_its_model_and_a_new_container_goes_on(
    cluster: Compose,
) -> None:
    """SIGTERM ends it in good order; its volume is all that the next one needs."""
    wait_for_step(1, "s2")
    began = time.monotonic()
    podman("stop", "--time", str(STOP_SECONDS), name("s2"))
    print(f"stopped in {time.monotonic() - began:.1f} s")
    log = run("podman", "logs", name("s2")).stderr
    [(stopped, saved)] = re.findall(r"has stopped at step (\d+), on disk is step (\d+)", log)

    assert inspect("s2", ".State.ExitCode") == "0"
    assert time.monotonic() - began < STOP_SECONDS
    podman("rm", name("s2"))
    cluster("up", "--detach", "s2")
    wait_for_step(int(stopped) + 1, "s2")
    log = run("podman", "logs", name("s2")).stderr
    [resumed] = re.findall(r"resumes from the checkpoint of step (\d+)", log)
    assert resumed == saved


@pytest.mark.parametrize("node", ["w0", "s4"])
def test_any_other_container_stops_in_good_order(node: str, cluster: Compose) -> None:
    """A worker and a liar, too."""
    podman("stop", "--time", str(STOP_SECONDS), name(node))

    assert inspect(node, ".State.ExitCode") == "0"
