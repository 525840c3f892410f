"""What a node says of itself may be a lie: it neither breaks nor draws on the operator's table."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from rich.console import Console

from byzsgd.cluster import Cluster, Member
from byzsgd_daemons import init, watch
from byzsgd_daemons.cli import main


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


PATIENCE_SECONDS = 60.0
"""However busy this machine is."""

HEAD = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n"


def test_a_status_is_the_body_of_the_answer(served: Any) -> None:
    """In however many pieces it comes."""

    def say(connection: socket.socket) -> None:
        connection.sendall(HEAD + b'{"step"')
        connection.sendall(b": 7}")

    assert watch.status(served(say), PATIENCE_SECONDS) == {"step": 7}


@pytest.mark.parametrize("text", ["[" * 200_000, '{"loss": 1' + "0" * 400 + "}", "[]", "no JSON"])
def test_an_answer_that_is_no_status_is_an_error(served: Any, text: str) -> None:
    """It is shown as such, whatever it holds."""
    found = watch.status(
        served(lambda connection: connection.sendall(HEAD + text.encode())), PATIENCE_SECONDS
    )

    assert found.keys() == {"error"}


def test_an_answer_that_is_too_long_is_an_error(served: Any) -> None:
    """No more of it is taken than any status has, although the rest would make it one."""
    long = HEAD + b" " * (2 * watch.STATUS_BYTES_MAX) + b'{"step": 7}'
    found = watch.status(served(lambda connection: connection.sendall(long)), PATIENCE_SECONDS)

    assert found.keys() == {"error"}


def test_a_byte_now_and_then_holds_nobody(served: Any) -> None:
    """The whole answer has its time, not each part of it."""

    def say(connection: socket.socket) -> None:
        for part in ("HTTP/1.0 200 OK\r\n", *["X: y\r\n"] * 40, "\r\n{}"):
            connection.sendall(part.encode())
            threading.Event().wait(0.05)

    node = served(say)
    reason = "did not answer within 0.2 s (busy or frozen)"
    assert watch.status(node, 0.2) == {"error": f"no answer from {node.http}: {reason}"}


def test_all_nodes_are_asked_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than the threads that an event loop has: nobody waits until another answers."""
    many = replace(
        cluster,
        nodes=tuple(replace(cluster.nodes[0], id=f"s{n}", http="127.0.0.1:1") for n in range(40)),
    )
    together = threading.Barrier(40)

    def status(node: Member, _: float) -> dict[str, Any]:
        together.wait(PATIENCE_SECONDS)
        return {"id": node.id}

    monkeypatch.setattr(watch, "status", status)
    found = asyncio.run(watch.statuses(many))
    assert found == {f"s{n}": {"id": f"s{n}"} for n in range(40)}


def test_who_is_not_there_is_told_from_who_is_busy(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, or no machine answers at all: neither is helped by more patience."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = replace(cluster.nodes[0], http=f"127.0.0.1:{listener.getsockname()[1]}")
    assert watch.status(node) == {"error": f"no answer from {node.http}: Connection refused"}

    def dial(_address: tuple[str, int], timeout: float) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", dial)
    reason = "cannot be reached within 5 s"
    assert watch.status(node, 5) == {"error": f"no answer from {node.http}: {reason}"}


def test_a_number_that_json_has_none_for_is_nothing(served: Any) -> None:
    """A liar's infinity would make what is passed on no JSON."""
    said = b'{"loss": NaN, "drift": [Infinity, -1e999, 0.5]}'
    found = watch.status(
        served(lambda connection: connection.sendall(HEAD + said)), PATIENCE_SECONDS
    )

    assert found == {"loss": None, "drift": [None, None, 0.5]}


def test_a_lag_is_to_a_step_that_a_correct_server_has_reached(cluster: Cluster) -> None:
    """No single liar's step makes others look slow."""
    found: dict[str, Any] = {"s0": {"step": 9}, "s1": {"step": 7}, "w0": {"step": 4}}
    assert watch.lags(cluster, found) == {"s0": 0, "s1": 2, "w0": 5}

    trusting = replace(cluster, f_servers=1)
    assert watch.lags(trusting, found) == {"s0": 0, "s1": 0, "w0": 3}
    assert watch.lags(trusting, {"s0": {"step": 9}, "s1": {"step": "x"}, "w0": {"step": 4}}) == {}
    assert watch.lags(cluster, {"s0": {"step": "9"}, "s1": {"error": "no answer"}}) == {}


LIARS = {"s0": {"step": 7, "silent": ["w0"], "peers": {"w0": {"refused": {"stale": 3, "x": 2}}}}}


def test_programs_get_what_the_table_says(cluster: Cluster) -> None:
    """Each node's own words, what others make of it, and why it did not answer."""
    found = LIARS | {"w0": {"error": "no answer"}}
    shown = json.loads(json.dumps(watch.as_json(cluster, found), allow_nan=False))

    assert shown == {
        "cluster": cluster.digest().hex(),
        "nodes": {
            "s0": {"role": "server", "error": None, "status": LIARS["s0"], "lag": 0,
                   "left_out": None, "refused": 0},
            "s1": {"role": "server", "error": "has no http address in the cluster file",
                   "status": None, "lag": None, "left_out": None, "refused": 0},
            "w0": {"role": "worker", "error": "no answer", "status": None, "lag": None,
                   "left_out": None, "refused": 2},
        },
        "remarks": ["silent: w0 (so say s0)"],
    }  # fmt: skip


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What ``byzsgd status`` finds, look by look; then somebody presses Ctrl-C."""
    views: list[dict[str, Any]] = []

    async def statuses(cluster: Cluster) -> dict[str, Any]:
        if not views:
            raise KeyboardInterrupt
        return views.pop(0)

    monkeypatch.setattr(watch, "statuses", statuses)
    plan = init.Plan(task="quadratic", servers=1, workers=1, f_servers=0, f_workers=0)
    addresses = init.Addresses.consecutive(plan, "127.0.0.1", 7000, 9100)
    monkeypatch.setenv("BYZSGD_CLUSTER", str(init.create(tmp_path, plan, addresses)))
    return views


def test_status_has_a_line_of_json_a_look(looks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C is how a watch ends, and no failure."""
    looks += [{"s0": {"step": 3}}, {"s0": {"step": 4}}]
    assert main(["status", "--watch", "--json", "--every", "0.001"]) == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["nodes"]["s0"]["status"]["step"] for line in lines] == [3, 4]


def test_status_is_watched_as_tables(looks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One after another, where no terminal can draw them in one place."""
    looks += [{"s0": {"step": 3}}, {"s0": {"step": 4, "silent": ["w0"]}}]
    assert main(["status", "--watch", "--every", "0.001"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("s0")] == ["3", "4"]
    assert lines[-1] == "silent: w0 (so say s0)"


def test_status_draws_anew_on_a_terminal(
    looks: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one place: it goes up before it draws the next table."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    looks += [{"s0": {"step": 3}}, {"s0": {"step": 4, "silent": ["w0"]}}]
    assert main(["status", "--watch", "--every", "0.001"]) == 0

    out = capsys.readouterr().out
    assert "\x1b[1A" in out
    assert "silent: w0 (so say s0)" in out


def test_status_fails_if_nobody_answers(looks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, too."""
    looks += [{"s0": {"error": "no answer"}}] * 2 + [{"s0": {"step": 1}}]
    assert main(["status"]) == 1
    assert main(["status", "--json"]) == 1
    assert main(["status", "--json"]) == 0
