"""The dashboards are what Grafana takes, ask for what nodes show, and can be read."""

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.samples import Sample
from tests.deploy import promql

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("dashboards/*.json")}
RECORDING = ROOT / "deploy" / "prometheus" / "recording.yml"
NPM = Path(__file__).parent / "grafana"

VARIABLE = re.compile(r"\$\{?(\w+)\}?")
every_dashboard = pytest.mark.parametrize("name", sorted(DASHBOARDS))


def panels(name: str) -> list[dict[str, Any]]:
    """The panels of a dashboard that show something."""
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def queries(name: str) -> Iterator[tuple[str, str]]:
    """Every query of a dashboard, with its panel's title."""
    for panel in panels(name):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def filled(query: str, node: str = "s0") -> str:
    """A query with a value for every variable."""
    values = {"cluster": "c", "node": node, "__rate_interval": "1m"}
    return VARIABLE.sub(lambda found: values[found[1]], query)


def series(shown: Mapping[str, Sequence[Sample]]) -> Iterator[dict[str, str]]:
    """What a Prometheus has of nodes that show the same all the time, but that counters rise."""
    for node, samples in shown.items():
        target = {"cluster": "c", "node": node, "instance": f"{node}:9100", "job": "byzsgd"}
        up = Sample("up", {}, 0.0 if node == "w0" else 1.0)
        for sample in (*samples, up):
            labels = {**target, **sample.labels}
            rises = sample.name.endswith(("_total", "_bucket", "_count", "_sum"))
            shape = "+1x60" if rises else "x60"
            pairs = ", ".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
            yield {"series": f"{sample.name}{{{pairs}}}", "values": f"{float(sample.value)}{shape}"}


def test_there_is_an_overview_and_one_for_each_node() -> None:
    """With ids of their own: links and users remember them."""
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == {
        "overview": "byzsgd-overview",
        "node": "byzsgd-node",
    }
    [variable] = [v for v in DASHBOARDS["node"]["templating"]["list"] if v["name"] == "node"]
    assert "byzsgd_build_info" in variable["query"]["query"]


@every_dashboard
def test_a_dashboard_is_what_its_script_writes(name: str) -> None:
    """After a change: python3 deploy/grafana/build.py."""
    assert runpy.run_path(str(FOLDER / "build.py"))[name]() == DASHBOARDS[name]


