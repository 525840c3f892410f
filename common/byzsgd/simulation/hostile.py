"""Liars that break rules of conduct, whatever their attack says: for simulations.

Each turns what its coalition would have said into something that a correct node must not fall for.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from byzsgd.messages import (
    STEP_MAX,
    VECTOR_MESSAGES,
    GatherModel,
    Gradient,
    Hello,
    Message,
    Model,
    Pull,
)
from byzsgd.protocol import Event, Received, Send
from byzsgd.simulation.adversary import Coalition
from byzsgd.simulation.timing import Order


def _sends(orders: list[Order]) -> list[tuple[str, Send]]:
    return [(liar, effect) for liar, effect in orders if isinstance(effect, Send)]


def _ahead(message: Message) -> Message:
    if isinstance(message, VECTOR_MESSAGES):
        return type(message)(message.step + 1000, message.vector)
    return message


class Braggart(Coalition):
    """Liars who claim to be far ahead of everybody, in all that they say."""

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What it says, turned so."""
        return [
            (liar, Send(each.peers, _ahead(each.message)))
            for liar, each in _sends(super().overhear(sender, message))
        ]

    def _answer(self, liar: str, peer: str, step: int) -> list[Order]:
        return super()._answer(liar, peer, step + 1000)


class Flood(Coalition):
    """Liars who say every lie for many steps to come, in two versions."""

    reach = 100
    """For how many steps."""

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What it says, turned so."""
        flood: list[Order] = []
        for liar, effect in _sends(super().overhear(sender, message)):
            said = effect.message
            if not isinstance(said, VECTOR_MESSAGES):
                flood.append((liar, effect))
                continue
            for step in range(said.step, said.step + self.reach):
                flood += [
                    (liar, Send(effect.peers, type(said)(step, said.vector))),
                    (liar, Send(effect.peers, type(said)(step, said.vector + np.float32(1)))),
                ]
        return flood


class TwoFaced(Coalition):
    """Liars who say every lie twice, and then another one."""

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What it says, turned so."""
        twice: list[Order] = []
        for liar, effect in _sends(super().overhear(sender, message)):
            said = effect.message
            twice.append((liar, effect))
            if isinstance(said, VECTOR_MESSAGES):
                other = type(said)(said.step, -said.vector)
                twice += [(liar, effect), (liar, Send(effect.peers, other))]
        return twice


class Impostor(Coalition):
    """Liars who speak in the role of the other kind of node."""

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What it says, turned so."""
        orders = super().overhear(sender, message)
        if isinstance(message, Model | Gradient):
            for liar in self.liars:
                other = Gradient if liar.startswith("s") else Model
                lie = other(message.step, message.vector)
                orders.append((liar, Send((*self._correct_servers, *self._correct_workers), lie)))
        return orders


class Storm(Coalition):
    """Liars who pull again and again, and say of themselves that they are at any step."""

    _stormed = -1

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What it says, and once a step, to everybody: pulls, and false steps."""
        orders = super().overhear(sender, message)
        if isinstance(message, VECTOR_MESSAGES) and message.step > self._stormed:
            self._stormed = message.step
            everybody = (*self._correct_servers, *self._correct_workers)
            for liar in self.liars:
                for step in (0, message.step, message.step + 1, message.step + 1000):
                    orders.append((liar, Send(everybody, Pull(step))))
                for place in (0, max(message.step - 1, 0), message.step + 3, STEP_MAX):
                    hello = Hello(place, self._digests, reply=place % 2 == 0)
                    orders.append((liar, Send(everybody, hello)))
        return orders


class Flatterer(Coalition):
    """Servers that tell the furthest ones that they are with them, and everybody else nothing.

    Those ahead then seem to be too many to go back, and to the others too few to follow.
    """

    _places: Mapping[str, int] = MappingProxyType({})

    def overhear(self, sender: str, message: Message) -> list[Order]:
        """What it says, to those who are to hear it."""
        if sender in self._correct_servers and isinstance(message, Hello | Model | GatherModel):
            self._places = {**self._places, sender: message.step}
        return super().overhear(sender, message)

    def _timed(self, orders: list[Order]) -> list[Order]:
        return [
            (liar, Send((peer,), effect.message))
            for liar, effect in _sends(super()._timed(orders))
            for peer in effect.peers
            if liar in self._workers or isinstance(effect.message, Pull) or self._is_furthest(peer)
        ]

    def _is_furthest(self, peer: str) -> bool:
        return peer in self._places and self._places[peer] == max(self._places.values())

    def _meet(self, liar: str, event: Event) -> list[Order]:
        match event:
            case Received(peer, (Hello() | Pull()) as asked) if (
                liar in self._servers and peer in self._places
            ):
                place = self._places[peer]
                said: list[Message] = [Hello(place, self._digests, reply=True)]
                if isinstance(asked, Pull) and self._model is not None:
                    lie = self._lies_of(place).get(peer)
                    said.append(Model(place, self._model if lie is None else lie))
                return [(liar, Send((peer,), message)) for message in said]
        return super()._meet(liar, event)


HABITS: Mapping[str, type[Coalition]] = MappingProxyType(
    {
        "plain": Coalition,
        "braggart": Braggart,
        "flood": Flood,
        "two-faced": TwoFaced,
        "impostor": Impostor,
        "storm": Storm,
        "flatterer": Flatterer,
    }
)
"""Every kind of conduct by name; plain liars keep the rules and lie in what they say."""
