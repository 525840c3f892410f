"""The Dockerfile and the compose files say what the code, the locks and each other say.

That they work is seen by `make test-containers`, which builds the images and trains from them.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from byzsgd import __version__
from byzsgd.cluster import Cluster
from byzsgd_daemons import cli, config, health

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
DRILL = yaml.safe_load((ROOT / "deploy" / "compose.drill.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PINNED = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)

every_service = pytest.mark.parametrize("name", SERVICES)


def instructions(text: str = DOCKERFILE) -> Iterator[tuple[str, str]]:
    """Each instruction of a Dockerfile and its words, on one line."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, lines.splitlines()):
        word, _, rest = line.partition(" ")
        yield word, " ".join(rest.split())


def one(word: str, text: str = DOCKERFILE) -> str:
    """The words of an instruction that is there once."""
    [found] = [words for each, words in instructions(text) if each == word]
    return found


def stage(name: str) -> str:
    """The instructions of one stage."""
    [found] = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    return str(found)


def listed(text: str) -> list[set[str]]:
    """The packages that a stage picks from the lock, in the lists that it makes."""
    return [set(found.split("|")) for found in re.findall(r"/\^\(([a-z0-9|-]+)\)==/ p", text)]


def requirements(name: str) -> Iterator[str]:
    """What an installed package asks for on this machine, without its extras."""
    for each in map(Requirement, metadata.requires(name) or []):
        if not each.marker or each.marker.evaluate({"extra": ""}):
            yield each.name


def needed(names: Iterable[str]) -> set[str]:
    """Packages that some packages need, and these themselves, all but torch."""
    found: set[str] = set()
    left = [*names]
    while left:
        name = canonicalize_name(left.pop())
        if name != "torch" and name not in found:
            found.add(name)
            left += requirements(name)
    return found


def of_project(*extras: str) -> set[str]:
    """What byzsgd needs with some extras, all but torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return needed(Requirement(each).name for each in wanted)


# The Dockerfile


def test_hadolint_finds_nothing() -> None:
    """No rule is ignored."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold=style", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "hadolint ignore" not in DOCKERFILE


def test_the_base_is_pinned_to_its_bytes() -> None:
    """Version and digest; every stage begins there."""
    pinned = r"PYTHON=docker\.io/library/python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}"
    stages = [words.split() for word, words in instructions() if word == "FROM"]
    names = {name for _, _, name in stages}

    assert [w for i, w in instructions() if i == "ARG" and re.fullmatch(pinned, w)]
    assert {source for source, _, _ in stages} - names == {"${PYTHON}"}
    assert stages[-1][2] == "node", "what is built where no target is named"


def test_an_image_for_servers_has_what_they_need_and_no_more() -> None:
    """With the compiler that is the extra fast, and without torch and what only torch needs."""
    assert listed(stage("libraries")) == [of_project("fast")]


