"""When servers were told the models that they adopt: none of them may be of long ago."""

from byzsgd.protocol import Aggregate, Node, ParameterServer
from byzsgd.protocol.server import RECENT
from byzsgd.simulation.promises import digest_of


class Recency:
    """When each node was last told each vector, by its own clock."""

    def __init__(self) -> None:
        self._when: dict[tuple[str, str], dict[bytes, float]] = {}

    def told(self, identity: str, sender: str, digest: bytes, now: float) -> None:
        """A node is told a vector."""
        self._when.setdefault((identity, sender), {})[digest] = now

    def adopts(self, node: Node, effect: Aggregate, now: float) -> None:
        """A node aggregates votes.

        Raises:
            AssertionError: If it is a catch-up, and a peer's model was told too long ago.
        """
        update_or_gather = effect.model is not None or effect.own is not None
        if update_or_gather or not isinstance(node, ParameterServer):
            return
        for voter, vector in zip(effect.identities, effect.vectors, strict=True):
            if voter == node.identity:
                continue
            age = now - self._when[node.identity, voter][digest_of(vector)]
            recent = age <= RECENT * node.pull_after + 1e-6
            assert recent, f"the model of {voter} is {age:.1f} s old"
