"""The manifests are what Kubernetes takes, shut in what they start, and say what the code says."""

import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from byzsgd import __version__, memory
from byzsgd.cluster import Cluster, Role
from byzsgd.transport import keys
from byzsgd_daemons import cli, http
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.init import OPERATOR, Addresses, Plan, create

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).with_name("kubectl")

VERSIONS = ("1.33", "1.37")
"""Of Kubernetes: the oldest that manifests are for, and the newest that there are schemas of."""

FOREIGN = {"PodMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, which Kubernetes has no schema of."""

ROLES = ("server", "worker")

WORDS = (
    "base",
    "base few-zones",
    "gpu few-machines few-zones",
    "local",
    "local operator monitoring",
)
"""Clusters that overlay.py makes."""

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip

MACHINE, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"

MNIST = 102_964
"""Parameters of what ``byzsgd init`` makes a cluster for, if nothing else is said."""

SPARE_SECONDS = 5
"""For what nobody counts: starting a command, looking once more."""

Object = dict[str, Any]
Objects = list[Object]

every_role = pytest.mark.parametrize("role", ROLES)


def kustomize(folder: Path) -> Objects:
    """The objects that kubectl makes of a folder."""
    done = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def overlay(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run overlay.py as its head says: by a Python without packages."""
    command = [sys.executable, "-I", "-S", FOLDER / "overlay.py", folder, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Cluster]]:
    """Makes a cluster's folder of words for overlay.py and a plan."""

    def made(words: str, **plan: Any) -> tuple[Path, Cluster]:
        folder = tmp_path_factory.mktemp("kubernetes") / "mine"
        chosen = Plan(**plan)
        file = create(folder, chosen, Addresses.of_pods(chosen))
        done = overlay(folder, *words.split())
        assert (done.returncode, done.stderr) == (0, "")
        return folder, read_cluster(file)

    return made


@pytest.fixture(scope="session")
def rendered(make: Callable[..., tuple[Path, Cluster]]) -> Mapping[str, Objects]:
    """The objects of every cluster of WORDS, and of every folder as it lies in the repository."""
    found = {f"mine: {words}": kustomize(make(words)[0]) for words in WORDS}
    folders = [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())]
    return found | {str(path.relative_to(FOLDER)): kustomize(path) for path in folders}


def of_kind(objects: Objects, kind: str, name: str | None = None) -> Objects:
    """The objects of a kind, all or those of a name."""
    named = [each for each in objects if name in (None, each["metadata"]["name"])]
    return [each for each in named if each["kind"] == kind]


def the(objects: Objects, kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    [found] = of_kind(objects, kind, name)
    return found


def templates(objects: Objects) -> Iterator[tuple[str, Object]]:
    """The pod templates, by the name of what makes pods of them."""
    for kind in ("StatefulSet", "Deployment"):
        for each in of_kind(objects, kind):
            yield each["metadata"]["name"], each["spec"]["template"]


def container(objects: Objects, role: str) -> Object:
    """The container of a role's pods."""
    [found] = the(objects, "StatefulSet", role)["spec"]["template"]["spec"]["containers"]
    return found


def ports_of(objects: Objects, role: str) -> dict[str, int]:
    """Where a role's pods listen, by name."""
    return {each["name"]: each["containerPort"] for each in container(objects, role)["ports"]}


def variables(container: Object, pod: str) -> dict[str, str]:
    """The environment of a container in a pod of that name."""
    return {each["name"]: each.get("value", pod) for each in container["env"]}


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a selector of matchLabels takes what has these labels; an empty one takes all."""
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


# What Kubernetes takes


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_takes(
    rendered: Mapping[str, Objects], version: str
) -> None:
    """Strictly: a field that is unknown, or in the wrong place, would be left out in silence."""
    found = {json.dumps(each): each for objects in rendered.values() for each in objects}
    ours = [each for each in found.values() if each["kind"] not in FOREIGN]
    for each in ours:
        kubernetes_validate.validate(each, version, strict=True)
    assert {each["kind"] for each in ours} >= {"StatefulSet", "NetworkPolicy", "Deployment"}
    policy = of_kind(ours, "NetworkPolicy")[0]
    planted = {**policy, "spec": {**policy["spec"], "podSelektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(planted, version, strict=True)


def test_every_object_is_in_the_cluster_s_namespace(make: Callable[..., Any]) -> None:
    """Also if it is another than byzsgd."""
    folder, _ = make("local operator monitoring --namespace other --image r.lan:5000/b:2.0")
    for objects in (kustomize(folder), kustomize(folder / "keys")):
        spaces = {each["metadata"].get("namespace") for each in objects}
        names = {each["metadata"]["name"] for each in of_kind(objects, "Namespace")}
        assert (spaces, names) == ({None, "other"}, {"other"})
    images = {
        each["image"]
        for _, pod in templates(kustomize(folder))
        for each in pod["spec"]["containers"]
    }
    assert images == {"r.lan:5000/b:2.0"}


def test_everything_that_selects_finds_what_is_there(rendered: Mapping[str, Objects]) -> None:
    """Services, sets, budgets, policies and constraints; and what is mounted exists."""
    for name, objects in rendered.items():
        if not of_kind(objects, "StatefulSet"):
            continue
        labels = {name: pod["metadata"]["labels"] for name, pod in templates(objects)}
        for role in ROLES:
            spec = the(objects, "StatefulSet", role)["spec"]
            service = the(objects, "Service", role)["spec"]
            assert spec["serviceName"] == role
            assert service["selector"].items() <= labels[role].items()
            assert matches(spec["selector"], labels[role])
            assert matches(
                the(objects, "PodDisruptionBudget", role)["spec"]["selector"], labels[role]
            )
            for spread in spec["template"]["spec"]["topologySpreadConstraints"]:
                assert matches(spread["labelSelector"], labels[role])
            others = [labels[other] for other in labels if other != role]
            assert not any(matches(spec["selector"], other) for other in others)
            assert not any(service["selector"].items() <= other.items() for other in others)
            listed = {each["name"]: each["port"] for each in service["ports"]}
            assert listed == ports_of(objects, role)
        for _, pod in templates(objects):
            claims = {"state"} if pod["spec"]["containers"][0]["name"] == "server" else set()
            volumes = {each["name"] for each in pod["spec"]["volumes"]} | claims
            mounted = {each["name"] for each in pod["spec"]["containers"][0]["volumeMounts"]}
            assert mounted == volumes
            accounts = of_kind(objects, "ServiceAccount", pod["spec"]["serviceAccountName"])
            assert len(accounts) == 1
            if name.startswith("mine"):
                volumes = [each.get("projected", each) for each in pod["spec"]["volumes"]]
                sources = [source for each in volumes for source in each.get("sources", [each])]
                configs = [each["configMap"]["name"] for each in sources if "configMap" in each]
                assert configs == ["cluster"]
                assert the(objects, "ConfigMap", "cluster")


# What the code says


@every_role
def test_a_node_s_environment_is_what_its_command_reads(
    role: str, rendered: Mapping[str, Objects], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable is known, and the files are where the volumes are."""
    for objects in rendered.values():
        if not of_kind(objects, "StatefulSet"):
            continue
        node = container(objects, role)
        pod = f"{role}-1"
        found = {k: v for k, v in variables(node, pod).items() if k.startswith("BYZSGD_")}
        paths = {each["name"]: each["mountPath"] for each in node["volumeMounts"]}
        with monkeypatch.context() as patch:
            for name, value in found.items():
                patch.setenv(name, value)
            given = cli._parser().parse_args(node["args"])
        assert given.command is getattr(cli, f"_{role}")
        assert (given.id, given.key) == (pod, Path(paths["keys"]))
        assert given.cluster == Path(paths["cluster"]) / "cluster.toml"
        assert given.state == (Path(paths["state"]) if role == "server" else None)
        [port] = [each["containerPort"] for each in node["ports"] if each["name"] == "http"]
        assert given.http == f"0.0.0.0:{port}"
        names = {f"BYZSGD_{name.upper()}" for name in vars(given)}
        assert found.keys() <= names


def test_pods_are_where_the_cluster_file_says(make: Callable[..., Any]) -> None:
    """By the names that Kubernetes gives the pods of a StatefulSet, and on their ports."""
    folder, cluster = make("base")
    objects = kustomize(folder)
    hosts = set()
    for role in ROLES:
        ports = ports_of(objects, role)
        for number in range(the(objects, "StatefulSet", role)["spec"]["replicas"]):
            node = cluster.node(f"{role}-{number}")
            assert node is not None
            hosts.add(node.id)
            assert node.role == role
            assert node.http == f"{node.id}.{role}:{ports['http']}"
            if role == "server":
                host = f"{node.id}.{role}"
                assert node.publish_endpoint == (host, ports["models"])
                assert node.request_endpoint == (host, ports["requests"])
    assert hosts | {OPERATOR} == {node.id for node in cluster.nodes}
    [file] = the(objects, "ConfigMap", "cluster")["data"].values()
    assert file == (folder / "cluster.toml").read_text()


@every_role
def test_probes_ask_what_nodes_answer(role: str, rendered: Mapping[str, Objects]) -> None:
    """In step, or alive; and they wait longer than a node takes to say that it is not."""
    for objects in rendered.values():
        if not of_kind(objects, "StatefulSet"):
            continue
        node = container(objects, role)
        paths = {
            probe: node[f"{probe}Probe"]["httpGet"]["path"]
            for probe in ("startup", "readiness", "liveness")
        }
        assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
        assert set(paths.values()) <= set(http.PATHS)
        for probe in paths:
            assert node[f"{probe}Probe"]["httpGet"]["port"] == "http"
            slowest = http.ANSWER_SECONDS + http.REST_SECONDS_MAX
            assert node[f"{probe}Probe"]["timeoutSeconds"] > slowest


@every_role
def test_a_pod_has_time_to_be_drained_and_to_stop(
    role: str, rendered: Mapping[str, Objects], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`byzsgd drain` for itself first, then as long as a stop may take."""
    for objects in rendered.values():
        if not of_kind(objects, "StatefulSet"):
            continue
        node = container(objects, role)
        shell, flag, line = node["lifecycle"]["preStop"]["exec"]["command"]
        assert (shell, flag) == ("sh", "-c")
        words = shlex.split(line.replace("$BYZSGD_ID", f"{role}-1"))
        assert words[:3] == ["exec", "byzsgd", "drain"]
        for name, value in variables(node, f"{role}-1").items():
            monkeypatch.setenv(name, value)
        drain = cli._parser().parse_args(words[2:])
        stop = cli._parser().parse_args(node["args"])
        assert drain.nodes == [f"{role}-1"]
        assert str(drain.cluster) == "/cluster/cluster.toml"
        pod = the(objects, "StatefulSet", role)["spec"]["template"]["spec"]
        needed = drain.seconds + stop.stop_seconds + SPARE_SECONDS
        assert pod["terminationGracePeriodSeconds"] >= needed
        hung = node["livenessProbe"]["terminationGracePeriodSeconds"]
        assert stop.stop_seconds + SPARE_SECONDS <= hung


def test_the_image_is_the_one_that_is_built_here(rendered: Mapping[str, Objects]) -> None:
    """With its version for a tag, and the user that it runs as."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    users = set(re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE))
    assert 'ENTRYPOINT ["byzsgd"]' in dockerfile
    assert "--tag byzsgd:$(VERSION) ." in (ROOT / "Makefile").read_text()
    for objects in rendered.values():
        for _, pod in templates(objects):
            context = pod["spec"]["securityContext"]
            assert {(str(context["runAsUser"]), str(context["runAsGroup"]))} == users
            for each in pod["spec"]["containers"]:
                assert each["image"] in (f"byzsgd:{__version__}", f"byzsgd-cuda:{__version__}")


def test_limits_of_memory_are_what_byzsgd_check_asks_for(make: Callable[..., Any]) -> None:
    """Of the cluster that ``byzsgd init`` makes; workers have room for torch and a data set."""
    folder, cluster = make("base")
    objects = kustomize(folder)
    for role, most in (
        (Role.SERVER, memory.server_bytes(cluster, MNIST)),
        (Role.WORKER, memory.worker_bytes(cluster, MNIST)),
    ):
        limit = container(objects, role)["resources"]["limits"]["memory"]
        assert _bytes(limit) >= most + memory.kernel_bytes(cluster, role)


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([MG]i)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 2**20, "Gi": 2**30}[unit]


# How many may be away


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"servers": 8, "workers": 4},
        {"servers": 5, "workers": 10, "f_workers": 1},
        {"servers": 1, "workers": 4, "f_servers": 0},
    ],
    ids=str,
)
def test_no_more_than_f_are_away_or_in_one_place(
    plan: dict[str, int], make: Callable[..., Any]
) -> None:
    """Budgets, machines and zones: f_servers and f_workers of the cluster file."""
    folder, cluster = make("base", task="quadratic", **plan)
    objects = kustomize(folder)
    for role, n, f in (
        ("server", cluster.n_servers, cluster.f_servers),
        ("worker", cluster.n_workers, cluster.f_workers),
    ):
        spec = the(objects, "StatefulSet", role)["spec"]
        assert spec["replicas"] == n
        assert the(objects, "PodDisruptionBudget", role)["spec"]["maxUnavailable"] == f
        spread = spec["template"]["spec"]["topologySpreadConstraints"]
        assert {each["topologyKey"] for each in spread} == {MACHINE, ZONE}
        for each in spread:
            assert each["whenUnsatisfiable"] == "DoNotSchedule"
            assert each["maxSkew"] == max(f, 1)
            # Then the skew is how many there are, and not how many more than elsewhere.
            assert each["minDomains"] > 5000


