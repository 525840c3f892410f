"""Simpler stories that still end badly: fewer steps, faults, lies and nodes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.soak.story import Outcome, Story, tell

from byzsgd.errors import ClusterError

TRIES_MAX = 300

SIMPLER: tuple[dict[str, Any], ...] = (
    {"mishaps": ()},
    {"habit": "plain"},
    {"timing": "early"},
    {"workers_say": None},
    {"servers_say": None},
    {"loss": 0.0},
    {"straggle": 0.0},
    {"duplication": 0.0},
    {"queue": 0},
    {"clocks": False},
    {"overlapped": False},
    {"variant": "asynchronous"},
    {"rule": "mda"},
    {"checkpoint_period": 0},
    {"gather_period": 1},
    {"d": 1},
    {"steps": 1},
    {"steps": 2},
    {"steps": 3},
    {"servers": 1, "f_servers": 0},
    {"servers": 2, "f_servers": 0},
    {"servers": 5, "f_servers": 1},
    {"workers": 1, "f_workers": 0},
    {"workers": 4, "f_workers": 1},
    {"fewer_models": 0},
    {"fewer_gradients": 0},
    {"liars_first": True},
    {"momentum": 0.9},
)
"""What makes a story simpler, one at a time."""


def shrink(outcome: Outcome, say: Callable[[str], None] = lambda words: None) -> Outcome:
    """The simplest outcome found that breaks the same promise.

    Args:
        outcome: A bad one.
        say: Told of every simpler story.
    """
    tries = 0
    while tries < TRIES_MAX:
        for story in _simpler(outcome.story):
            tries += 1
            found = _tell(story)
            if found and found.kind == outcome.kind:
                outcome = found
                say(story.to_json())
                break
        else:
            break
    return outcome


def _tell(story: Story) -> Outcome | None:
    try:
        story.cluster()
    except ClusterError:
        return None
    return tell(story)


def _simpler(story: Story) -> Iterator[Story]:
    for change in SIMPLER:
        if _less(story, change):
            yield replace(story, **change)
    for index in range(len(story.mishaps)):
        yield replace(story, mishaps=story.mishaps[:index] + story.mishaps[index + 1 :])
    for name in ("steps", "workers", "servers", "gather_period"):
        if getattr(story, name) > 1:
            yield replace(story, **{name: getattr(story, name) - 1})


def _less(story: Story, change: dict[str, Any]) -> bool:
    """Whether a change leads away from the story, and to no more steps or nodes."""
    now = {name: getattr(story, name) for name in change}
    grows = any(
        now[name] < change[name] for name in ("steps", "workers", "servers") if name in change
    )
    return now != change and not grows