def test_the_other_image_has_torch_and_data_besides() -> None:
    """Tools of development stay out, and whatever packages of data would need to be imported."""
    torch, data = listed(stage("learning"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    demo = {Requirement(each).name for each in extras["demo"]}

    assert torch == needed(requirements("torch")) - of_project("fast")
    assert data == demo - {"matplotlib"}, "a demo draws nothing without it"


def test_what_is_picked_is_locked() -> None:
    """Under the name that is there."""
    lock = {*PINNED.findall((ROOT / "requirements.lock").read_text())}
    picked = listed(DOCKERFILE)

    assert len(picked) == 4
    assert set().union(*picked) <= lock


def test_what_builds_the_project_is_locked() -> None:
    """The build backend is taken from the lock with all it needs, and nothing else is fetched."""
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    packages = needed(Requirement(each).name for each in backend)

    assert listed(stage("project")) == [packages]
    assert "--no-build-isolation" in stage("project")
    for name in ("libraries", "learning", "project"):
        installs = re.findall(r"pip.* install .*", stage(name))
        assert installs
        assert all(
            re.search(r"--require-hashes|-r torch\.lock|--no-deps --root /project", i)
            for i in installs
        )


def test_no_pip_is_left_in_the_end() -> None:
    """The last stages copy what others built, and take away what the base has."""
    for name in ("server", "node"):
        words = [word for word, _ in instructions(stage(name))]
        assert set(words) == {"COPY"}
    assert "pip uninstall --yes pip setuptools wheel" in stage("base")


def test_labels_are_the_projects() -> None:
    """Version, licence and description."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', one("LABEL")))

    assert labels["version"] == project["version"] == __version__
    assert labels["licenses"] == project["license"]
    assert labels["description"] == project["description"]


def test_the_image_starts_a_daemon_that_hears_signals() -> None:
    """In the exec form, so that process 1 is byzsgd and no shell; as a user of a fixed number."""
    assert json.loads(one("ENTRYPOINT")) == ["byzsgd"]
    assert isinstance(json.loads(one("CMD")), list)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", one("USER"))
    user, group = one("USER").split(":")
    assert f"useradd --uid {user} --gid {group} " in one("RUN", stage("base"))
    assert f"--owner={user} --group={group} /cluster /state" in one("RUN", stage("base"))


def health_check() -> dict[str, Any]:
    """The image's, in the words of a compose file."""
    options, _, command = one("HEALTHCHECK").partition(" CMD ")
    found: dict[str, Any] = dict(re.findall(r"--([a-z-]+)=(\S+)", options))
    return {"test": ["CMD", *json.loads(command)], **found}


def test_the_image_asks_its_node_whether_it_is_well() -> None:
    """By a module that exists, where the node listens, and with time for it to give up."""
    check = health_check()

    assert check["test"] == ["CMD", "python", "-m", health.__name__]
    assert float(check["timeout"].removesuffix("s")) > health.TIMEOUT_SECONDS
    environment = dict(word.split("=", 1) for word in one("ENV", stage("base")).split())
    assert environment["BYZSGD_HTTP"] == "0.0.0.0:9100"


def test_only_what_is_built_from_is_sent_to_the_engine() -> None:
    """No keys, no history: .dockerignore lets in what the Dockerfile copies, and nothing else."""
    copied = {
        source
        for word, words in instructions()
        if word == "COPY" and not words.startswith("--from=")
        for source in words.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)
    assert [rule for rule in rules[1:] if not rule.startswith("!")] == ["**/__pycache__"]


# A cluster by compose


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """What the service setup makes."""
    [words] = re.findall(r"byzsgd (init .*)\n", setup())
    words = re.sub(r"\$\{BYZSGD_INIT:-(.*)\}", r"\1", words).replace("'", "")
    folder = tmp_path_factory.mktemp("compose")
    assert cli.main(words.replace("/tmp/new", str(folder)).split()) == 0
    return config.read_cluster(folder / "cluster.toml")


def setup() -> str:
    """The script of the service setup."""
    [script] = SERVICES["setup"]["command"]
    return str(script)


def nodes() -> dict[str, dict[str, Any]]:
    """The services that are nodes."""
    return {name: service for name, service in SERVICES.items() if re.fullmatch(r"[sw]\d", name)}


def test_compose_starts_the_nodes_of_the_cluster_that_it_makes(cluster: Cluster) -> None:
    """All, no other, each with the command of its role; one of each kind may lie."""
    assert list(nodes()) == [*cluster.servers, *cluster.workers]
    assert (cluster.f_servers, cluster.f_workers) == (1, 1)
    for name, service in nodes().items():
        assert service["environment"]["BYZSGD_ID"] == name
        assert service["command"][0] == cluster.role(name)


def test_nodes_find_each_other_by_the_names_of_services(cluster: Cluster) -> None:
    """At the ports of the image."""
    ports = {int(port) for port in one("EXPOSE").split()}
    for node in cluster.nodes:
        if node.address:
            host, _, port = node.address.rpartition(":")
            assert host == node.id
            assert {int(port), int(port) + 1} < ports
        if node.http:
            assert node.http == f"{node.id}:9100"
    assert 9100 in ports


@pytest.mark.parametrize("services", [SERVICES, DRILL["services"]], ids=["compose", "drill"])
def test_compose_gives_byzsgd_words_that_it_takes(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, flags and variables."""
    parsed = 0
    for name, service in services.items():
        if name in ("setup", "prometheus", "grafana"):
            continue
        for variable, value in service.get("environment", {}).items():
            monkeypatch.setenv(variable, value)
        assert cli._parser().parse_args(service["command"])
        parsed += 1
    assert parsed >= 2


def test_a_node_gets_its_own_key_alone() -> None:
    """Its volume is nobody else's but of the service that filled it; a worker only reads it."""
    for name, service in nodes().items():
        mode = ":ro" if name.startswith("w") else ""
        assert service["volumes"] == [f"{name}:/cluster{mode}"]
        assert f"{name}:/nodes/{name}" in SERVICES["setup"]["volumes"]
    assert SERVICES["operator"]["volumes"] == ["operator:/cluster"]
    [names] = re.findall(r"for node in (.*); do", setup())
    assert names.split() == [*nodes(), "operator"]
    assert f"chown -R {one('USER')} " in setup()


@every_service
def test_every_container_is_shut_in(name: str) -> None:
    """A read-only root, no capability but one job's two, no way to more, ports for this machine."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["CHOWN", "DAC_OVERRIDE"] if name == "setup" else [])
    assert ("user" in service) == (name == "setup")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not {"privileged", "pid", "ipc", "userns_mode", "devices"} & service.keys()


def test_compose_asks_nodes_as_the_image_does() -> None:
    """Again, as an image may have lost its check: only more often."""
    check = health_check()
    for service in nodes().values():
        assert service["healthcheck"]["test"] == check["test"]
        assert service["healthcheck"]["timeout"] == check["timeout"]


def test_compose_waits_longer_than_a_stop_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stop ends in a kill."""
    for name, service in nodes().items():
        monkeypatch.setenv("BYZSGD_ID", name)
        words = cli._parser().parse_args(service["command"])
        assert float(service["stop_grace_period"].removesuffix("s")) > words.stop_seconds


def test_every_volume_is_declared_and_every_file_is_there() -> None:
    """What is mounted exists."""
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service["volumes"]]
    files = {source for source, *_ in mounts if source.startswith("./")}

    assert {source for source, *_ in mounts} - files == COMPOSE["volumes"].keys()
    assert all((ROOT / "deploy" / file).exists() for file in files)


def test_prometheus_and_grafana_find_what_lies_in_deploy() -> None:
    """Rules and targets where prometheus.yml says, dashboards where Grafana's provider looks."""
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    mounted = [mount.split(":")[1] for mount in SERVICES["prometheus"]["volumes"]]
    assert {f"/etc/prometheus/{file}" for file in prometheus["rule_files"]} <= {*mounted}
    [scrape] = prometheus["scrape_configs"]
    assert scrape["file_sd_configs"] == [{"files": ["targets/*.json"]}]
    assert "/etc/prometheus/targets" in mounted
    assert "targets:/targets" in SERVICES["setup"]["volumes"]
    assert " --out /targets/compose.json" in setup()

    grafana = ROOT / "deploy" / "grafana" / "provisioning"
    [provider] = yaml.safe_load((grafana / "dashboards" / "byzsgd.yml").read_text())["providers"]
    [source] = yaml.safe_load((grafana / "datasources" / "byzsgd.yml").read_text())["datasources"]
    mounted = [mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    assert source["url"] == "http://127.0.0.1:9090"
    assert SERVICES["grafana"]["network_mode"] == "service:prometheus"


def test_grafana_is_the_one_whose_types_the_dashboards_have() -> None:
    """The version of the schema that tests check them by."""
    package = json.loads((ROOT / "tests" / "deploy" / "grafana" / "package.json").read_text())
    version = package["devDependencies"]["@grafana/schema"]

    assert SERVICES["grafana"]["image"] == f"docker.io/grafana/grafana:{version}"


def test_a_drill_has_no_more_liars_than_the_cluster_stands(cluster: Cluster) -> None:
    """One service of each kind lies, as itself."""
    liars = DRILL["services"]

    assert [cluster.role(liar) for liar in liars] == ["server", "worker"]
    for liar, service in liars.items():
        command, flag, identity, *_ = service["command"]
        assert (command, flag, identity) == ("adversary", "--as", liar)
        assert service["healthcheck"] == {"disable": True}


def test_podman_compose_reads_the_files() -> None:
    """Both together, with every profile."""
    if shutil.which("podman") is None:
        pytest.skip("NOT TESTED: no podman here; apt-get install podman")
    words = ["-f", "compose.yaml", "-f", "compose.drill.yaml", "--profile", "monitoring"]
    done = subprocess.run(
        [Path(sys.executable).with_name("podman-compose"), *words, "config"],
        cwd=ROOT / "deploy",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    merged = yaml.safe_load(done.stdout)["services"]
    assert merged["s4"]["command"][0] == "adversary"
    assert merged["s4"]["volumes"] == ["s4:/cluster"]
