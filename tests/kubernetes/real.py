"""The manifests on a real Kubernetes: training goes on through an attack and what happens to pods.

``make test-kubernetes``. One node, of which all but the name service is real (node.sh): Kubernetes
1.20, the newest that can be built from Debian's packages (build.sh). What that version does not
know it leaves out: Pod Security's labels, how long a pod that hangs is waited for, and the newer
version of a budget. Its network enforces no policies, and it has one machine and no zones.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from byzsgd.cluster import Cluster
from byzsgd_daemons.config import read_cluster

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
PROGRAMS = Path(os.environ.get("BYZSGD_KUBERNETES") or "/var/cache/byzsgd-kubernetes")
"""Where build.sh has put the programs of a node."""

IMAGE = "localhost/byzsgd:test"

NEEDED = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "conntrack": "conntrack",
    "ebtables": "ebtables",
    "ethtool": "ethtool",
    "iptables": "iptables",
    "ip": "iproute2",
    "socat": "socat",
    "openssl": "openssl",
    "curl": "curl",
    "catatonit": "catatonit",
    "podman": "podman",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Programs, and the packages that they are in."""

LIAR = "worker-6"
LYING_SERVER = "server-4"

PATIENCE_SECONDS = 400.0
"""Far above what anything here takes: only a wait that would be for ever runs into it."""

ACCURACY_LEAST = 0.9
"""Of a model of digits that was trained under this attack; without any it is 0.97."""


def lacking() -> str:
    """What keeps this machine from being a node, or nothing."""
    if os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory").is_dir():
        return "a node needs root, and cgroups of version 1"
    if missing := sorted({NEEDED[each] for each in NEEDED if shutil.which(each) is None}):
        return f"not all there; apt-get install {' '.join(missing)}"
    if not (PROGRAMS / "kubelet").exists():
        return f"no Kubernetes in {PROGRAMS}; tests/kubernetes/build.sh {PROGRAMS} (11 minutes)"
    return ""


def run(*words: str | Path, **options: Any) -> str:
    """What a command prints; whatever it says belongs to the error."""
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, **options
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done.stdout


