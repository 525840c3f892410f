"""Makes a cluster's folder one that kubectl can apply, out of its cluster.toml.

    byzsgd init mine --kubernetes
    python3 deploy/kubernetes/overlay.py mine local operator
    kubectl apply --server-side -k mine/keys
    kubectl apply -k mine

Writes mine/kustomization.yaml, which holds no secret, and mine/keys/kustomization.yaml, which makes
Secrets of the keys. Run it again after a change of cluster.toml. Needs Python 3.11 and no package.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

ROLES = ("server", "worker")

KINDS = {"base": HERE / "base"} | {kind: HERE / "overlays" / kind for kind in ("gpu", "local")}
"""Of these a cluster is one."""

BESIDES = {name: HERE / "overlays" / name for name in ("monitoring", "operator")}
"""Of these it may have any."""

COMPONENTS = {name: HERE / "components" / name for name in ("few-machines", "few-zones")}
"""These change what it is."""

PORTS = {"address": 7000, "http": 9100}
"""Where pods listen, as the manifests say."""

SPREAD = "/spec/template/spec/topologySpreadConstraints"


@dataclass(frozen=True)
class Folder:
    """A cluster's folder, and what is wanted of it."""

    path: Path
    cluster: dict[str, Any]
    words: tuple[str, ...]
    namespace: str
    image: str | None

    def nodes(self, role: str) -> list[str]:
        """The identities of a role, which are those of the pods of one StatefulSet.

        Raises:
            ValueError: If they are not, or if a node is reached elsewhere than its pod.
        """
        found = {node["id"]: node for node in self.cluster["nodes"] if node["role"] == role}
        pods = [f"{role}-{index}" for index in range(len(found))]
        if not pods or found.keys() != set(pods):
            raise ValueError(f"its {role}s must be called {role}-0, {role}-1, ..., as their pods")
        for pod in pods:
            for key in ("address", "http") if role == "server" else ("http",):
                if found[pod].get(key) != (wanted := f"{pod}.{role}:{PORTS[key]}"):
                    raise ValueError(f"the {key} of {pod} must be {wanted}")
        return pods

    def code(self) -> list[str]:
        """The file of the task, if it is the user's own.

        Raises:
            ValueError: If it does not lie beside the cluster file: a ConfigMap has no folders.
        """
        file = self.cluster["task"].partition(":")[0]
        if not file.endswith(".py"):
            return []
        if "/" in file or not (self.path / file).is_file():
            raise ValueError(f"task: {file} must lie beside the cluster file")
        return [file]

    def kustomization(self) -> str:
        """What the overlays say, with the numbers of this cluster.

        Raises:
            ValueError: If the cluster file does not suit pods, or the words do not go together.
        """
        known = KINDS.keys() | BESIDES.keys() | COMPONENTS.keys()
        if unknown := sorted(set(self.words) - known):
            raise ValueError(f"{unknown[0]} is none of {', '.join(sorted(known))}")
        kinds = [path for word, path in KINDS.items() if word in self.words] or [KINDS["base"]]
        if len(kinds) > 1:
            raise ValueError(f"a cluster is one of {', '.join(KINDS)}")
        components = [path for word, path in COMPONENTS.items() if word in self.words]
        if components and kinds == [KINDS["local"]]:
            raise ValueError("local has all components in it")
        resources = kinds + [path for word, path in BESIDES.items() if word in self.words]
        text = self._head()
        text += _listed("resources", (relpath(path, self.path) for path in resources))
        text += _listed("components", (relpath(path, self.path) for path in components))
        # No suffixes: nodes read the file again in place, and a change restarts nobody by itself.
        text += "generatorOptions:\n  disableNameSuffixHash: true\n"
        text += "configMapGenerator:\n" + _files("cluster", ["cluster.toml", *self.code()])
        text += _listed("images", self._images())
        sizes = {role: len(self.nodes(role)) for role in ROLES}
        text += _listed("replicas", (f"{{name: {role}, count: {sizes[role]}}}" for role in ROLES))
        text += "patches:\n"
        for role in ROLES:
            f = self.cluster[f"f_{role}s"]
            text += _patch("PodDisruptionBudget", role, {"/spec/maxUnavailable": f})
            # None on a machine would be nowhere.
            skews = {f"{SPREAD}/{index}/maxSkew": max(f, 1) for index in range(2)}
            text += _patch("StatefulSet", role, skews)
        return text

    def secrets(self) -> str:
        """A Secret for each kind of node, with a file for each node whose key is there."""
        text = self._head()
        text += _listed("resources", [relpath(HERE / "namespace", self.path / "keys")])
        text += "generatorOptions:\n  disableNameSuffixHash: true\nsecretGenerator:\n"
        for role in (*ROLES, "operator"):
            ids = [node["id"] for node in self.cluster["nodes"] if node["role"] == role]
            keys = [f"{each}.key" for each in ids if (self.path / "keys" / f"{each}.key").is_file()]
            text += _files(f"{role}-keys", keys) if keys else ""
        return text

    def _head(self) -> str:
        return (
            f"# Written by deploy/kubernetes/overlay.py FOLDER {' '.join(self.words)}\n"
            "# Run that again after a change of cluster.toml.\n"
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
            f"namespace: {self.namespace}\n"
        )

    def _images(self) -> Iterable[str]:
        if self.image is None:
            return
        name, _, tag = self.image.rpartition(":")
        if not name or "/" in tag:
            raise ValueError(f"--image {self.image}: must be NAME:TAG")
        for suffix in ("", "-cuda"):
            yield f'{{name: byzsgd{suffix}, newName: {name}{suffix}, newTag: "{tag}"}}'


def _listed(key: str, items: Iterable[str]) -> str:
    lines = "".join(f"  - {item}\n" for item in items)
    return f"{key}:\n{lines}" if lines else ""


def _files(name: str, files: Iterable[str]) -> str:
    return f"  - name: {name}\n    files:\n" + "".join(f"      - {file}\n" for file in files)


def _patch(kind: str, name: str, values: dict[str, int]) -> str:
    return f"  - target:\n      kind: {kind}\n      name: {name}\n    patch: |-\n" + "".join(
        f"      - {{op: replace, path: {path}, value: {value}}}\n" for path, value in values.items()
    )


def main() -> int:
    """Write what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of cluster.toml and keys/")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help=f"one of {', '.join(KINDS)} (default: base), any of {', '.join(BESIDES)}, and with "
        f"base or gpu any of {', '.join(COMPONENTS)}",
    )
    parser.add_argument("--namespace", default="byzsgd", help="default: byzsgd")
    parser.add_argument(
        "--image", metavar="NAME:TAG", help="default: byzsgd:0.1.0. GPUs take NAME-cuda:TAG"
    )
    given = parser.parse_args()
    path = given.folder.resolve()
    try:
        cluster = tomllib.loads((path / "cluster.toml").read_text())
        folder = Folder(path, cluster, tuple(given.words), given.namespace, given.image)
        texts = {path / "kustomization.yaml": folder.kustomization()}
        if (path / "keys").is_dir():
            texts[path / "keys" / "kustomization.yaml"] = folder.secrets()
        for file, text in texts.items():
            file.write_text(text)
    except KeyError as error:
        print(f"{given.folder}: cluster.toml has no {error}: byzsgd check it", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{given.folder}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
