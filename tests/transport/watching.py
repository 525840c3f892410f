"""What the guard of a transport watches, seen from a test."""

import asyncio
from collections.abc import Callable

from byzsgd.transport import ZeroMQ
from byzsgd.transport.connection import Connection


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the guard's thread makes true."""
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.01)


def connections(transport: ZeroMQ) -> list[Connection]:
    """All connections that the guard of a transport watches now."""
    watched = list(transport._guard._watched.values())
    return [connection for each in watched for connection in list(each.connections.values())]