@dataclass
class Node:
    """A Kubernetes, and a cluster of ours in it."""

    state: Path
    folder: Path
    cluster: Cluster

    def exec(self, *words: str | Path, **options: Any) -> str:
        """What a command on the node prints."""
        return run(HERE / "node.sh", "exec", self.state, *words, **options)

    def kubectl(self, *words: str | Path, **options: Any) -> str:
        """What kubectl prints."""
        return self.exec(BIN / "kubectl", "--namespace=byzsgd", *words, **options)

    def apply(self, objects: list[Any]) -> None:
        """Make objects, or change them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "-f", "-", input=text)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object."""
        return json.loads(self.kubectl("get", kind, name, "--output=json"))

    def pods(self, role: str) -> dict[str, dict[str, Any]]:
        """The pods of a StatefulSet, by name."""
        selector = f"app.kubernetes.io/component={role}"
        found = json.loads(self.kubectl("get", "pods", "--selector", selector, "--output=json"))
        return {each["metadata"]["name"]: each for each in found["items"]}

    def statuses(self) -> dict[str, dict[str, Any]]:
        """What every node says of itself, by its id; nothing of one that does not answer."""
        command = (BIN / "byzsgd", "status", "--json", "--cluster", self.folder / "cluster.toml")
        try:
            found = json.loads(self.exec(*command))["nodes"]
        except RuntimeError:
            return {}
        return {node: each["status"] for node, each in found.items() if each.get("status")}

    def wait_for(self, what: str, condition: Callable[[], Any]) -> Any:
        """What a condition gives, once that is true."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if time.monotonic() > until:
                raise TimeoutError(f"{what}\n{self.story()}")
            time.sleep(0.5)
        return found

    def wait_for_step(self, step: int, *nodes: str) -> None:
        """Wait until nodes are in step, and at least there."""

        def there() -> bool:
            found = self.statuses()
            return all(
                found.get(node, {}).get("ready") and found[node]["step"] >= step for node in nodes
            )

        self.wait_for(f"{', '.join(nodes)} at step {step}", there)

    def step(self) -> int:
        """The step that most of the servers have reached, once most of them answer."""

        def reached() -> list[int]:
            found = self.statuses()
            steps = sorted(found[each]["step"] for each in self.cluster.servers if each in found)
            return steps if len(steps) > len(self.cluster.servers) // 2 else []

        steps = self.wait_for("steps of most servers", reached)
        return steps[len(steps) // 2]

    def saved(self, server: str) -> int:
        """The step of a server's newest checkpoint, 0 while there is none."""
        return (self.statuses().get(server, {}).get("checkpoint") or {}).get("step") or 0

    def wait_for_all(self) -> int:
        """Wait until all correct nodes are in step, and go on from there; return the step."""
        correct = [each for each in (*self.cluster.servers, *self.cluster.workers) if each != LIAR]
        step = self.step()
        self.wait_for_step(step + 5, *correct)
        return step + 5

    def restarts(self, pod: str) -> int:
        """How often a pod's container was started again."""
        [status] = self.get("pod", pod)["status"]["containerStatuses"]
        return int(status["restartCount"])

    def kill(self, pod: str) -> None:
        """End what runs in a pod, by SIGKILL."""
        [status] = self.get("pod", pod)["status"]["containerStatuses"]
        container = status["containerID"].removeprefix("containerd://")
        self.exec("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", container)

    def resumed(self, pod: str) -> int:
        """The step of the checkpoint that a server began with."""
        for line in self.kubectl("logs", pod).splitlines():
            told = json.loads(line)
            if "resumes from the checkpoint" in json.dumps(told):
                return int(told["step"])
        raise AssertionError(f"{pod} began anew")

    @contextmanager
    def watching(self, kind: str) -> Iterator[Callable[[], Iterator[dict[str, Any]]]]:
        """Notes what happens to objects of a kind; afterwards it can be read."""
        words = ("get", kind, "--watch", "--output-watch-events", "--output=json")
        command = [HERE / "node.sh", "exec", self.state, BIN / "kubectl", "-nbyzsgd", *words]
        file = self.state / "watched.json"

        def read() -> Iterator[dict[str, Any]]:
            text, decoder = file.read_text(), json.JSONDecoder()
            while text := text.lstrip():
                event, end = decoder.raw_decode(text)
                text = text[end:]
                yield event

        with file.open("w") as out:
            process = subprocess.Popen(command, stdout=out)
        try:
            self.wait_for("the watch", lambda: file.stat().st_size)
            yield read
            # Its last words may be on their way.
            size = -1
            while size != (size := file.stat().st_size):
                time.sleep(1)
        finally:
            process.terminate()
            process.wait()

    def story(self) -> str:
        """What there is to see when something has gone wrong."""
        return "\n".join(
            self.kubectl(*words)
            for words in (
                ("get", "pods", "--output=wide"),
                ("get", "events", "--sort-by=.lastTimestamp"),
                ("logs", "--selector=app.kubernetes.io/name=byzsgd", "--tail=5", "--prefix"),
            )
        )


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is, in the eyes of Kubernetes."""
    conditions = pod["status"].get("conditions", [])
    return ("Ready", "True") in {(each["type"], each["status"]) for each in conditions}


def images(folder: Path) -> list[Path]:
    """The project's image and the one that holds a pod's namespaces, as archives."""
    engine, state = ROOT / "tests" / "containers" / "engine.sh", folder / "engine"
    ours, pause = folder / "byzsgd.tar", folder / "pause.tar"
    try:
        run(engine, "build", state, "node")
        run(engine, "save", state, "node", ours)
        with tarfile.open(folder / "root.tar", "w") as root:
            root.add(shutil.which("catatonit") or "", "catatonit")
        command = (
            f". {state}/env.sh; "
            f'podman import --quiet --change \'ENTRYPOINT ["/catatonit", "-P"]\' '
            f"{folder}/root.tar localhost/pause:test && "
            f"podman save --quiet --format docker-archive --output {pause} localhost/pause:test"
        )
        run("bash", "-c", command)
    finally:
        run(engine, "down", state)
    return [ours, pause]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node on which a cluster trains, though a server and a worker lie."""
    if reason := lacking():
        pytest.skip(f"NOT TESTED: {reason}")
    made = tmp_path_factory.mktemp("kubernetes")
    state, folder = made / "node", made / "mine"
    archives = images(made)
    run(BIN / "byzsgd", "init", folder, "--kubernetes", "--task", "digits", "--steps", "0")
    words = ("local", "operator", "--image", IMAGE)
    run(sys.executable, ROOT / "deploy" / "kubernetes" / "overlay.py", folder, *words)
    found = Node(state, folder, read_cluster(folder / "cluster.toml"))
    try:
        run(HERE / "node.sh", "up", state, PROGRAMS, *archives)
        found.apply(volumes(state, found.cluster))
        found.kubectl("apply", "--server-side", "-k", folder / "keys")
        found.apply(objects(found, servers=4))
        found.apply([liar(LIAR, LYING_SERVER)])
        yield found
    finally:
        run(HERE / "node.sh", "down", state)


