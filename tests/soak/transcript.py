"""What a node met in its last life, as a transcript for tests/scenarios, and no longer than needed.

The node is played anew by the very code that runs the scenarios. Time stands still but where the
node's own deadline passes, so that what hangs on shorter times may come out differently; then
nothing is left out, and the transcript says so.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from tests.conftest import Conversation, make_cluster
from tests.soak.record import Happening
from tests.soak.story import Outcome
from tests.test_scenarios import BAR, Scenario

from byzsgd.messages import Hello, Message, Pull
from byzsgd.protocol import (
    Aggregated,
    DeadlinePassed,
    GradientComputed,
    ModelTried,
    PeerConnected,
    Received,
    server_of,
    worker_of,
)

KINDS = {"Model": "model", "GatherModel": "gather", "Gradient": "gradient"}

USUAL = {"servers": 5, "workers": 4, "f_servers": 1, "f_workers": 1}
"""The cluster of tests/conftest.py: what a scenario need not say."""

EVENTS_MAX = 400
"""Events of a life that are tried to be left out one by one."""


def transcript(outcome: Outcome) -> str:
    """The life of the node that broke its promise, up to then."""
    if outcome.story.d != 1:
        return f"# {outcome.identity}: vectors of d = {outcome.story.d} fit no transcript."
    commands = _commands(outcome)
    ending = _ending(commands)
    kept = _shorter(commands, ending) if len(commands) <= EVENTS_MAX else commands
    kept = _together(kept)
    head = f"# {outcome.why.splitlines()[0]}"
    return "\n\n".join([head, *_blocks(kept)])


def _shorter(commands: list[str], ending: str) -> list[str]:
    """Without whatever can be left out, so that the node does the same in the end."""
    shorter = True
    while shorter:
        shorter = False
        for index in range(len(commands) - 2, 0, -1):
            fewer = commands[:index] + commands[index + 1 :]
            if _ending(fewer) == ending:
                commands, shorter = fewer, True
    return commands


def _together(commands: list[str]) -> list[str]:
    """What several peers say in a row, in one command."""
    told: list[str] = []
    for command in commands:
        words = command.split()
        before = told[-1].split() if told else []
        what = words[2:]
        if words[0] == "receive" and before[:1] == ["receive"] and before[-len(what) :] == what:
            told[-1] = " ".join([*before[: -len(what)], words[1], *what])
        else:
            told.append(command)
    return told


def _scenario() -> Scenario:
    def start(make: Callable[..., Any], vector: bool) -> Callable[..., Conversation]:
        def begin(cluster: Any, *, identity: str, value: float = 0, **options: int) -> Conversation:
            model = (np.float32([value]),) if vector else ()
            return Conversation(make(cluster, identity, *model, **options))

        return begin

    return Scenario(make_cluster, start(server_of, True), start(worker_of, False))


def _ending(commands: list[str]) -> str:
    """What the node does about the last command."""
    scenario, words = _scenario(), [""]
    try:
        for command in commands:
            words = scenario.run(command)
    except Exception as broken:  # noqa: BLE001
        return f"{type(broken).__name__}: {broken}"
    return "\n".join(words)


def _blocks(commands: list[str]) -> list[str]:
    """Blocks of a transcript, each with what the node did under its bar."""
    scenario, blocks, block = _scenario(), [], list[str]()
    player = _scenario()
    for number, command in enumerate(commands):
        block.append(command)
        try:
            did = player.run(command)
            if did or number == len(commands) - 1:
                blocks.append(scenario.block("\n".join(block)))
                block = []
        except Exception as broken:  # noqa: BLE001
            blocks.append("\n".join([*block, BAR, f"{type(broken).__name__}: {broken}"]))
            break
    return blocks


def _commands(outcome: Outcome) -> list[str]:
    story, cluster = outcome.story, outcome.story.cluster()
    _, step, vector, happenings = outcome.record.lives[outcome.identity]
    words = ["worker" if vector is None else "server", outcome.identity]
    shape = {
        "servers": story.servers,
        "workers": story.workers,
        "f_servers": story.f_servers,
        "f_workers": story.f_workers,
    }
    options: dict[str, object] = {key: n for key, n in shape.items() if n != USUAL[key]}
    usual = make_cluster(**shape)
    quorums = {"server_quorum": cluster.server_quorum, "worker_quorum": cluster.worker_quorum}
    for key, value in {**story.changes(), **quorums}.items():
        if value != getattr(usual, key):
            options[key] = json.dumps(value) if isinstance(value, bool) else value
    if vector is not None:
        mine = {"step": step, "checkpoint_period": story.checkpoint_period}
        options |= {"value": _number(vector), **{key: n for key, n in mine.items() if n}}
    commands = [" ".join([*words, *(f"{key}={value}" for key, value in options.items())])]
    scenario = _scenario()
    scenario.run(commands[0])
    for happening in happenings:
        command = _command(scenario.node, happening)
        if command:
            commands.append(command)
            try:
                scenario.run(command)
            except Exception:  # noqa: BLE001
                break  # Here the promise is broken.
    return commands


def _command(node: Conversation, happening: Happening) -> str:
    _, event, drawn = happening
    match event:
        case Received(peer, message):
            return f"receive {peer} {_message(message)}"
        case PeerConnected(peer):
            return f"connect {peer}"
        case DeadlinePassed():
            return f"wait {max(node.node.deadline - node.now, 0):.9g}"
        case Aggregated() | GradientComputed() | ModelTried():
            return _work(node, event.step, drawn)
    raise AssertionError(event)


def _work(node: Conversation, step: int, drawn: Any) -> str:
    """The word for heavy work that is done; empty where this node did not ask for it."""
    places = [place for place, effect in enumerate(node.work) if effect.step == step]
    if not places:
        return ""
    words = "work"
    if drawn is not None:
        words += f" gradient={_number(drawn)}"
    return words if places[0] == 0 else f"{words} last=1"


def _message(message: Message) -> str:
    if isinstance(message, Pull):
        return f"pull step={message.step}"
    if isinstance(message, Hello):
        return f"hello step={message.step}" + ("" if message.reply else " reply=0")
    return f"{KINDS[type(message).__name__]} step={message.step} value={_number(message.vector)}"


def _number(vector: Any) -> str:
    return f"{float(vector[0]):.9g}"
