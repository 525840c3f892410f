"""Whether the node of a container answers: `python -m byzsgd_daemons.health [/readyz]`.

Containers run it every few seconds, so it imports little. It asks where BYZSGD_HTTP says that the
node listens, as 0.0.0.0 and [::] mean this machine to who connects; status 1 and a sentence if it
is not well.
"""

import os
import sys
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 4.0
"""Above what an event loop has to answer; below what a container gives this command."""


def problem(address: str, path: str) -> str | None:
    """What is wrong with a node, in a sentence; None if nothing is.

    Args:
        address: ``host:port`` of its HTTP.
        path: What to ask: ``/healthz`` or ``/readyz``.
    """
    host, _, port = address.rpartition(":")
    try:
        with closing(
            HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace").strip()
    except (OSError, ValueError, HTTPException) as error:
        return f"http {address}: {error}"
    return None if answer.status == HTTPStatus.OK else body


def main() -> int:
    """Ask, and return the exit status."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    found = problem(os.environ.get("BYZSGD_HTTP", ""), path)
    if found is not None:
        print(found)
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
