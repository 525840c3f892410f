"""Writes the dashboards beside it: python3 build.py. What they ask stands here, once.

Needs Python alone. A panel is what it is, how wide, what it says and asks; where it stands follows.
What is said of a cluster is the median of its servers, as in ../prometheus/recording.yml.
"""

import json
import re
from pathlib import Path
from typing import Any

Json = dict[str, Any]

WIDTH = 24
"""Columns of a Grafana dashboard."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}

CLUSTER = 'cluster="$cluster"'
NODE = 'cluster="$cluster", node="$node"'
SERVERS = f'and on (instance) byzsgd_build_info{{{CLUSTER}, role="server"}}'
HARMLESS = "late|stale|duplicate|behind"
"""Reasons to refuse that a slow or lossy network causes."""

TO_NODE = (
    "/d/byzsgd-node?var-cluster=${{cluster}}&var-node=${{__field.labels.{}}}&${{__url_time_range}}"
)
"""Where a click on a line leads that is named by a label."""

GREEN, ORANGE, RED = "green", "orange", "red"


def stat(
    title: str,
    description: str,
    query: str,
    unit: str = "none",
    *,
    name_only: bool = False,
    **more: Any,
) -> Json:
    """One number, or a few, in large letters; or the names of those that there are."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none" if name_only else "area",
        "textMode": "name" if name_only else "auto",
    }
    panel = _panel("stat", title, description, [query], unit, options, {},
                   width=4, height=4, **more)  # fmt: skip
    return _now(panel) if name_only else panel


def lines(
    title: str,
    description: str,
    query: str | list[str],
    unit: str,
    legend: str | list[str],
    **more: Any,
) -> Json:
    """Lines over time."""
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom: Json = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "never"}
    if more.get("steps"):
        custom["thresholdsStyle"] = {"mode": "line"}
    if more.pop("logarithmic", False):
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    queries = [query] if isinstance(query, str) else query
    return _panel("timeseries", title, description, queries, unit, options, custom,
                  legend=legend, **more)  # fmt: skip


def bars(title: str, description: str, query: str, unit: str, legend: str, **more: Any) -> Json:
    """A bar for each of those that can be compared."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
    }
    return _now(_panel("bargauge", title, description, [query], unit, options, {},
                       legend=legend, **more))  # fmt: skip


def table(title: str, description: str, query: str, hidden: list[str], **more: Any) -> Json:
    """A row for each series, a column for each label but the hidden ones."""
    panel = _panel("table", title, description, [query], "none",
                   {"showHeader": True, "cellHeight": "sm"}, {"align": "auto"}, **more)  # fmt: skip
    panel["targets"][0]["format"] = "table"
    panel["transformations"] = [
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(["Time", "Value", "__name__", *hidden], True),
                "indexByName": {},
                "renameByName": {},
            },
        }
    ]
    return _now(panel)


def _now(panel: Json) -> Json:
    """The panel with what is there now, and nothing that only was."""
    for target in panel["targets"]:
        target |= {"instant": True, "range": False}
    return panel


def row(title: str) -> Json:
    """A heading."""
    size = {"width": WIDTH, "height": 1}
    return {"type": "row", "title": title, "collapsed": False, "panels": [], **size}


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: list[str],
    unit: str,
    options: Json,
    custom: Json,
    *,
    legend: str | list[str] = "__auto",
    width: int = 8,
    height: int = 8,
    steps: list[tuple[float | None, str]] | None = None,
    mappings: dict[str, tuple[str, str]] | None = None,
    empty: str | None = None,
    **defaults: Any,
) -> Json:
    legends = [legend] * len(queries) if isinstance(legend, str) else legend
    text = text_of(mappings or {})
    colours = [{"value": value, "color": colour} for value, colour in steps or [(None, GREEN)]]
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": name}
        for index, (query, name) in enumerate(zip(queries, legends, strict=True))
    ]
    mode = "palette-classic" if kind == "timeseries" else "thresholds"
    named = re.search(r"\{\{(node|peer|worker|server)\}\}", " ".join(legends))
    to_node = {"title": "This node", "url": TO_NODE.format(named[1])} if named else None
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "width": width,
        "height": height,
        "targets": targets,
        "options": options,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "color": {"mode": mode},
                "thresholds": {"mode": "absolute", "steps": colours},
                **({"links": [to_node]} if to_node else {}),
                **({"mappings": text} if text else {}),
                **({"noValue": empty} if empty else {}),
                "custom": custom,
                **defaults,
            },
            "overrides": [],
        },
    }


def text_of(words: dict[str, tuple[str, str]]) -> list[Json]:
    """What values are shown as: words, and a colour."""
    named = {value: {"text": text, "color": colour} for value, (text, colour) in words.items()}
    return [{"type": "value", "options": named}] if named else []


def dashboard(
    uid: str, title: str, description: str, panels: list[Json], variables: list[Json]
) -> Json:
    """A whole dashboard: its panels placed from left to right, line by line."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel["width"] > WIDTH or panel["type"] == "row":
            x, y, height = 0, y + height, 0
        height = max(height, panel["height"])
        panel["gridPos"] = {"x": x, "y": y, "w": panel.pop("width"), "h": panel.pop("height")}
        panel["id"] = number
        x += panel["gridPos"]["w"]
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["byzsgd"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "byzsgd",
                "tags": ["byzsgd"],
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": panels,
    }