def objects(node: Node, *, servers: int = 5) -> list[Any]:
    """What ``kubectl apply -k`` would make, in words that this old version knows.

    Args:
        node: Whose folder.
        servers: How many there are; the liar's place among the workers stays free in any case.
    """
    text = run(BIN / "kubectl", "kustomize", node.folder)
    found = list(yaml.load_all(text, yaml.CSafeLoader))
    for each in found:
        if each["kind"] == "PodDisruptionBudget":
            each["apiVersion"] = "policy/v1beta1"
        if each["kind"] == "StatefulSet":
            count = {"server": servers, "worker": node.cluster.n_workers - 1}
            each["spec"]["replicas"] = count[each["metadata"]["name"]]
            [container] = each["spec"]["template"]["spec"]["containers"]
            del container["livenessProbe"]["terminationGracePeriodSeconds"]
    return found


def volumes(state: Path, cluster: Cluster) -> list[Any]:
    """A place for the checkpoints of each server: no storage class makes them here."""
    found = []
    for server in cluster.servers:
        path = state / "volumes" / server
        path.mkdir(parents=True)
        os.chown(path, 10001, 10001)
        found.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": server},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "hostPath": {"path": str(path)},
                    "claimRef": {"namespace": "byzsgd", "name": f"state-{server}"},
                },
            }
        )
    return found


def liar(*identities: str) -> dict[str, Any]:
    """A pod that plays nodes, with their keys; a server among them is found by its name."""
    servers = [each for each in identities if each.startswith("server")]
    role = "server" if servers else "liar"
    found = {"hostname": servers[0], "subdomain": "server"} if servers else {}
    secrets = [
        {
            "secret": {
                "name": f"{each.partition('-')[0]}-keys",
                "items": [{"key": f"{each}.key", "path": f"keys/{each}.key"}],
            }
        }
        for each in identities
    ]
    words = [f"--as={each}" for each in identities]
    words += ["--attack=sign-flip", "--server-attack=equivocate"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "liar",
            "namespace": "byzsgd",
            "labels": {
                "app.kubernetes.io/name": "byzsgd",
                "app.kubernetes.io/component": role,
            },
        },
        "spec": {
            **found,
            "serviceAccountName": "node",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"fsGroup": 10001},
            "containers": [
                {
                    "name": "liar",
                    "image": IMAGE,
                    "args": ["adversary", *words],
                    "env": [
                        {"name": "BYZSGD_CLUSTER", "value": "/cluster/cluster.toml"},
                        {"name": "OMP_NUM_THREADS", "value": "1"},
                    ],
                    "volumeMounts": [{"name": "cluster", "mountPath": "/cluster"}],
                }
            ],
            "volumes": [
                {
                    "name": "cluster",
                    "projected": {
                        "defaultMode": 0o440,
                        "sources": [{"configMap": {"name": "cluster"}}, *secrets],
                    },
                }
            ],
        },
    }


