"""docs/protocol.md is a promise to other languages: its examples and lists must be true."""

import re
from pathlib import Path

import numpy as np

from byzsgd.cluster import WireType
from byzsgd.messages import Model, Pull, Reason
from byzsgd.wire import Kind, Layout, encode

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
BOOT = bytes(range(0xA0, 0xA8))


def hex_examples() -> list[list[bytes]]:
    """The frames of every hex example, in the order of the page."""
    blocks = re.findall(r"```hex\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    return [[bytes.fromhex(frame) for frame in block.split("--")] for block in blocks]


def test_the_examples_are_what_is_sent() -> None:
    """The page's bytes are those of its model, in three layouts, and of its pull."""
    layouts = (Layout(3), Layout(3, WireType.BFLOAT16), Layout(3, WireType.BFLOAT16, 1))
    sent = [encode(Model(7, np.float32([1, -2, 0.5])), BOOT, layout) for layout in layouts]
    sent.append(encode(Pull(7), BOOT))

    assert hex_examples() == [[bytes(frame) for frame in frames] for frames in sent]


def test_every_wire_type_is_described() -> None:
    """With its bytes and its largest number."""
    for wire_type in WireType:
        row = re.search(rf"^\| `{wire_type}`.*", DOCUMENT, flags=re.MULTILINE)
        assert row, wire_type
        assert f"| {wire_type.itemsize} bytes" in row[0]


def test_every_kind_and_every_reason_is_described() -> None:
    """Each has a row of a table to begin with."""
    for word in (*Kind, *Reason):
        assert re.search(rf"^\| `{word.value}`", DOCUMENT, flags=re.MULTILINE), word