def variable(name: str, label: str, query: str) -> Json:
    """A variable that Prometheus knows the values of."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 7,
        "includeAll": False,
        "multi": False,
    }


DATASOURCE: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Prometheus",
    "query": "prometheus",
}
OF_CLUSTER = variable("cluster", "Cluster", "label_values(byzsgd_build_info, cluster)")
OF_NODE = variable("node", "Node", f"label_values(byzsgd_build_info{{{CLUSTER}}}, node)")


def quantile(share: float, metric: str, by: str, where: str) -> str:
    """The query of a histogram's quantile."""
    buckets = f"sum by (le, {by}) (rate({metric}_bucket{{{where}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


def overview() -> Json:
    """Ten seconds' reading: is it training, how fast, who misbehaves, what is slow or at risk."""
    servers = f'byzsgd_build_info{{{CLUSTER}, role="server"}}'
    done = f'byzsgd_node_phase{{{CLUSTER}, phase="done"}} {SERVERS}'
    refused = f'byzsgd_node_refused_total{{{CLUSTER}, reason!~"{HARMLESS}"}}'
    every_peer = f"0 * max by (peer) (byzsgd_node_peer_silent{{{CLUSTER}}})"
    panels = [
        stat(
            "Is it training?",
            "Whether more than half of the servers have made a step within a minute, or are done.",
            f"(count({done}) > count({servers}) / 2) * 0 + 2 "
            f"or on () (cluster:byzsgd_node_steps:rate1m{{{CLUSTER}}} > bool 0)",
            mappings={"0": ("stands still", RED), "1": ("trains", GREEN), "2": ("done", "blue")},
            empty="no server answers",
        ),
        stat(
            "How fast?",
            "Steps a second over the last minute, median of the servers.",
            f"cluster:byzsgd_node_steps:rate1m{{{CLUSTER}}}",
            "suffix:steps/s",
            decimals=2,
        ),
        stat(
            "Where is it?",
            "The learning step that the cluster is at, median of the servers.",
            f"cluster:byzsgd_node_step:median{{{CLUSTER}}}",
            decimals=0,
        ),
        stat(
            "How far are servers apart?",
            "Euclidean distance between two servers' models before a gather, median of medians.",
            f"cluster:byzsgd_server_drift:median{{{CLUSTER}}}",
        ),
        stat(
            "What is at risk?",
            "How many more servers or workers may fall silent before nothing goes on. With 0 the "
            "next one stops the training, below it stands. Empty when the training is done.",
            f"cluster:byzsgd_node_quorum_margin:median{{{CLUSTER}}}",
            "suffix:in reserve",
            legend="{{of}}",
            steps=[(None, RED), (0, ORANGE), (1, GREEN)],
            empty="done",
            decimals=0,
        ),
        stat(
            "Alerts",
            "How many alerts fire for this cluster.",
            f'count(ALERTS{{{CLUSTER}, alertstate="firing"}}) or vector(0)',
            steps=[(None, GREEN), (1, RED)],
        ),
        row("Is it training, and how fast?"),
        lines(
            "Step of every node",
            "One line where all keep in step; a line below the others is a node that fell behind.",
            f"byzsgd_node_step{{{CLUSTER}}}",
            "none",
            "{{node}}",
        ),
        lines(
            "Steps a second",
            "Of every node. A server that stands still while others go on is on its own.",
            f"rate(byzsgd_node_steps_total{{{CLUSTER}}}[$__rate_interval])",
            "suffix:steps/s",
            "{{node}}",
        ),
        lines(
            "Loss",
            "On each worker's last mini-batch, and their median. A liar may show any.",
            [f"byzsgd_worker_loss{{{CLUSTER}}}", f"quantile(0.5, byzsgd_worker_loss{{{CLUSTER}}})"],
            "none",
            ["{{node}}", "median"],
        ),
        row("How far do servers drift?"),
        lines(
            "Drift",
            "Median distance from each server's model to its peers' before a gather. Steady or "
            "falling is well; growing on all is a rate too large or gathers too rare.",
            f"byzsgd_server_drift_median{{{CLUSTER}}}",
            "none",
            "{{node}}",
        ),
        lines(
            "What a gather does",
            "Distance of the votes to the contracted model over that to the own before: below 1 it "
            "brought servers together.",
            f"byzsgd_server_contraction_ratio{{{CLUSTER}}}",
            "percentunit",
            "{{node}}",
            steps=[(None, GREEN), (0.95, RED)],
        ),
        lines(
            "Variance condition",
            "Left side over right side: above 1 MDA promises nothing. Near the end of a training, "
            "where gradients vanish, it always rises.",
            f"byzsgd_server_variance_ratio{{{CLUSTER}}}",
            "none",
            "{{node}}",
            steps=[(None, GREEN), (1, RED)],
            logarithmic=True,
        ),
        row("Who misbehaves?"),
        bars(
            "Left out by the rule",
            "Share of each worker's votes that the rule did not select in ten minutes, median of "
            "the servers. Chance leaves out f of q.",
            f"worker:byzsgd_server_left_out:ratio10m{{{CLUSTER}}}",
            "percentunit",
            "{{worker}}",
            steps=[(None, GREEN), (0.5, ORANGE), (0.8, RED)],
            min=0,
            max=1,
        ),
        bars(
            "Refused, and not for being late",
            "Messages of each peer that no correct node sends or that were turned away, within ten "
            "minutes, as all nodes together say. One liar among them may accuse anybody.",
            f"sum by (peer) (increase({refused}[10m])) or {every_peer}",
            "short",
            "{{peer}}",
            steps=[(None, GREEN), (1, RED)],
            min=0,
        ),
        table(
            "Alerts that fire",
            "What to do about each stands in docs/operations.md.",
            f'ALERTS{{{CLUSTER}, alertstate="firing"}}',
            ["alertstate", "cluster", "instance", "job", "peer", "worker"],
            empty="none",
        ),
        row("What is slow?"),
        lines(
            "Waits for a quorum",
            "Nine in ten of each node's waits are shorter than this.",
            quantile(0.9, "byzsgd_node_quorum_wait_seconds", "node", CLUSTER),
            "s",
            "{{node}}",
        ),
        lines(
            "Work",
            "Nine in ten pieces of heavy work take less: aggregation by rule, and gradients.",
            quantile(0.9, "byzsgd_node_work_seconds", "kind", CLUSTER),
            "s",
            "{{kind}}",
        ),
        bars(
            "Waited for",
            "How many nodes lack each peer's vote, on average over a minute: the slow have the "
            "longest bars.",
            f"sum by (peer) (avg_over_time(byzsgd_node_waiting_for{{{CLUSTER}}}[1m]))",
            "suffix:nodes",
            "{{peer}}",
            min=0,
            decimals=1,
        ),
        lines(
            "Event loop",
            "How late each node's event loop is: an overloaded machine.",
            f"byzsgd_node_event_loop_lag_seconds{{{CLUSTER}}}",
            "s",
            "{{node}}",
            steps=[(None, GREEN), (0.5, RED)],
        ),
        lines(
            "Bytes",
            "Of messages, by kind and direction, of all nodes, before encryption.",
            "sum by (kind, direction) "
            f"(rate(byzsgd_node_message_bytes_total{{{CLUSTER}}}[$__rate_interval]))",
            "Bps",
            "{{kind}} {{direction}}",
        ),
        lines(
            "Late pulls",
            "Pulls a second of every node: something was late or lost. In the synchronous variant "
            "workers always pull.",
            f"rate(byzsgd_node_pulls_total{{{CLUSTER}}}[$__rate_interval])",
            "suffix:pulls/s",
            "{{node}}",
        ),
        row("What is at risk?"),
        lines(
            "Reserve",
            "Peers heard of in the last 10 s beyond the quorum, as each node sees it.",
            f"byzsgd_node_quorum_margin{{{CLUSTER}}}",
            "none",
            "{{of}}, says {{node}}",
            steps=[(None, RED), (0, ORANGE), (1, GREEN)],
        ),
        lines(
            "Last heard of",
            "Time since each peer was heard of, median of those who listen to it.",
            f"quantile by (peer) (0.5, byzsgd_node_peer_last_seen_seconds{{{CLUSTER}}})",
            "s",
            "{{peer}}",
        ),
        lines(
            "Age of checkpoints",
            "Time since each server wrote one: what a power cut of all servers would cost.",
            f"byzsgd_server_checkpoint_age_seconds{{{CLUSTER}}}",
            "s",
            "{{node}}",
            empty="no server keeps checkpoints",
        ),
        lines(
            "Memory",
            "Resident memory of every node. `byzsgd check` says what it may reach.",
            f"process_resident_memory_bytes{{{CLUSTER}}}",
            "bytes",
            "{{node}}",
        ),
        table(
            "Nodes",
            "Who runs what.",
            f"byzsgd_build_info{{{CLUSTER}}}",
            ["cluster", "job", "exported_role"],
            width=16,
        ),
    ]
    return dashboard(
        "byzsgd-overview",
        "byzsgd: overview",
        "Is it training, how fast, how far do servers drift, who misbehaves, what is at risk.",
        panels,
        [DATASOURCE, OF_CLUSTER],
    )