def test_a_cluster_trains_under_attack(node: Node) -> None:
    """All pods of the overlay get ready, while a server and a worker lie."""
    correct = [each for each in node.cluster.servers if each != LYING_SERVER]
    correct += [each for each in node.cluster.workers if each != LIAR]
    node.wait_for_step(30, *correct)
    node.kubectl("rollout", "status", "statefulset/server", "--timeout=300s")
    node.kubectl("rollout", "status", "statefulset/worker", "--timeout=300s")
    assert node.get("pod", "liar")["status"]["phase"] == "Running"


@pytest.mark.parametrize("pod", ["server-0", "worker-0"])
def test_what_a_node_can_do_is_little(node: Node, pod: str) -> None:
    """It sees its own key alone, writes nowhere but where it should, and has no capabilities."""
    node.wait_for(pod, lambda: node.statuses().get(pod))

    def sh(line: str) -> str:
        return node.kubectl("exec", pod, "--", "sh", "-c", line)

    key = (node.folder / "keys" / f"{pod}.key").read_text().strip()
    assert sh("cat /keys/*").strip() == key
    assert sh("id -u; id -g").split() == ["10001", "10001"]
    mounted = sh("cut -d' ' -f2 /proc/mounts").split()
    assert "/var/run/secrets/kubernetes.io/serviceaccount" not in mounted
    status = dict(
        line.split(":\t") for line in sh("cat /proc/1/status").splitlines() if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for path in ("/new", "/cluster/new", "/keys/new", "/opt/byzsgd/new"):
        assert sh(f"touch {path} 2>/dev/null || echo refused") == "refused\n"


def test_a_worker_that_is_killed_comes_back(node: Node) -> None:
    """Under that attack, as f_workers is 2; the others do not wait for it."""
    before = node.restarts("worker-1")
    step = node.step()
    node.kill("worker-1")
    node.wait_for("a restart", lambda: node.restarts("worker-1") == before + 1)
    node.wait_for_step(step + 10, "server-0", "worker-0", "worker-1")


def test_a_server_takes_the_place_of_a_liar(node: Node) -> None:
    """A node that was away from the beginning catches up; a worker lies from now on."""
    node.kubectl("delete", "pod", "liar")
    node.apply([liar(LIAR)])
    step = node.step()
    node.kubectl("scale", "statefulset/server", "--replicas=5")
    node.wait_for_step(step, LYING_SERVER)
    node.wait_for_all()


def test_a_server_that_is_killed_goes_on_at_its_checkpoint(node: Node) -> None:
    """By SIGKILL: the kubelet starts it again, with the same volume."""
    node.wait_for_all()
    saved = node.wait_for("a checkpoint", lambda: node.saved("server-2"))
    step, before = node.step(), node.restarts("server-2")
    node.kill("server-2")
    node.wait_for("a restart", lambda: node.restarts("server-2") == before + 1)
    node.wait_for_step(step, "server-2")
    assert node.resumed("server-2") >= saved


def test_a_pod_that_is_deleted_comes_back_as_the_same_node(node: Node) -> None:
    """Another pod, with the node's name, key and checkpoints; drained before it stopped."""
    step = node.wait_for_all()
    old = node.get("pod", "server-1")
    node.kubectl("delete", "pod", "server-1")
    new = node.wait_for("another pod", lambda: node.pods("server").get("server-1"))
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    node.wait_for_step(step, "server-1")
    # It has stopped in good order, so what it had is saved, and nothing is done twice.
    assert node.resumed("server-1") >= step
    assert "FailedPreStopHook" not in node.kubectl("get", "events")


def test_no_more_than_f_are_evicted_at_once(node: Node) -> None:
    """What ``kubectl drain`` asks for is granted once, and then not until that one is back."""
    step = node.wait_for_all()
    node.wait_for("room", lambda: node.get("pdb", "server")["status"]["disruptionsAllowed"] == 1)

    def evict(pod: str) -> None:
        place = f"/api/v1/namespaces/byzsgd/pods/{pod}"
        text = {
            "apiVersion": "policy/v1beta1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": "byzsgd"},
        }
        node.kubectl("create", "--raw", f"{place}/eviction", "-f", "-", input=json.dumps(text))

    evict("server-0")
    with pytest.raises(RuntimeError, match="would violate the pod's disruption budget"):
        evict("server-1")
    node.wait_for_step(step + 5, "server-1", "server-0")
    assert node.get("pdb", "worker")["spec"]["maxUnavailable"] == node.cluster.f_workers


