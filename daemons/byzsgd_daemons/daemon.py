"""What every daemon does around its host: HTTP, metrics, the first and the last word of the log."""

import asyncio
import signal
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from byzsgd.metrics import NodeCollector
from byzsgd.transport import WATCHES_MEMORY, Transport
from byzsgd_daemons.host import Host
from byzsgd_daemons.http import HttpServer
from byzsgd_daemons.logs import logger
from byzsgd_daemons.status import snapshot


async def run(
    host: Host,
    transport: Transport,
    http: tuple[str, int] | None,
    reload: Callable[[], None] | None = None,
) -> None:
    """Run a host until a signal or its node ends it.

    Args:
        host: Runs the node.
        transport: Carries its messages; its handlers are the host's.
        http: Where to answer HTTP, or None.
        reload: What SIGHUP does; None leaves it alone.

    Raises:
        ByzsgdError: If the node must not go on, its task fails, or an address is taken.
    """
    loop = asyncio.get_running_loop()
    node, log = host.node, logger(host.node.identity)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(
        NodeCollector(
            node,
            transport.statistics,
            lambda: host.lag_seconds,
            loop.time,
            saves=host.saves if host.keeps else None,
            silent=lambda: host.presence.silent,
            http_refused=lambda: server.refused if server else 0,
        )
    )
    status = partial(_status, host, transport, loop)
    server = HttpServer(http, status, registry) if http else None
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, reload)
    if not WATCHES_MEMORY:
        log.warning("on this system nothing bounds what peers can make the process hold")
    log.info("starts at step %d", node.step, extra={"step": node.step})
    try:
        await host.run(transport)
    finally:
        if server:
            server.close()
    # Not always the same: who is gathering or catching up has no model of its step yet.
    kept = "" if host.saves.step is None else f", on disk is step {host.saves.step}"
    log.info("has stopped at step %d%s", node.step, kept, extra={"step": node.step})


def _status(host: Host, transport: Transport, loop: asyncio.AbstractEventLoop) -> dict[str, object]:
    saves = host.saves if host.keeps else None
    return snapshot(host.node, transport.statistics(), host.presence, loop.time(), saves)
