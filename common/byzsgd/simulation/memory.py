"""How many vectors a node holds: counted from outside, whatever it keeps them in."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from byzsgd.protocol import Node


def vectors_held(node: Node) -> int:
    """How many different vectors can be reached from a node."""
    seen: set[int] = set()
    vectors = 0
    rest: list[Any] = [node]
    while rest:
        here = rest.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, np.ndarray):
            vectors += 1
        else:
            rest.extend(_parts(here))
    return vectors


def _parts(whole: Any) -> Iterator[Any]:
    """What a container, or an object of the protocol, has in it."""
    if isinstance(whole, Mapping):
        yield from whole.values()
    elif isinstance(whole, list | tuple | deque):
        yield from whole
    elif type(whole).__module__.startswith(("byzsgd.protocol", "byzsgd.messages")):
        # Neither the cluster nor what is counted has vectors in it; a trace keeps words alone.
        for name in _names(whole):
            if name not in ("cluster", "progress", "trace"):
                yield getattr(whole, name)


def _names(whole: Any) -> Iterator[str]:
    yield from getattr(whole, "__dict__", ())
    for kind in type(whole).__mro__:
        yield from getattr(kind, "__slots__", ())
