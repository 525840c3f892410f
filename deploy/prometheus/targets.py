"""The nodes of a cluster file as targets for Prometheus, which reads them anew when they change.

python3 targets.py cluster.toml --out /etc/prometheus/targets/mine.json

Needs Python 3.11 and nothing else, so that it runs where Prometheus does. Every node with an `http`
address is a target, with the labels `cluster`, `node` and `role` that rules and dashboards want.
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path

ROLES = ("server", "worker")
ANYWHERE = ("0.0.0.0", "[::]")  # noqa: S104


def targets(file: Path, cluster: str) -> list[dict[str, object]]:
    """The entries of a file for Prometheus' file_sd, one a node.

    Args:
        file: The cluster file.
        cluster: The cluster's name, for those who watch several.

    Raises:
        ValueError: If it is no cluster file, or a node's address is none to ask.
    """
    found = []
    for node in tomllib.loads(file.read_text()).get("nodes", []):
        if node.get("role") not in ROLES:
            continue
        if not node.get("http"):
            print(f"{node['id']} has no http address: not watched", file=sys.stderr)
            continue
        if node["http"].rpartition(":")[0] in ANYWHERE:
            raise ValueError(f"{node['id']}: http: {node['http']} is no address to ask")
        labels = {"cluster": cluster, "node": node["id"], "role": node["role"]}
        found.append({"targets": [node["http"]], "labels": labels})
    if not found:
        raise ValueError("no node with an http address")
    return found


def main() -> int:
    """Write the targets that the command line asks for; return the exit status."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("file", type=Path, metavar="cluster.toml")
    words.add_argument("--cluster", help="its name (default: that of the file's folder)")
    words.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    arguments = words.parse_args()
    try:
        cluster = arguments.cluster or arguments.file.resolve().parent.name
        text = json.dumps(targets(arguments.file, cluster), indent=2) + "\n"
        if arguments.out is None:
            print(text, end="")
        else:  # Whole or not at all: Prometheus may be reading.
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            partial = arguments.out.with_suffix(".partial")
            partial.write_text(text)
            partial.replace(arguments.out)
    except (OSError, ValueError) as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
