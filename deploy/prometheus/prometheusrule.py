"""The rules beside this file as objects of the Prometheus operator, in prometheusrule.yaml.

python3 deploy/prometheus/prometheusrule.py

Run it after a change of recording.yml or alerts.yml. Needs Python 3.11 and nothing else.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
FILES = ("recording", "alerts")

HEAD = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: byzsgd-{}
  labels:
    app.kubernetes.io/name: byzsgd
spec:
"""


def text() -> str:
    """What the file holds: an object for each file of rules, its text as it is, but indented."""
    objects = []
    for name in FILES:
        lines = (FOLDER / f"{name}.yml").read_text().splitlines()
        rules = "".join(f"  {line}\n" if line else "\n" for line in lines)
        objects.append(HEAD.format(name) + rules)
    return "# Written by prometheusrule.py: change recording.yml or alerts.yml.\n" + "---\n".join(
        objects
    )


if __name__ == "__main__":
    (FOLDER / "prometheusrule.yaml").write_text(text())
