"""A real Prometheus watches a real cluster by what lies in deploy: dashboards and alerts."""

import asyncio
import json
import re
import runpy
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.rig import LOOK_SECONDS, PATIENCE_SECONDS, Rig

from byzsgd_daemons.local import Drill

DEPLOY = Path(__file__).parents[2] / "deploy"

PLAN = {"task": "quadratic", "steps": 0, "servers": 5, "workers": 4}

BUSY = {"ByzsgdEventLoopSlow", "ByzsgdNodeDown"}
"""What is true of daemons on a machine that has too much to do."""

CRITICAL = {"ByzsgdQuorumLost", "ByzsgdNoProgress"}

EMPTY = {"Alerts that fire", "Not sent", "Rounds missed", "Pulls per step",
         "Models refused by a filter"}  # fmt: skip
"""Panels that have nothing to show of a clean asynchronous run."""

PROGRAMS = ("prometheus", "prometheus-alertmanager")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)),
        reason=f"NOT TESTED: not all there; apt-get install {' '.join(PROGRAMS)}",
    ),
]


@dataclass(frozen=True)
class Watch:
    """A Prometheus and an Alertmanager, by their addresses."""

    prometheus: str
    alertmanager: str

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query gives now."""
        words = urllib.parse.urlencode({"query": query})
        answer = await get(f"http://{self.prometheus}/api/v1/query?{words}")
        return json.loads(answer)["data"]["result"]

    async def alerts(self, state: str) -> set[tuple[str, str]]:
        """The alerts of a state, now or before, each with the node that it names."""
        found = await self.ask(f'max_over_time(ALERTS{{alertstate="{state}"}}[1h])')
        return {(each["metric"]["alertname"], each["metric"].get("node", "")) for each in found}

    async def told(self) -> set[tuple[str, str]]:
        """The alerts that Alertmanager tells of, each with the node that it names."""
        answer = await get(f"http://{self.alertmanager}/api/v2/alerts?inhibited=false")
        labels = [each["labels"] for each in json.loads(answer)]
        return {(each["alertname"], each.get("node", "")) for each in labels}


async def get(url: str) -> bytes:
    """The answer at an address, once there is one."""

    def look() -> bytes:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read()

    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await asyncio.to_thread(look)
            except OSError:
                await asyncio.sleep(LOOK_SECONDS)


def free_address() -> str:
    """A loopback address that nothing listens on now."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{port.getsockname()[1]}"


@asynccontextmanager
async def process(*words: str | Path, log: Path) -> AsyncIterator[None]:
    """A program, while it is needed."""
    with log.open("wb") as file:
        started = await asyncio.create_subprocess_exec(*words, stdout=file, stderr=file)
    try:
        yield
    finally:
        started.terminate()
        await started.wait()


@asynccontextmanager
async def watching(rig: Rig, folder: Path, *, patient: bool) -> AsyncIterator[Watch]:
    """Both with the configuration of deploy, but that Prometheus looks every other second.

    Args:
        rig: The cluster.
        folder: For its files.
        patient: Whether alerts take the time that they say, or two seconds.
    """
    folder.mkdir()
    source = DEPLOY / "prometheus"
    watch = Watch(free_address(), free_address())
    for file in ("prometheus.yml", "recording.yml", "alerts.yml"):
        text = re.sub(
            r"(scrape|evaluation)_interval: \S+", r"\1_interval: 2s", (source / file).read_text()
        )
        text = text.replace("127.0.0.1:9093", watch.alertmanager)
        text = text if patient else re.sub(r" for: \S+", " for: 2s", text)
        (folder / file).write_text(text)
    script = [source / "targets.py", rig.file, "--out", folder / "targets" / "x.json"]
    done = await asyncio.create_subprocess_exec(sys.executable, *script)
    assert await done.wait() == 0
    prometheus = process(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={watch.prometheus}",
        log=folder / "prometheus.log",
    )
    alertmanager = process(
        "prometheus-alertmanager",
        f"--config.file={source / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={watch.alertmanager}",
        "--cluster.listen-address=",
        log=folder / "alertmanager.log",
    )
    async with alertmanager, prometheus:
        await get(f"http://{watch.alertmanager}/-/ready")
        await get(f"http://{watch.prometheus}/-/ready")
        yield watch


def panels() -> dict[str, list[str]]:
    """Every query of the dashboards for a server or for a worker, by panel."""
    found = {}
    for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                if panel["title"] in EMPTY:
                    continue
                query = target["expr"].replace("$__rate_interval", "20s")
                query = query.replace("$cluster", "cluster")
                both = [query.replace("$node", node) for node in ("s0", "w0")]
                found[f"{file.stem}: {panel['title']} {target['refId']}"] = both
    return found


def draw(prometheus: str, out: Path) -> list[str]:
    """The titles of the panels that have nothing to show in a picture of the overview."""
    script = runpy.run_path(str(DEPLOY / "grafana" / "draw.py"))
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "overview.json").read_text())
    source = script["Prometheus"](f"http://{prometheus}", 60.0, {"__rate_interval": "20s"})
    return script["draw"](board, source, out)


def test_a_clean_cluster_fills_the_dashboards_and_sets_off_no_alert(running, tmp_path) -> None:
    """Every query returns data, for a server or for a worker, and is drawn; no alert pends."""

    async def main() -> None:
        async with running(**PLAN) as rig:
            for server in rig.cluster.servers:
                state = str(tmp_path / server)
                await rig.start(server, more=("--state", state, "--checkpoint-period", "50"))
            await rig.start(*rig.cluster.workers)
            await rig.wait_for_step(60, *rig.cluster.servers, *rig.cluster.workers)
            async with watching(rig, tmp_path / "prometheus", patient=True) as watch:
                missing = panels()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while missing:
                        for title, queries in [*missing.items()]:
                            answers = [await watch.ask(query) for query in queries]
                            if any(answers):
                                del missing[title]
                        await asyncio.sleep(LOOK_SECONDS)

                drawn = await asyncio.to_thread(draw, watch.prometheus, tmp_path / "overview.png")
                assert set(drawn) <= EMPTY
                assert await watch.alerts("firing") == set()
                pending = await watch.alerts("pending")
                assert {alert for alert in pending if alert[0] not in BUSY} == set()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("attack", "alert"), [("nan", "ByzsgdLies"), ("sign-flip", "ByzsgdWorkerLeftOut")]
)
def test_alerts_name_the_liar_and_nobody_else(running, tmp_path, attack, alert) -> None:
    """It is accused of what it does; its missing HTTP port shows, too."""

    async def main() -> None:
        async with running(**PLAN) as rig:
            drill = Drill(attack=attack)
            await rig.start(*rig.cluster.servers, "w0", "w1", "w2")
            await rig.daemons.start_liars(frozenset({"w3"}), drill, rig.theta_0)
            await rig.wait_for_step(60, *rig.cluster.servers)
            async with watching(rig, tmp_path / "prometheus", patient=False) as watch:
                wanted = {(alert, "w3"), ("ByzsgdNodeDown", "w3")}
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not wanted <= await watch.alerts("firing"):
                        await asyncio.sleep(LOOK_SECONDS)
                    while not wanted <= await watch.told():
                        await asyncio.sleep(LOOK_SECONDS)
                firing = await watch.alerts("firing")

                # Who says nothing but NaN says nothing: it is called silent, too.
                named = {node for name, node in firing if name not in BUSY}
                assert named & set(rig.cluster.workers) == {"w3"}
                assert {name for name, _ in firing}.isdisjoint(CRITICAL)

    asyncio.run(main())