def node() -> Json:
    """Everything that one node shows of itself and of its peers."""

    def rate(metric: str) -> str:
        return f"rate({metric}{{{NODE}}}[$__rate_interval])"

    only_servers, only_workers, only_rounds = (
        {"empty": f"of {who} alone"} for who in ("servers", "workers", "the synchronous variant")
    )
    panels = [
        stat(
            "Phase",
            "What the node does now.",
            f"byzsgd_node_phase{{{NODE}}}",
            legend="{{phase}}",
            name_only=True,
        ),
        stat("Step", "The learning step that it is at.", f"byzsgd_node_step{{{NODE}}}", decimals=0),
        stat(
            "Behind",
            "Steps that it is behind the median of the servers. A worker may be one behind.",
            f"cluster:byzsgd_node_step:median{{{CLUSTER}}} "
            f"- on (cluster) byzsgd_node_step{{{NODE}}}",
            "suffix:steps",
            steps=[(None, GREEN), (10, ORANGE), (100, RED)],
            decimals=0,
        ),
        stat(
            "Speed",
            "Steps a second.",
            rate("byzsgd_node_steps_total"),
            "suffix:steps/s",
            decimals=2,
        ),
        stat(
            "Waits",
            "How long it has waited for a quorum now; 0 while it works.",
            f"max(byzsgd_node_waiting_seconds{{{NODE}}})",
            "s",
            steps=[(None, GREEN), (3, ORANGE), (30, RED)],
        ),
        stat(
            "Up for",
            "Time since the process started.",
            f"time() - process_start_time_seconds{{{NODE}}}",
            "s",
        ),
        row("Steps"),
        lines(
            "Waits for a quorum",
            "Half, nine in ten and 99 in a hundred of its waits are shorter.",
            [
                quantile(share, "byzsgd_node_quorum_wait_seconds", "node", NODE)
                for share in (0.5, 0.9, 0.99)
            ],
            "s",
            ["50 %", "90 %", "99 %"],
        ),
        lines(
            "Waits for now",
            "How long it has waited for what, at each look.",
            f"byzsgd_node_waiting_seconds{{{NODE}}}",
            "s",
            "{{what}}",
        ),
        lines(
            "Work",
            "Nine in ten pieces of heavy work take less, by kind.",
            quantile(0.9, "byzsgd_node_work_seconds", "kind", NODE),
            "s",
            "{{kind}}",
        ),
        row("Peers, as this node sees them"),
        bars(
            "Lacking",
            "Share of the last minute in which it lacked each peer's vote.",
            f"avg_over_time(byzsgd_node_waiting_for{{{NODE}}}[1m])",
            "percentunit",
            "{{peer}}",
            min=0,
            max=1,
        ),
        lines(
            "Last heard of",
            "Time since each peer was heard of; who was never heard of has no line.",
            f"byzsgd_node_peer_last_seen_seconds{{{NODE}}}",
            "s",
            "{{peer}}",
        ),
        lines(
            "Reserve",
            "Peers heard of in the last 10 s beyond the quorum.",
            f"byzsgd_node_quorum_margin{{{NODE}}}",
            "none",
            "{{of}}",
            steps=[(None, RED), (0, ORANGE), (1, GREEN)],
        ),
        lines(
            "Refused",
            "Messages that did not count, by sender and reason. Late and stale ones are normal.",
            rate("byzsgd_node_refused_total"),
            "suffix:/s",
            "{{peer}} {{reason}}",
            empty="nothing was refused",
        ),
        lines(
            "Not sent",
            "Messages dropped because the peer was away or its queue full.",
            rate("byzsgd_node_dropped_total"),
            "suffix:/s",
            "{{peer}} {{kind}}",
            empty="nothing was dropped",
        ),
        bars(
            "Silent, or with another cluster file",
            "1 for a peer that was there and says nothing any more, 2 where its file differs.",
            f"byzsgd_node_peer_silent{{{NODE}}} + 2 * byzsgd_node_peer_differs{{{NODE}}}",
            "none",
            "{{peer}}",
            steps=[(None, GREEN), (1, RED)],
            mappings={
                "0": ("well", GREEN),
                "1": ("silent", RED),
                "2": ("differs", RED),
                "3": ("silent, differs", RED),
            },
            min=0,
            max=3,
        ),
        row("Network and process"),
        lines(
            "Messages",
            "By kind and direction; a published one counts once.",
            rate("byzsgd_node_messages_total"),
            "suffix:/s",
            "{{kind}} {{direction}}",
        ),
        lines(
            "Bytes",
            "Of messages by kind and direction, before encryption.",
            rate("byzsgd_node_message_bytes_total"),
            "Bps",
            "{{kind}} {{direction}}",
        ),
        lines(
            "Pulls",
            "Pulls a second: something was late or lost, or a synchronous worker asked.",
            rate("byzsgd_node_pulls_total"),
            "suffix:/s",
            "pulls",
        ),
        lines(
            "CPU",
            "Cores that the process keeps busy.",
            rate("process_cpu_seconds_total"),
            "suffix:cores",
            "cores",
        ),
        lines(
            "Memory",
            "Resident. `byzsgd check` says what it may reach.",
            f"process_resident_memory_bytes{{{NODE}}}",
            "bytes",
            "resident",
        ),
        lines(
            "File descriptors and connections",
            "Descriptors in use, their limit, and servers that it is connected to.",
            [
                f"process_open_fds{{{NODE}}}",
                f"process_max_fds{{{NODE}}}",
                f"byzsgd_node_connected_peers{{{NODE}}}",
            ],
            "none",
            ["in use", "limit", "connected servers"],
            logarithmic=True,
        ),
        lines(
            "Event loop",
            "How late it was at the last look.",
            f"byzsgd_node_event_loop_lag_seconds{{{NODE}}}",
            "s",
            "late",
            steps=[(None, GREEN), (0.5, RED)],
        ),
        row("A server"),
        lines(
            "Drift",
            "Median and largest distance to the peers' models at the last gather.",
            [f"byzsgd_server_drift_median{{{NODE}}}", f"byzsgd_server_drift_max{{{NODE}}}"],
            "none",
            ["median", "largest"],
            logarithmic=True,
            **only_servers,
        ),
        lines(
            "What a gather does",
            "Distance of the votes to the contracted model over that to the own before.",
            f"byzsgd_server_contraction_ratio{{{NODE}}}",
            "percentunit",
            "ratio",
            steps=[(None, GREEN), (0.95, RED)],
            **only_servers,
        ),
        lines(
            "Variance condition",
            "Above 1 MDA promises nothing.",
            f"byzsgd_server_variance_ratio{{{NODE}}}",
            "none",
            "left side over right",
            steps=[(None, GREEN), (1, RED)],
            logarithmic=True,
            **only_servers,
        ),
        bars(
            "Left out by its rule",
            "Share of each worker's votes that it did not select, in ten minutes.",
            f"rate(byzsgd_server_left_out_total{{{NODE}}}[10m]) "
            f"/ (rate(byzsgd_server_votes_total{{{NODE}}}[10m]) > 0)",
            "percentunit",
            "{{worker}}",
            steps=[(None, GREEN), (0.5, ORANGE), (0.8, RED)],
            min=0,
            max=1,
            **only_servers,
        ),
        lines(
            "Votes",
            "How often each worker's gradient is in the quorum.",
            rate("byzsgd_server_votes_total"),
            "suffix:/s",
            "{{worker}}",
            **only_servers,
        ),
        lines(
            "Gathers and catch-ups",
            "A catch-up adopts the peers' models: it had fallen behind.",
            [rate("byzsgd_server_gathers_total"), rate("byzsgd_server_catch_ups_total")],
            "suffix:/s",
            ["gathers", "catch-ups"],
            **only_servers,
        ),
        lines(
            "Age of the checkpoint",
            "Time since the last one was written.",
            f"byzsgd_server_checkpoint_age_seconds{{{NODE}}}",
            "s",
            "age",
            empty="none is kept",
        ),
        lines(
            "Checkpoints not written",
            "By reason, and 1 while the last one was not.",
            [
                f"increase(byzsgd_server_checkpoint_failures_total{{{NODE}}}[10m])",
                f"byzsgd_server_checkpoint_failing{{{NODE}}}",
            ],
            "none",
            ["{{reason}}, in 10 minutes", "failing now"],
            empty="none is kept",
        ),
        row("A worker"),
        lines(
            "Loss",
            "On its last mini-batch, and the median of all workers.",
            [f"byzsgd_worker_loss{{{NODE}}}", f"quantile(0.5, byzsgd_worker_loss{{{CLUSTER}}})"],
            "none",
            ["loss", "median of all"],
        ),
        lines(
            "Examples",
            "That went into gradients.",
            rate("byzsgd_worker_samples_total"),
            "suffix:examples/s",
            "examples",
            **only_workers,
        ),
        lines(
            "Steps passed over",
            "Because newer models were there: it is slower than the quorum.",
            rate("byzsgd_worker_skipped_steps_total"),
            "suffix:steps/s",
            "passed over",
            **only_workers,
        ),
        row("The synchronous variant"),
        lines(
            "Rounds missed",
            "In which each peer was waited for in vain.",
            rate("byzsgd_node_missed_rounds_total"),
            "suffix:rounds/s",
            "{{peer}}",
            **only_rounds,
        ),
        lines(
            "Pulls per step",
            "That a worker pulls in a scatter: near n_ps / (n_ps - f_ps), more under attack.",
            f"{rate('byzsgd_worker_scatter_pulls_total')} "
            f"/ {rate('byzsgd_worker_scatter_steps_total')}",
            "none",
            "pulls",
            **only_rounds,
        ),
        lines(
            "Models refused by a filter",
            "By server and filter; and steps in which all were, so that their median was taken.",
            [rate("byzsgd_worker_filtered_total"), rate("byzsgd_worker_fallback_steps_total")],
            "suffix:/s",
            ["{{server}} {{filter}}", "all of them"],
            **only_rounds,
        ),
    ]
    return dashboard(
        "byzsgd-node",
        "byzsgd: node",
        "What one node shows of itself and of its peers. A liar may show anything.",
        panels,
        [DATASOURCE, OF_CLUSTER, OF_NODE],
    )


def main() -> None:
    """Write both dashboards."""
    folder = Path(__file__).parent / "dashboards"
    folder.mkdir(exist_ok=True)
    for each in (overview(), node()):
        text = json.dumps(each, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{each['uid'].removeprefix('byzsgd-')}.json").write_text(text)


if __name__ == "__main__":
    main()
