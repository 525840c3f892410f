"""What a node says of itself may be a lie: it neither breaks nor draws on the operator's table."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from io import StringIO
from typing import Any, TypeAlias

import pytest
from rich.console import Console

from byzsgd.cluster import Cluster, Member
from byzsgd_daemons import watch


@pytest.fixture
def cluster() -> Cluster:
    nodes = [{"id": f"s{n}", "role": "server", "address": f"10.0.0.{n}:7000"} for n in range(2)]
    nodes.append({"id": "w0", "role": "worker"})
    mapping = {"f_servers": 0, "f_workers": 0, "task": "quadratic", "nodes": nodes}
    return Cluster.from_mapping(mapping, keys=False)


def shown(cluster: Cluster, found: dict[str, Any]) -> str:
    """The table as a terminal would get it."""
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=200)
    console.print(watch.table(cluster, found, lying=frozenset()))
    return out.getvalue()


def test_a_table_says_what_every_node_does(cluster: Cluster) -> None:
    """One row a node; that a peer was just seen is left out."""
    sentence = "waits for 1 of 2 gradients of step 7: w0 (last seen 0 s ago), w1 (never seen)"
    table = shown(cluster, {"s0": {"step": 7, "sentence": sentence, "drift": {"median": 0.25}}})

    assert "waits for 1 of 2 gradients of step 7: w0, w1 (never seen)" in table
    assert "0.25" in table
    assert table.count("has no http address") == 2


def test_remarks_name_whom_nodes_wait_for_and_miss(cluster: Cluster) -> None:
    """Each once, with all who say so: one alone may lie."""
    waiting = {"for": "gradients", "seconds": 4.0, "lacking": ["w0"]}
    found = {
        "s0": {"waiting": waiting, "silent": ["w0"], "unsent": []},
        "s1": {"waiting": waiting | {"seconds": 0.5}, "silent": ["s0", "w0"], "unsent": ["w0"]},
        "w0": {"error": "no answer"},
    }

    assert watch.remarks(cluster, found) == [
        "silent: w0 (so say s0, s1)",
        "waited for: gradients of w0 (so say s0)",
        "silent: s0 (so say s1)",
        "cannot be sent to: w0 (so say s1)",
    ]


@pytest.mark.parametrize(
    "lie",
    [
        {"step": "[/x]"},
        {"step": "[link=http://x]x[/link]"},
        {"sentence": "[bold]x[/nothing]"},
        {"sentence": "\x1b[2J\x07"},
        {"loss": "x", "drift": [], "left_out": 3, "peers": 3, "steps_done": "x", "waiting": 1},
        {"peers": {"s1": {"refused": {"equivocation": "x"}}, "w0": 3}},
        {"left_out": {"w0": "x", "nobody": 4}, "steps_done": 1},
        {"silent": ["\x1b[2J\x07", 3, None], "unsent": "x"},
        {"silent": {}, "unsent": [["\x07"]]},
        {"waiting": {"seconds": 9, "for": "\x07", "lacking": ["\x07", "w0"]}},
        {"waiting": {"seconds": 9, "lacking": 3}},
        {"loss": float("inf"), "drift": {"median": float("nan")}},
    ],
)
def test_no_lie_breaks_the_table(cluster: Cluster, lie: dict[str, Any]) -> None:
    """Words of the wrong form are left out or shown as plain text."""
    table = shown(cluster, {"s0": lie})
    assert "\x07" not in "".join(watch.remarks(cluster, {"s0": lie}))
    assert "\x07" not in table
    assert "\x1b[2J" not in table
    assert "\x1b]8" not in table, "no links"


Say: TypeAlias = Callable[[socket.socket], None]


@pytest.fixture
def served(cluster: Cluster) -> Iterator[Callable[[Say], Member]]:
    """Makes a node whose HTTP port says to who asks what a function says, in a thread."""
    with ExitStack() as stack:

        def serve(say: Say) -> Member:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def answer() -> None:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(4096)
                    say(connection)

            thread = threading.Thread(target=answer)
            thread.start()
            stack.callback(thread.join)
            return replace(cluster.nodes[0], http=f"127.0.0.1:{listener.getsockname()[1]}")

        yield serve


HEAD = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n"


def test_a_status_is_the_body_of_the_answer(served: Any) -> None:
    """In however many pieces it comes."""

    def say(connection: socket.socket) -> None:
        connection.sendall(HEAD + b'{"step"')
        connection.sendall(b": 7}")

    assert watch.status(served(say)) == {"step": 7}


@pytest.mark.parametrize("text", ["[" * 200_000, '{"loss": 1' + "0" * 400 + "}", "[]", "no JSON"])
def test_an_answer_that_is_no_status_is_an_error(served: Any, text: str) -> None:
    """It is shown as such, whatever it holds."""
    found = watch.status(served(lambda connection: connection.sendall(HEAD + text.encode())))

    assert found.keys() == {"error"}


def test_an_answer_without_an_end_is_an_error(served: Any) -> None:
    """No more of it is taken than any status has."""

    def say(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        while True:
            connection.sendall(b" " * 4096)

    assert watch.status(served(say)).keys() == {"error"}


def test_a_byte_now_and_then_holds_nobody(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole answer has its time, not each part of it."""
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.2)

    def say(connection: socket.socket) -> None:
        for part in ("HTTP/1.0 200 OK\r\n", *["X: y\r\n"] * 40, "\r\n{}"):
            connection.sendall(part.encode())
            threading.Event().wait(0.05)

    node = served(say)
    assert watch.status(node) == {"error": f"no answer from {node.http}: TimeoutError"}