def test_pods_are_replaced_one_by_one(node: Node) -> None:
    """A rolling update waits until each is in step, and the training goes on meanwhile."""
    step = node.wait_for_all()
    old = {name: pod for role in ("server", "worker") for name, pod in node.pods(role).items()}
    with node.watching("pods") as events:
        node.kubectl("rollout", "restart", "statefulset/server", "statefulset/worker")
        seen = []
        for role in ("server", "worker"):
            limit = f"--timeout={PATIENCE_SECONDS:g}s"
            node.kubectl("rollout", "status", f"statefulset/{role}", limit)
            seen.append(node.step())
    assert seen[0] > step
    assert seen[1] > step

    replaced, between = set(), {"server": set(), "worker": set()}
    for event in events():
        pod, name = event["object"], event["object"]["metadata"]["name"]
        role = name.partition("-")[0]
        if name not in old:
            continue
        if pod["metadata"]["uid"] == old[name]["metadata"]["uid"]:
            if "deletionTimestamp" in pod["metadata"]:
                between[role].add(name)
        elif name not in replaced and is_ready(pod):
            replaced.add(name)
            between[role].remove(name)
        assert len(between[role]) <= 1, between
    assert replaced == old.keys()
    for server in node.cluster.servers:
        assert node.resumed(server) >= step
    node.wait_for_all()


def test_a_key_is_replaced_while_the_training_goes_on(node: Node) -> None:
    """By docs/operations.md: files, ConfigMap, the others, Secrets, and last the node itself."""
    step = node.wait_for_all()
    file = node.folder / "cluster.toml"
    run(BIN / "byzsgd", "keys", "rotate", file, "worker-3")
    new = node.cluster = read_cluster(file)
    member = new.node("worker-3")
    assert member is not None
    node.apply(objects(node))
    for server in new.servers:
        line = 'until grep -qF -- "$KEY" /cluster/cluster.toml; do sleep 1; done; kill -HUP 1'
        command = f"KEY='{member.public_key}'; {line}"
        node.kubectl("exec", server, "--", "sh", "-c", command)

    def silence() -> bool:
        peers = node.statuses().get("server-0", {}).get("peers", {})
        return (peers.get("worker-3", {}).get("last_seen_seconds") or 0) > 5

    node.wait_for("silence", silence)
    node.kubectl("apply", "--server-side", "-k", node.folder / "keys")
    node.kubectl("delete", "pod", "worker-3")
    node.wait_for_step(step + 10, "worker-3", "server-0")


def test_all_are_stopped_and_go_on_where_they_were(node: Node) -> None:
    """As for a change of the cluster file: everybody stops, and starts with the new one."""
    step = node.wait_for_all()
    node.kubectl("scale", "statefulset/server", "statefulset/worker", "--replicas=0")
    node.wait_for("nobody", lambda: not node.pods("server") and not node.pods("worker"))
    node.apply(objects(node))
    node.wait_for_all()
    found = [node.resumed(server) for server in node.cluster.servers]
    assert min(found) >= step


def test_the_model_is_as_good_as_it_should_be(node: Node) -> None:
    """After all that, and under attack all the time; fetched by the operator's pod."""
    node.wait_for_all()
    node.kubectl("rollout", "status", "deployment/operator", "--timeout=300s")
    command = ("byzsgd", "fetch", "/tmp/model.safetensors")
    told = node.kubectl("exec", "deploy/operator", "--", *command)
    accuracy = float(told.split()[-1])
    assert accuracy >= ACCURACY_LEAST, told
