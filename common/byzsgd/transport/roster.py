"""Whose keys count, now: read in any thread, and replaced as a whole."""

from byzsgd.cluster import Cluster


class Roster:
    """Public keys and the identities that they prove."""

    def __init__(self, cluster: Cluster) -> None:
        """The roster of a cluster file's content."""
        self._owners = _owners(cluster)
        self._former = {node.public_key: node.id for node in cluster.nodes if not node.admitted}

    def owner(self, key: str) -> str | None:
        """The identity that a public key (Z85) proves, or None if it proves nothing."""
        return self._owners.get(key)

    def former_owner(self, key: str) -> str | None:
        """The identity that a public key which proves nothing now belonged to, or None."""
        return self._former.get(key)

    def replace(self, cluster: Cluster) -> frozenset[str]:
        """The identities whose keys prove something else from now on than until now."""
        owners, before = _owners(cluster), self._owners
        # Keys that were known are named in refusals ever after: a thief will try.
        former = self._former | before | {node.public_key: node.id for node in cluster.nodes}
        self._former = {key: identity for key, identity in former.items() if key not in owners}
        self._owners = owners
        changed = before.items() ^ owners.items()
        return frozenset(identity for _, identity in changed)


def _owners(cluster: Cluster) -> dict[str, str]:
    return {node.public_key: node.id for node in cluster.nodes if node.admitted}
