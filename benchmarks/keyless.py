"""``byzsgd`` with sockets that neither encrypt nor prove anything: what the keys cost.

    .venv/bin/python -m benchmarks.keyless server --cluster cluster.toml --id s0

For benchmarks only, and for clusters whose nodes all run this. ZeroMQ's PLAIN takes CURVE's place:
a node says its public key as its name, and whoever claims one is believed.
"""

import sys
import time
from typing import Any

import zmq
from benchmarks.timed import count_cpu

from byzsgd.transport import connection
from byzsgd.transport.zap import ADMITTED, NOT_NOW, Doorkeeper
from byzsgd_daemons import cli

WELCOME_BYTES = 10
"""What PLAIN says to who has logged in."""


def _set(original: Any) -> Any:
    """An attribute setter of sockets under which the options of CURVE mean PLAIN."""

    def set_plain(self: Any, name: str, value: Any) -> None:
        match name:
            case "curve_server":
                original(self, "plain_server", value)
            case "curve_publickey":
                original(self, "plain_username", value)
                original(self, "plain_password", b"-")
            case "curve_secretkey" | "curve_serverkey":
                pass
            case _:
                original(self, name, value)

    return set_plain


def _answer(
    self: Any, version: bytes, request: bytes, domain: bytes, address: bytes, *rest: bytes
) -> list[bytes]:
    """What ``Doorkeeper`` answers, with the name in the place of the proved key."""
    _, mechanism, name, _ = rest
    assert mechanism == b"PLAIN", mechanism
    if self._lets_in(name.decode(), domain.decode(), address.decode(), time.monotonic()):
        return [version, request, ADMITTED, b"", name, b""]
    return [version, request, NOT_NOW, b"", b"", b""]


def log_in_plainly() -> None:
    """From here on, transports of this process log in with PLAIN."""
    zmq.Socket.__setattr__ = _set(zmq.Socket.__setattr__)  # type: ignore[method-assign]
    connection.WELCOME_BYTES = WELCOME_BYTES
    Doorkeeper._answer = _answer  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    log_in_plainly()
    count_cpu()
    sys.exit(cli.main(sys.argv[1:]))
