"""Replaces a node's key: a new pair, its secret in a file, its public key in the cluster file."""

import os
import re
import stat
import tomllib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from byzsgd.cluster import Member, Role, nearest
from byzsgd.errors import ConfigError
from byzsgd.files import folder_to_disk, write_whole
from byzsgd.transport import keys
from byzsgd_daemons.config import Settings, read_cluster


@dataclass(frozen=True, slots=True)
class Rotation:
    """What was written."""

    node: Member
    """The node's entry in the cluster file now."""
    key: Path
    """Its new secret key."""
    old: Path | None
    """Its old one; None where there was none beside the cluster file."""


def rotate(settings: Settings) -> Rotation:
    """Give a node a new key in this folder's files; all that runs goes on with the old one.

    Wherever this is cut short, it can be done once more: the key that the cluster file named before
    is kept until a new one is there.

    Args:
        settings: The cluster file, the node's id, and where its secret key lies or shall lie.

    Raises:
        ConfigError: If the cluster file is broken, knows no such node, or is written so that the
            key cannot be found in it.
        OSError: If something cannot be written; the cluster file is then as it was.
    """
    # What a link leads to is replaced, and not the link.
    file, key, identity = settings.cluster.resolve(), settings.key_file, settings.id
    cluster = read_cluster(settings.cluster)
    before = cluster.node(identity)
    if before is None:
        known = [node.id for node in cluster.nodes]
        raise ConfigError(f"{settings.cluster}: no node {identity}; {nearest(identity, known)}")
    pair = keys.generate()
    node = replace(before, public_key=pair.public)
    try:
        text = with_key(file.read_bytes().decode(), node, before.public_key)
    except ConfigError as error:
        raise ConfigError(f"{settings.cluster}: {error}") from None

    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new, old = key.with_name(f"{key.name}.new"), key.with_name(f"{key.name}.old")
    write_whole(new, f"{pair.secret}\n".encode(), partial=f"{new.name}.partial")
    try:
        if key.exists():
            _give(new, key.stat())
        _rewrite(file, text)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    had_one = key.exists()
    if had_one:
        key.replace(old)
    new.replace(key)
    folder_to_disk(key.parent)

    written = read_cluster(settings.cluster)
    nodes = tuple(node if each.id == identity else each for each in cluster.nodes)
    assert written == replace(cluster, nodes=nodes), "more was changed than a key"
    return Rotation(node, key, old if had_one else None)


def with_key(text: str, node: Member, old: str) -> str:
    """A cluster file's text with another key for one node, and not a character changed besides.

    Args:
        text: The file's, which is valid.
        node: The node's entry, with its new key.
        old: Its key in the text.

    Raises:
        ConfigError: If the key is not written in one piece.
    """
    wanted = tomllib.loads(text)
    [entry] = [each for each in wanted["nodes"] if each["id"] == node.id]
    entry["public_key"] = node.public_key
    # It may stand in comments as well.
    for found in re.finditer(re.escape(old), text):
        changed = text[: found.start()] + node.public_key + text[found.end() :]
        with suppress(tomllib.TOMLDecodeError):  # As where it begins with an escape's last digit.
            if tomllib.loads(changed) == wanted:
                return changed
    raise ConfigError(f"cannot find the public_key of {node.id} to replace it; write it plainly")


def next_steps(rotation: Rotation, cluster: Path) -> str:
    """What the operator has to do now, in the order in which it is safe.

    Args:
        rotation: What was written.
        cluster: The cluster file.
    """
    node = rotation.node
    others = "every other node" if node.role is Role.SERVER else "every server"
    lines = [
        f"{rotation.key}: the new secret key of {node.id}",
        f"{cluster}: {node.id} has the public key {node.public_key}",
        "Nothing that runs has changed yet. One node at a time, in this order:",
        f"1. Copy {cluster.name}, or that public key, to {others}, and let the daemons read it "
        "again: systemctl reload, or kill -HUP. Now the old key counts no more.",
    ]
    if node.role is Role.OPERATOR:
        lines.append(f"2. Give {rotation.key.name} and {cluster.name} to the operator.")
    else:
        lines.append(
            f"2. Copy {rotation.key.name} and {cluster.name} to the machine of {node.id}, and "
            f"start {node.id} again. Until then it counts as silent."
        )
    if rotation.old:
        lines.append(f"3. Once {node.id} is back, remove its old key: {rotation.old}")
    if not node.admitted:
        lines.append(f"And take 'admitted = false' out of the entry of {node.id}.")
    return "\n".join(lines)


def _rewrite(file: Path, text: str) -> None:
    """Replace what a file holds, whole, and leave its mode and owner as they are.

    Raises:
        OSError: If the disk refuses.
    """
    before = file.stat()
    mode = stat.S_IMODE(before.st_mode)
    write_whole(file, text.encode(), mode=mode, partial=f"{file.name}.partial")
    file.chmod(mode)  # Whatever the umask.
    _give(file, before)


def _give(path: Path, before: os.stat_result) -> None:
    """Give a file to whom an earlier one belonged, if this user may."""
    with suppress(PermissionError):
        os.chown(path, before.st_uid, before.st_gid)
