"""SIGHUP: reads the cluster file again, for who may connect and for nothing else."""

from dataclasses import fields, replace
from logging import LoggerAdapter
from typing import Any

from byzsgd.cluster import Cluster, Member
from byzsgd.errors import ConfigError
from byzsgd.transport import Transport
from byzsgd_daemons import config
from byzsgd_daemons.logs import logger


class Reload:
    """What a daemon does about SIGHUP.

    Public keys of other nodes, and whether they are admitted, change at once. All else stays as
    it was when the daemon was started, and is named as needing a restart. A file that is broken
    changes nothing.
    """

    def __init__(self, settings: config.Settings, cluster: Cluster, transport: Transport) -> None:
        """Prepare.

        Args:
            settings: The node's.
            cluster: The cluster file's content that the daemon was started with.
            transport: Asked to let others in from now on.
        """
        self._settings = settings
        self._cluster = cluster
        self._transport = transport
        self._log: LoggerAdapter[Any] = logger(settings.id)

    def __call__(self) -> None:
        """Read the file, and change who may connect."""
        try:
            found = config.read_cluster(self._settings.cluster)
            cluster = self._with_roster_of(found)
        except ConfigError as error:
            self._log.error("the cluster file stays as it was: %s", error)
            return
        for difference in self._differences(found):
            self._log.warning("%s: needs a restart", difference)
        changed = self._transport.admit(cluster)
        words = ", ".join(_told(cluster, identity) for identity in sorted(changed))
        self._log.info("has read the cluster file again: %s", words or "the same may connect")

    def _with_roster_of(self, found: Cluster) -> Cluster:
        """The cluster as it was, but for keys and admissions.

        Raises:
            ConfigError: If another node is given this one's key.
        """
        nodes = tuple(self._member(node, found.node(node.id)) for node in self._cluster.nodes)
        own = self._cluster.node(self._settings.id)
        assert own is not None
        for node in nodes:
            if node.id != own.id and node.public_key == own.public_key:
                raise ConfigError(f"{self._settings.cluster}: {node.id} has the key of {own.id}")
        return replace(self._cluster, nodes=nodes)

    def _member(self, before: Member, found: Member | None) -> Member:
        if before.id == self._settings.id:
            return before
        if found is None:  # Whoever is taken out of the file is to be kept out.
            return replace(before, admitted=False)
        return replace(before, public_key=found.public_key, admitted=found.admitted)

    def _differences(self, found: Cluster) -> list[str]:
        """The keys of the file that differ from those that the daemon was started with."""
        keys = [f.name for f in fields(Cluster) if f.name != "nodes"]
        differ = [key for key in keys if getattr(found, key) != getattr(self._cluster, key)]
        members = {node.id for node in self._cluster.nodes}
        differ += [f"nodes: {node.id} is new" for node in found.nodes if node.id not in members]
        for before in self._cluster.nodes:
            now = found.node(before.id)
            if now is None:
                differ.append(f"nodes: {before.id} is gone")
                continue
            own = before.id == self._settings.id
            roster = () if own else ("public_key", "admitted")
            differ += [
                f"nodes: {f.name} of {before.id}"
                for f in fields(Member)
                if f.name not in roster and getattr(now, f.name) != getattr(before, f.name)
            ]
        return differ


def _told(cluster: Cluster, identity: str) -> str:
    node = cluster.node(identity)
    assert node is not None
    return f"{identity} has another key" if node.admitted else f"{identity} is not admitted"
