"""What PromQL asks for, read without a parser: promtool says whether it is PromQL at all."""

import re
from collections.abc import Mapping

TARGET_LABELS = frozenset({"cluster", "node", "role", "instance", "job"})
"""What targets.py and Prometheus itself add to every sample."""

METRIC = re.compile(r"(?<![\w:$])((?:\w+:)?(?:byzsgd|process|python)_\w+(?::\w+)?|up)(?![\w:(])")
SELECTOR = re.compile(METRIC.pattern + r"\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
CLAUSE = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
RECORD = re.compile(r"^ *- record: (\S+)$", re.MULTILINE)
TEXT = re.compile(r'"[^"]*"')


def metrics(query: str) -> set[str]:
    """The names of the metrics in a query."""
    return set(METRIC.findall(CLAUSE.sub("", TEXT.sub("", query))))


def matched(query: str) -> set[tuple[str, str, str]]:
    """Each metric with a label that a query picks it by, and with what it is compared."""
    return {
        (name, label, value)
        for name, inside in SELECTOR.findall(query)
        for label, value in MATCHER.findall(inside)
    }


def named_labels(query: str) -> set[str]:
    """The labels that a query groups and joins by."""
    return {label for inside in CLAUSE.findall(query) for label in re.findall(r"\w+", inside)}


def unknown(
    query: str, exported: Mapping[str, frozenset[str]], recorded: frozenset[str] = frozenset()
) -> list[str]:
    """What a query asks for that no node shows and no rule records.

    Args:
        query: PromQL.
        exported: The labels of every sample that nodes show, by its name.
        recorded: Names of recording rules; their labels are not looked at.
    """
    every_label = TARGET_LABELS.union(*exported.values())
    names = exported.keys() | recorded | {"up"}
    found = sorted(metrics(query) - names)
    found += [
        f"{name}{{{label}}}"
        for name, label, _ in sorted(matched(query))
        if name in exported and label not in exported[name] | TARGET_LABELS
    ]
    return found + sorted(named_labels(query) - every_label)