def test_the_base_is_for_the_cluster_that_init_makes(
    make: Callable[..., Any], rendered: Mapping[str, Objects]
) -> None:
    """So the numbers in the files are no others than those that overlay.py writes."""
    [mine] = [rendered[name] for name in rendered if name == "mine: base"]
    assert [each for each in mine if each["kind"] != "ConfigMap"] == rendered["base"]


def test_small_clusters_are_spread_as_well_as_can_be(rendered: Mapping[str, Objects]) -> None:
    """Where there are fewer machines or zones than f allows, nobody waits for more of them."""
    soft = {
        "mine: base few-zones": {ZONE},
        "mine: gpu few-machines few-zones": {ZONE, MACHINE},
        "overlays/local": {ZONE, MACHINE},
    }
    for (name, expected), role in itertools.product(soft.items(), ROLES):
        pod = the(rendered[name], "StatefulSet", role)["spec"]["template"]["spec"]
        found = {
            each["topologyKey"]
            for each in pod["topologySpreadConstraints"]
            if each["whenUnsatisfiable"] == "ScheduleAnyway" and "minDomains" not in each
        }
        assert found == expected


@every_role
def test_pods_find_one_another_first_and_are_replaced_one_by_one(
    role: str, rendered: Mapping[str, Objects]
) -> None:
    """All start at once, known by name before they are ready; updates wait for each."""
    spec = the(rendered["base"], "StatefulSet", role)["spec"]
    service = the(rendered["base"], "Service", role)["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    claims = spec.get("volumeClaimTemplates", [])
    assert [each["metadata"]["name"] for each in claims] == (["state"] if role == "server" else [])


# What is kept shut


def violations(pod: Object) -> Iterator[str]:
    """What Pod Security's profile "restricted" has against a pod, by the rules of its page."""
    spec = pod["spec"]
    own = spec.get("securityContext", {})
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(flag):
            yield flag
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= RESTRICTED_VOLUMES:
            yield f"volume {volume['name']}"
    for each in [*spec["containers"], *spec.get("initContainers", [])]:
        context = each.get("securityContext", {})

        def said(key: str, context: Object = context) -> Any:
            return context.get(key, own.get(key))

        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            yield "escalation"
        powers = context.get("capabilities", {})
        if "ALL" not in powers.get("drop", []) or powers.get("add"):
            yield "capabilities"
        if said("runAsNonRoot") is not True or said("runAsUser") == 0:
            yield "root"
        if (said("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield "seccomp"
        if any("hostPort" in port for port in each.get("ports", [])):
            yield "hostPort"
        if context.get("procMount", "Default") != "Default":
            yield "procMount"


def test_pods_are_what_the_restricted_profile_takes(rendered: Mapping[str, Objects]) -> None:
    """The namespace asks for it, with a read-only root and no token of Kubernetes besides."""
    labels = the(rendered["base"], "Namespace", "byzsgd")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
    for objects in rendered.values():
        for _, pod in templates(objects):
            assert list(violations(pod)) == []
            assert pod["spec"]["automountServiceAccountToken"] is False
            assert pod["spec"]["enableServiceLinks"] is False
            for each in pod["spec"]["containers"]:
                assert each["securityContext"]["readOnlyRootFilesystem"] is True
                assert each["resources"]["requests"].keys() == {"cpu", "memory"}
                assert "memory" in each["resources"]["limits"]


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (("hostNetwork",), True, "hostNetwork"),
        (("volumes", 0), {"name": "x", "hostPath": {"path": "/"}}, "volume x"),
        (("securityContext",), {"runAsNonRoot": True}, "seccomp"),
        (("securityContext", "runAsUser"), 0, "root"),
        (("containers", 0, "securityContext", "runAsNonRoot"), False, "root"),
        (
            ("containers", 0, "securityContext", "capabilities"),
            {"drop": ["NET_RAW"]},
            "capabilities",
        ),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "escalation"),
        (("containers", 0, "ports", 0), {"containerPort": 1, "hostPort": 1}, "hostPort"),
    ],
)
def test_what_the_profile_refuses_is_found(
    path: tuple[str | int, ...], value: Any, found: str, rendered: Mapping[str, Objects]
) -> None:
    """Each by itself."""
    pod = json.loads(json.dumps(dict(templates(rendered["base"]))["server"]))
    place = pod["spec"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert list(violations(pod)) == [found]


def test_a_container_sees_its_own_key_alone(make: Callable[..., Any]) -> None:
    """Of the Secret of its kind it is shown the file that bears its name, and may read it."""
    folder, cluster = make("local operator")
    objects, secrets = kustomize(folder), kustomize(folder / "keys")
    for role, members in (("server", cluster.servers), ("worker", cluster.workers)):
        node, pod = container(objects, role), dict(templates(objects))[role]["spec"]
        [mount] = [each for each in node["volumeMounts"] if each["name"] == "keys"]
        [volume] = [each["secret"] for each in pod["volumes"] if each["name"] == "keys"]
        [secret] = of_kind(secrets, "Secret", volume["secretName"])
        named = {mount["subPathExpr"].replace("$(BYZSGD_ID)", member) for member in members}
        assert [e for e in node["env"] if e["name"] == "BYZSGD_ID"] == [
            {"name": "BYZSGD_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        ]
        assert secret["data"].keys() == named
        assert mount["readOnly"]
        # Root's, lent to the pod's group.
        assert volume["defaultMode"] == keys.LENT
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    [volume] = dict(templates(objects))["operator"]["spec"]["volumes"][:1]
    [secret] = [each["secret"] for each in volume["projected"]["sources"] if "secret" in each]
    assert the(secrets, "Secret", secret["name"])["data"].keys() == {"operator.key"}
    # Where byzsgd fetch looks for it, who knows no variable for it.
    settings = Settings(id=OPERATOR, cluster=folder / "cluster.toml")
    assert secret["items"] == [
        {"key": "operator.key", "path": str(settings.key_file.relative_to(settings.folder))}
    ]
    assert volume["projected"]["defaultMode"] == keys.LENT
    assert len(of_kind(secrets, "Secret")) == 3


def test_secret_keys_are_nowhere_but_in_their_secrets(make: Callable[..., Any]) -> None:
    """What is applied with the cluster can be kept with the code; git does not take keys."""
    folder, _ = make("local operator monitoring")
    objects = kustomize(folder)
    secret = (folder / "keys" / "server-0.key").read_text().strip()
    assert secret not in json.dumps(objects)
    assert not of_kind(objects, "Secret")
    asked = ["git", "-C", ROOT, "check-ignore", "mine/keys/server-0.key", "a/b/operator.key.old"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == asked[-2:]


def allowed(policies: Objects, source: Mapping[str, str], to: Mapping[str, str], port: int) -> bool:
    """Whether NetworkPolicies let pods of one namespace connect."""

    def passes(kind: str, peers: str, own: Mapping[str, str], other: Mapping[str, str]) -> bool:
        specs = [each["spec"] for each in policies]
        ours = [s for s in specs if matches(s["podSelector"], own) and kind in s["policyTypes"]]
        return not ours or any(
            port in [each["port"] for each in rule["ports"]]
            and any(
                "namespaceSelector" not in peer and matches(peer["podSelector"], other)
                for peer in rule.get(peers, [{"podSelector": {}}])
            )
            for spec in ours
            for rule in spec.get(kind.lower(), [])
        )

    return passes("Egress", "to", source, to) and passes("Ingress", "from", to, source)


def test_pods_reach_what_the_protocol_needs_and_nothing_else(
    rendered: Mapping[str, Objects],
) -> None:
    """docs/protocol.md: who dials what; and HTTP, which nodes ask before they stop."""
    objects = rendered["mine: local operator monitoring"]
    policies = of_kind(objects, "NetworkPolicy")
    ports = ports_of(objects, "server")
    labels = {name: pod["metadata"]["labels"] for name, pod in templates(objects)}
    labels["stranger"] = {"app": "another"}
    found = {
        (source, to): {
            name
            for name, port in {**ports, "else": 22}.items()
            if allowed(policies, labels[source], labels[to], port)
        }
        for source, to in itertools.product(labels, repeat=2)
    }
    expected = {pair: set() if "stranger" in pair else {"http"} for pair in found}
    expected["worker", "server"] |= {"models", "requests"}
    expected["server", "server"] |= {"requests"}
    expected["operator", "server"] |= {"requests"}
    assert found == expected
    # A stranger's own pods may be under no policy: what comes in is refused by itself.
    inwards = [
        {"spec": {**each["spec"], "policyTypes": ["Ingress"]}}
        for each in policies
        if "Ingress" in each["spec"]["policyTypes"]
    ]
    for to, port in itertools.product(labels.values(), (*ports.values(), 22)):
        assert not allowed(inwards, labels["stranger"], to, port)
    outwards = [
        rule for each in policies for rule in each["spec"].get("egress", []) if "to" not in rule
    ]
    assert [each["port"] for rule in outwards for each in rule["ports"]] == [53, 53]


# What else there is


def test_workers_with_gpus_compute_on_them(
    rendered: Mapping[str, Objects], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One each, by a flag that the command knows; servers have none."""
    objects = rendered["overlays/gpu"]
    worker, server = container(objects, "worker"), container(objects, "server")
    for name, value in variables(worker, "worker-0").items():
        monkeypatch.setenv(name, value)
    assert cli._parser().parse_args(worker["args"]).device == "cuda"
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in server["resources"]["limits"]
    assert worker["image"] == f"byzsgd-cuda:{__version__}"


def test_prometheus_and_grafana_get_what_lies_in_deploy(rendered: Mapping[str, Objects]) -> None:
    """Rules, alerts and dashboards, each as it is there; and pods by the names of their nodes."""
    objects = rendered["mine: local operator monitoring"]
    for name in ("recording", "alerts"):
        rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / f"{name}.yml").read_text())
        assert the(objects, "PrometheusRule", f"byzsgd-{name}")["spec"] == rules, (
            "out of date: run deploy/prometheus/prometheusrule.py"
        )
    boards = the(objects, "ConfigMap", "byzsgd-dashboards")
    files = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    assert boards["data"] == {path.name: path.read_text() for path in files}

    spec = the(objects, "PodMonitor", "byzsgd")["spec"]
    [endpoint] = spec["podMetricsEndpoints"]
    relabelled = {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]}
    assert relabelled == {
        "cluster": ["__meta_kubernetes_namespace"],
        "role": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"],
        "node": ["__meta_kubernetes_pod_name"],
    }
    for role in ROLES:
        pod = dict(templates(objects))[role]
        assert matches(spec["selector"], pod["metadata"]["labels"])
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == Role(role)
        assert endpoint["port"] in [each["name"] for each in pod["spec"]["containers"][0]["ports"]]
    assert endpoint["path"] in http.PATHS


def test_a_task_s_own_file_goes_with_the_cluster_file(make: Callable[..., Any]) -> None:
    """Beside it, as a path in it means."""
    folder, _ = make("local", task="quadratic")
    file = folder / "cluster.toml"
    file.write_text(file.read_text().replace('"quadratic"', '"mine.py:task"'))
    missing = overlay(folder, "local")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "mine.py must lie beside the cluster file" in missing.stderr

    (folder / "mine.py").write_text("task = None\n")
    assert overlay(folder, "local").returncode == 0
    config = the(kustomize(folder), "ConfigMap", "cluster")
    assert config["data"].keys() == {"cluster.toml", "mine.py"}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('id = "server-4"', 'id = "s4"', "its servers must be called server-0, server-1, ..."),
        ('id = "worker-1"', 'id = "worker-9"', "its workers must be called worker-0"),
        (
            "server-2.server:7000",
            "server-2.server:7002",
            "of server-2 must be server-2.server:7000",
        ),
        ("worker-2.worker:9100", "worker-2:9100", "http of worker-2 must be worker-2.worker:9100"),
        ("f_servers = 1", "", "cluster.toml has no 'f_servers'"),
        ("f_servers = 1", "f_servers = ", "Invalid value"),
    ],
)
def test_a_cluster_file_that_does_not_suit_pods_is_refused(
    before: str, after: str, words: str, make: Callable[..., Any]
) -> None:
    """In one line, with status 2."""
    folder, _ = make("local", task="quadratic")
    file = folder / "cluster.toml"
    file.write_text(file.read_text().replace(before, after))
    done = overlay(folder, "local")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lokal",), "lokal is none of base, few-machines"),
        (("local", "gpu"), "a cluster is one of base, gpu, local"),
        (("local", "few-zones"), "local has all components in it"),
        (("--image", "byzsgd"), "must be NAME:TAG"),
        (("--image", "registry.lan:5000/byzsgd"), "must be NAME:TAG"),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    words: tuple[str, ...], said: str, make: Callable[..., Any]
) -> None:
    """In one line, with status 2, and nothing is changed."""
    folder, _ = make("base", task="quadratic")
    before = (folder / "kustomization.yaml").read_text()
    done = overlay(folder, *words)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert (folder / "kustomization.yaml").read_text() == before