@every_dashboard
def test_panels_can_be_read(name: str) -> None:
    """Each has a title of its own, a unit, and a sentence that says what it shows."""
    every = panels(name)

    assert len(every) > 15
    assert len({panel["title"] for panel in every}) == len(every)
    for panel in every:
        assert panel["title"]
        assert re.fullmatch(r"[0-9A-Z`].+\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] in ("timeseries", "bargauge"):
            assert all(target["legendFormat"] != "__auto" for target in panel["targets"])


@every_dashboard
def test_panels_have_ids_and_places_of_their_own(name: str) -> None:
    """None lies on another or beyond the edge; headings are there, too."""
    every = DASHBOARDS[name]["panels"]
    ids = [panel["id"] for panel in every]
    places = [panel["gridPos"] for panel in every]

    assert len(set(ids)) == len(ids)
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


@every_dashboard
def test_queries_ask_for_what_nodes_show(name: str, exported: Mapping[str, frozenset[str]]) -> None:
    """Metrics and labels that nodes export or rules record, and the labels of legends."""
    recorded = frozenset(promql.RECORD.findall(RECORDING.read_text()))
    alerts = {"ALERTS": frozenset({"alertname", "alertstate"})}
    known = {**exported, **alerts}
    labels = promql.TARGET_LABELS.union(*exported.values())
    legends = {
        label
        for panel in panels(name)
        for target in panel["targets"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    }

    wrong = [(title, promql.unknown(query, known, recorded)) for title, query in queries(name)]
    assert [each for each in wrong if each[1]] == []
    assert legends - labels == set()


@every_dashboard
def test_queries_use_variables_that_the_dashboard_has(name: str) -> None:
    """And Grafana's own interval; every query is of the chosen cluster."""
    own = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}

    for title, query in queries(name):
        assert set(VARIABLE.findall(query)) <= own | {"__rate_interval"}, title
        for selector in re.findall(r"\{([^}]*)\}", query):
            assert 'cluster="$cluster"' in selector, title
    assert own >= {"datasource", "cluster"}


@every_dashboard
def test_lines_lead_to_the_node_that_they_are_named_by(name: str) -> None:
    """By the label of their legend, to the other dashboard's own variables."""
    links = {
        panel["title"]: link["url"]
        for panel in panels(name)
        for link in panel["fieldConfig"]["defaults"].get("links", [])
    }
    own = {f"var-{v['name']}=" for v in DASHBOARDS["node"]["templating"]["list"]}

    assert len(links) > 5
    for panel in panels(name):
        legends = " ".join(target["legendFormat"] for target in panel["targets"])
        labels = re.findall(r"\{\{(node|peer|worker|server)\}\}", legends)
        assert bool(labels) == (panel["title"] in links)
        if labels:
            url = links[panel["title"]]
            assert url.startswith(f"/d/{DASHBOARDS['node']['uid']}?")
            assert f"${{__field.labels.{labels[0]}}}" in url
            assert set(re.findall(r"var-\w+=", url)) <= own


@every_dashboard
def test_queries_are_promql(name: str, tmp_path: Path) -> None:
    """As promtool says, which reads them as rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("NOT TESTED: no promtool here; apt-get install prometheus")
    rules = [
        {"record": f"panel:number_{index}:query", "expr": filled(query)}
        for index, (_, query) in enumerate(queries(name))
    ]
    file = tmp_path / "queries.yml"  # JSON is YAML, too.
    file.write_text(json.dumps({"groups": [{"name": name, "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", file], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@every_dashboard
def test_queries_find_data(
    name: str, shown: Mapping[str, Sequence[Sample]], tmp_path: Path
) -> None:
    """Of what nodes export there is something in every panel, for one of the nodes at least."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("NOT TESTED: no promtool here; apt-get install prometheus")
    asked = [*queries(name), ("none of the panels", 'byzsgd_node_step{cluster="another"}')]
    questions = [
        " or ".join(f"count({filled(query, node)})" for node in shown) + " or vector(0)"
        for _, query in asked
    ]
    one = [{"labels": "{}", "value": 1}]
    expected = [{"expr": f"({each}) > bool 0", "eval_time": "8m", "exp_samples": one}
                for each in questions]  # fmt: skip
    test = {"interval": "15s", "input_series": list(series(shown)), "promql_expr_test": expected}
    rules = [str(RECORDING), str(RECORDING.with_name("alerts.yml"))]
    file = tmp_path / "test.yml"
    file.write_text(
        json.dumps({"rule_files": rules, "evaluation_interval": "15s", "tests": [test]})
    )
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    text = done.stdout + done.stderr
    empty = [title for (title, _), each in zip(asked, questions, strict=True)
             if json.dumps(f"({each}) > bool 0", ensure_ascii=False) in text]  # fmt: skip

    assert done.returncode == 1
    assert empty == ["none of the panels"], text[:2000]


def types(name: str) -> str:
    """A TypeScript program that is well typed if the dashboard is what Grafana's schema says."""
    package = NPM / "node_modules" / "@grafana" / "schema"
    exports = json.loads((package / "package.json").read_text())["exports"]
    board = {key: value for key, value in DASHBOARDS[name].items() if key != "panels"}
    kinds = sorted({panel["type"] for panel in panels(name)})
    lines = [
        "import type { Dashboard, Panel, RowPanel } from '@grafana/schema';",
        # Enumerations are written as their values, and every field has a default.
        "type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[]",
        "  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
        "type Some<T> = Plain<{ [K in keyof T]?: T[K] }>;",
        f"export const board: Plain<Omit<Dashboard, 'panels'>> = {json.dumps(board)};",
    ]
    declared = {}
    for kind in kinds:
        [path] = [key for key in exports if f"/composable/{kind}/panelcfg/" in key]
        declared[kind] = (package / exports[path]["types"]).read_text()
        lines.append(f"import type * as {kind} from '@grafana/schema/{path.removeprefix('./')}';")
    for panel in DASHBOARDS[name]["panels"]:
        number, kind = panel["id"], panel["type"]
        sort = "RowPanel" if kind == "row" else "Panel"
        lines.append(f"export const panel{number}: Plain<{sort}> = {json.dumps(panel)};")
        if kind == "row":
            continue
        custom = panel["fieldConfig"]["defaults"]["custom"]
        options = json.dumps(panel["options"])
        lines.append(f"export const options{number}: Some<{kind}.Options> = {options};")
        if "interface FieldConfig" in declared[kind]:
            fields = json.dumps(custom)
            lines.append(f"export const custom{number}: Some<{kind}.FieldConfig> = {fields};")
        else:
            assert custom == {}, panel["title"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [*sorted(DASHBOARDS), "a wrong one"])
def test_dashboards_fit_grafanas_schema(name: str, tmp_path: Path) -> None:
    """The types that Grafana itself is written with, down to each panel's options."""
    compiler = NPM / "node_modules" / ".bin" / "tsc"
    if not compiler.exists() or shutil.which("node") is None:
        pytest.skip("NOT TESTED: no types of Grafana here; npm ci --prefix tests/deploy/grafana")
    wrong = name not in DASHBOARDS
    program = types("node" if wrong else name)
    if wrong:
        program = program.replace('"lineWidth"', '"lineWidht"')
    (tmp_path / "node_modules").symlink_to(NPM / "node_modules")
    (tmp_path / "check.ts").write_text(program)
    options = {"strict": True, "skipLibCheck": True, "noEmit": True, "module": "nodenext"}
    project = tmp_path / "tsconfig.json"
    project.write_text(json.dumps({"compilerOptions": options, "files": ["check.ts"]}))
    done = subprocess.run(
        [compiler, "--project", project], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode != 0) is wrong, done.stdout
    assert ("lineWidht" in done.stdout) is wrong


def test_provisioning_names_what_is_there() -> None:
    """A source of the kind that the dashboards ask, and a folder for them."""
    source = (FOLDER / "provisioning" / "datasources" / "byzsgd.yml").read_text()
    provider = (FOLDER / "provisioning" / "dashboards" / "byzsgd.yml").read_text()
    kinds = {board["templating"]["list"][0]["query"] for board in DASHBOARDS.values()}

    assert kinds == set(re.findall(r"^ +type: (\w+)", source, re.MULTILINE)) == {"prometheus"}
    assert re.search(r"^ +path: /\S+", provider, re.MULTILINE)
    scrape = re.search(r"scrape_interval: (\S+)", RECORDING.with_name("prometheus.yml").read_text())
    assert scrape is not None
    assert f"timeInterval: {scrape[1]} " in source
