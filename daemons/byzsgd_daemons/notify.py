"""What systemd is told of a daemon: that it is ready, what it does, that it lives and stops."""

import os
import socket
from contextlib import suppress
from math import inf

LINE_CHARS_MAX = 800
"""Of what is told in a line: systemd takes no message above 4,096 bytes, and no part of one."""


class Notifier:
    """Talks to the service manager that this process was started by, if it asks for it.

    The protocol is that of man 3 sd_notify: datagrams of lines ``NAME=value``, to the socket that
    the environment names. Nothing is answered, and what is lost is lost: no node waits for systemd.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = inf
        """Longest time between two ``WATCHDOG=1``, after which systemd ends the process."""
        if os.environ.get("WATCHDOG_PID") == str(os.getpid()):
            self.watchdog_seconds = int(os.environ.get("WATCHDOG_USEC", 0)) / 1e6 or inf

    def tell(self, *lines: str) -> None:
        """Send lines such as ``READY=1``, in one message and without waiting."""
        if not self._address:
            return
        text = "\n".join(line[:LINE_CHARS_MAX] for line in lines)
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.sendto(text.encode(), self._address)
