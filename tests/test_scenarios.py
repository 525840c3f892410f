"""Transcripts in tests/scenarios: commands, and under a bar of dashes what the node did.

With ``--rewrite`` what stands under the bars is written anew: read the diff before you keep it.

Commands::

    server s1 value=0 step=0        start a server, also with changes of the cluster file
    worker w1 servers=1             (servers, workers and the keys of tests/conftest.py)
    receive s2 s3 model step=0 value=5    also gather, gradient, pull, hello [differs=KEY]
                                          [reply=0]: a hello that wants an answer
    connect s2                      a connection to a peer is made
    wait 1.0                        seconds pass
    work [gradient=2] [last=1]      the oldest heavy work is done, or the youngest
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import GatherModel, Gradient, Hello, Message, Model, Pull

BAR = "----"
VECTORS = {"model": Model, "gather": GatherModel, "gradient": Gradient}
NODE_OPTIONS = ("value", "step", "checkpoint_period")

Make = Callable[..., Any]


class Scenario:
    """One node, and what it does about each command."""

    def __init__(self, cluster: Make, server: Make, worker: Make) -> None:
        self.cluster, self.starts = cluster, {"server": server, "worker": worker}
        self.node: Any = None
        self.sentence = ""

    def run(self, line: str) -> list[str]:
        """What the node does about a command."""
        name, *rest = line.split()
        words = [word for word in rest if "=" not in word]
        pairs = (word.split("=") for word in rest if "=" in word)
        options = {
            key: json.loads(v) if v[-1].isdigit() or v in ("true", "false") else v
            for key, v in pairs
        }
        match name:
            case "server" | "worker":
                mine = {key: options.pop(key) for key in NODE_OPTIONS if key in options}
                shared = self.cluster(**options)
                self.node = self.starts[name](shared, identity=words[0], **mine)
                return self.node.started
            case "receive":
                return self.node.hears(words[:-1], self.message(words[-1], **options))
            case "connect":
                return self.node.connects(words[0])
            case "wait":
                return self.node.waits(float(words[0]))
            case "work":
                return self.node.works(**options)
        raise ValueError(f"no command: {line}")

    def message(
        self, kind: str, step: int, value: float = 0, differs: str = "", reply: int = 1
    ) -> Message:
        if kind == "pull":
            return Pull(step)
        if kind == "hello":
            digests = self.node.node.cluster.digests()
            digests |= {differs: b"other"} if differs else {}
            return Hello(step, digests, reply=bool(reply))
        return VECTORS[kind](step, np.float32([value]))

    def block(self, text: str) -> str:
        """A block with what the node did under its bar; one without commands as it is."""
        asked = text.split(f"\n{BAR}")[0].splitlines()
        commands = [line for line in asked if not line.startswith("#")]
        if not commands:
            return text
        did = [words for command in commands for words in self.run(command)]
        # Whom it waits for, as logs say it, but not when each was last seen; told when it changes.
        sentence = re.sub(r" \([^)]*\)", "", self.node.node.sentence(self.node.now))
        if sentence != self.sentence:
            did.append(sentence)
        self.sentence = sentence
        return "\n".join([*asked, BAR, *(did or ["nothing"])])


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.glob("scenarios/*.txt")), ids=lambda path: path.stem
)
def test_scenario(
    path: Path, cluster: Make, server: Make, worker: Make, request: pytest.FixtureRequest
) -> None:
    """The node does what the transcript says."""
    scenario = Scenario(cluster, server, worker)
    written = path.read_text()
    blocks = written.strip().split("\n\n")
    happened = "\n\n".join(scenario.block(block) for block in blocks) + "\n"
    if request.config.getoption("rewrite"):
        path.write_text(happened)
    else:
        assert happened == written
