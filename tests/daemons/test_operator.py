"""An operator asks all servers and believes a quorum, whatever some of them answer."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from byzsgd.cluster import Cluster
from byzsgd.errors import ByzsgdError
from byzsgd.messages import Hello, Message, Model, Pull
from byzsgd.transport import keys
from byzsgd_daemons.operator import Answers, Operator

STEP_HUGE = 2**53 - 1

Server = Callable[[int], list[Message]]
"""From the step that is asked for to what a server says."""


@dataclass
class Servers:
    """Stands for the transport: every server answers a pull as the test says, at once."""

    say: dict[str, Server]
    operator: Operator | None = None
    asked: list[int] = field(default_factory=list)

    async def open(self) -> None:
        """Nothing to open."""

    async def run(self) -> None:
        """Runs until it is cancelled."""
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Nothing to close."""

    def send(self, peers: tuple[str, ...], message: Message) -> None:
        if not isinstance(message, Pull):
            return
        self.asked.append(message.step)
        assert self.operator is not None
        for peer in peers:
            for answer in self.say.get(peer, lambda _: [])(message.step):
                self.operator.received(peer, answer)


def model(step: int, value: float = 0) -> Model:
    return Model(step, np.float32([value]))


def at(step: int, value: float = 0) -> Server:
    """A correct server at a step, which goes on until the step it is asked for."""
    return lambda asked: [model(max(step, asked), value)]


@pytest.fixture
def operator() -> Operator:
    """An operator of five servers, of which one may lie."""
    pairs = {identity: keys.generate() for identity in ("s0", "s1", "s2", "s3", "s4", "w0", "op")}
    nodes: list[dict[str, str]] = []
    for port, (identity, pair) in enumerate(pairs.items()):
        role = {"s": "server", "w": "worker", "o": "operator"}[identity[0]]
        nodes.append({"id": identity, "role": role, "public_key": pair.public})
        if role == "server":
            nodes[-1]["address"] = f"127.0.0.1:{9000 + 2 * port}"
    mapping = {"f_servers": 1, "f_workers": 0, "task": "quadratic", "nodes": nodes}
    return Operator(Cluster.from_mapping(mapping), "op", pairs["op"].secret, d=1)


def ask(operator: Operator, say: dict[str, Server], step: int, **more: Any) -> Answers:
    """The answers that an operator takes, of servers that say something to each pull."""
    servers = Servers(say, operator)
    operator._transport = servers  # type: ignore[assignment]

    async def main() -> Answers:
        async with operator:
            return await operator.models(step, **{"seconds": 30, **more})

    return on_a_loop(main())


def on_a_loop(main: Coroutine[Any, Any, Answers]) -> Answers:
    return asyncio.run(main)


def test_a_quorum_of_one_step_is_taken(operator: Operator) -> None:
    """Four of five say the same step: M of their models."""
    say = {f"s{n}": at(7, value=n) for n in range(4)}

    answers = ask(operator, say, 7)

    assert (answers.step, sorted(answers.models)) == (7, ["s0", "s1", "s2", "s3"])
    assert answers.median().tolist() == [1.5]


@pytest.mark.parametrize("lie", [0, STEP_HUGE])
def test_a_liar_s_step_neither_hangs_nor_misleads(operator: Operator, lie: int) -> None:
    """One server says an old or a huge step, again and again, and one has gone ahead."""
    say = {f"s{n}": at(10) for n in range(3)}
    say["s3"] = at(11)
    say["s4"] = lambda _: [model(lie, 900)] * 20

    answers = ask(operator, say, 10)

    assert 10 <= answers.step <= 20
    assert sorted(answers.models) == ["s0", "s1", "s2", "s3"]


def test_servers_that_have_passed_the_step_are_asked_for_one_ahead(operator: Operator) -> None:
    """They stand at different steps, so that no two answers to the first question agree."""
    say = {f"s{n}": at(100 + n) for n in range(5)}

    answers = ask(operator, say, 0)

    assert answers.step == 100 + 3 + 2, "the second largest step is no lie, and two more"


def test_servers_that_are_done_answer_with_their_last_step(operator: Operator) -> None:
    """Asked for more, they have no more."""
    operator._cluster = replace(operator._cluster, steps=50)
    say: dict[str, Server] = {f"s{n}": lambda _: [model(50)] for n in range(4)}
    assert ask(operator, say, 99).step == 50


def test_an_answer_to_an_earlier_question_is_none_to_this_one(operator: Operator) -> None:
    """A question may be repeated, and its answers come twice."""

    def twice(asked: int) -> list[Message]:
        return [model(asked), model(10)]

    assert ask(operator, {f"s{n}": twice for n in range(4)}, 15).step == 15


def test_certain_servers_are_waited_for(operator: Operator) -> None:
    """A correct server that is slower than a lying one is among the answers all the same."""
    say = {f"s{n}": at(7) for n in range(5)}
    answers = ask(operator, say, 7, besides=("s4",))
    assert "s4" in answers.models


def test_too_few_answers_name_who_answered(operator: Operator) -> None:
    """Three of four needed: an error in time."""
    say = {f"s{n}": at(3) for n in range(3)}
    with pytest.raises(ByzsgdError, match=r"no 4 servers .* s0 \(step 3\), s1 .*, s2 \(step 3\)"):
        ask(operator, say, 3, seconds=0.01)


def test_workers_and_strangers_have_no_say(operator: Operator) -> None:
    """A model counts from servers alone, and nothing but a model counts."""
    say = {f"s{n}": at(3) for n in range(3)}
    say["s3"] = lambda _: [Hello(3)]
    operator.received("w0", model(3))
    with pytest.raises(ByzsgdError, match="no 4 servers"):
        ask(operator, say, 3, seconds=0.01)


def test_a_new_connection_is_asked_again(operator: Operator) -> None:
    """What was asked before it was made may be lost."""
    servers = Servers({f"s{n}": at(3) for n in range(3)}, operator)
    operator._transport = servers  # type: ignore[assignment]

    async def main() -> Answers:
        async with operator:
            asking = asyncio.create_task(operator.models(3, seconds=30))
            await asyncio.sleep(0)
            servers.say["s3"] = at(3)
            operator.connected("s3")
            return await asking

    assert "s3" in on_a_loop(main()).models
