"""docs/protocol.md is a promise to other languages: its examples and lists must be true."""

import re
from pathlib import Path

import numpy as np

from byzsgd.messages import Model, Pull, Reason
from byzsgd.wire import Kind, encode

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
BOOT = bytes(range(0xA0, 0xA8))


def hex_examples() -> list[list[bytes]]:
    """The frames of every hex example, in the order of the page."""
    blocks = re.findall(r"```hex\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    return [[bytes.fromhex(frame) for frame in block.split("--")] for block in blocks]


def test_the_examples_are_what_is_sent() -> None:
    """The page's bytes are those of its model and of its pull."""
    model = encode(Model(7, np.float32([1, -2, 0.5])), BOOT)
    pull = encode(Pull(7), BOOT)

    assert hex_examples() == [[bytes(frame) for frame in model], pull]


def test_every_kind_and_every_reason_is_described() -> None:
    """Each has a row of a table to begin with."""
    for word in (*Kind, *Reason):
        assert re.search(rf"^\| `{word.value}`", DOCUMENT, flags=re.MULTILINE), word
