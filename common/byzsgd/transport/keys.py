"""The keys that nodes prove their identities with: CURVE pairs, and files that hold the secret."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from byzsgd.cluster import Z85_PATTERN
from byzsgd.errors import ConfigError

KEY_CHARS = 40
"""Of a key in Z85: 32 bytes."""

LENT = 0o440
"""Mode of a secret key file that root lends to a daemon."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A node's keys, 40 characters of Z85 each."""

    public: str
    """Stands in the cluster file, for everybody to read."""
    secret: str = field(repr=False)
    """Never leaves the node; whoever has it votes in the node's name."""


def generate() -> KeyPair:
    """A new pair of keys, from the system's source of chance."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def public_of(secret: str) -> str:
    """The public key that belongs to a secret one.

    Raises:
        ConfigError: If it is no key; the message does not quote it.
    """
    if Z85_PATTERN.fullmatch(secret):
        try:
            return zmq.curve_public(secret.encode()).decode()
        except zmq.ZMQError:
            pass  # Five characters of Z85 can stand for more than fits into four bytes.
    raise ConfigError(f"not a CURVE key: must be {KEY_CHARS} characters of Z85")


def write_secret(path: Path, secret: str) -> None:
    """Write a secret key to a new file that only its owner may read.

    Raises:
        ConfigError: If the file is there already (a key is never overwritten), or cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        file = os.fdopen(os.open(path, flags, mode=0o600), "w")
    except FileExistsError:
        raise ConfigError(f"{path}: is there already, and a key is never overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    with file:
        file.write(secret + "\n")


def read_secret(path: Path) -> str:
    """The secret key in a file.

    Raises:
        ConfigError: If the file is missing, if others may read it than its owner or whom root
            has lent it to, or if it holds anything but a key. Names the file, never its content.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            # One byte more than a key and a line's end, so that a longer file is noticed.
            content = file.read(KEY_CHARS + 3)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; it must hold the secret key") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 and not _is_lent(status):
        raise ConfigError(f"{path}: mode {mode:04o} lets others at the secret key; chmod 600 it")
    secret = content.decode("ascii", errors="replace").removesuffix("\n").removesuffix("\r")
    try:
        public_of(secret)
    except ConfigError as error:
        raise ConfigError(f"{path}: holds {error}") from None
    return secret


def _is_lent(status: os.stat_result) -> bool:
    """Whether root lets a group read a file that nobody may write: mode 0440.

    So do systemd (``LoadCredential=``: the group's bits stand for an entry of an access list) and
    Kubernetes (``fsGroup``), for a daemon that is not root. Its owner's own file need not be so.
    """
    return stat.S_IMODE(status.st_mode) == LENT and status.st_uid == 0
