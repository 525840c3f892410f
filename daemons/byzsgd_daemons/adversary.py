"""Byzantine nodes, for drills only: one process plays any number of liars, who share all."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from byzsgd.cluster import Role
from byzsgd.errors import ConfigError
from byzsgd.messages import Message, Reason
from byzsgd.protocol import Event, PeerConnected, Publish, Received, Send
from byzsgd.simulation import Coalition, coalition_of
from byzsgd.tasks import load_task
from byzsgd.transport import Transport, ZeroMQ
from byzsgd_daemons import config
from byzsgd_daemons.initial import initial_model
from byzsgd_daemons.logs import logger


class _Liar:
    """One liar's ears: whatever it meets goes to the coalition."""

    def __init__(self, identity: str, drill: "_Drill") -> None:
        self.identity = identity
        self._drill = drill

    def received(self, peer: str, message: Message) -> None:
        self._drill.meet(self.identity, Received(peer, message))

    def connected(self, peer: str) -> None:
        self._drill.meet(self.identity, PeerConnected(peer))

    def disconnected(self, peer: str) -> None:
        """Nothing: the transport dials again by itself."""

    def refused(self, peer: str, reason: Reason, detail: str) -> None:
        """Nothing: a liar minds no lies."""


class _Drill:
    """Carries events to the coalition, and its orders to the liars' transports."""

    def __init__(self, coalition: Coalition) -> None:
        self._coalition = coalition
        self.transports: dict[str, Transport] = {}

    def meet(self, identity: str, event: Event) -> None:
        for liar, effect in self._coalition.handle(identity, event):
            match effect:
                case Send(peers, message):
                    self.transports[liar].send(peers, message)
                case Publish(message):
                    self.transports[liar].publish(message)


async def lie(
    settings: config.Settings,
    liars: Sequence[str],
    *,
    attack: str | None,
    server_attack: str | None,
    options: Mapping[str, float],
    server_options: Mapping[str, float],
    timing: str,
) -> None:
    """Play liars until a signal ends the drill.

    Args:
        settings: The files; the id and key of each liar are taken from the cluster file's folder.
        liars: Identities to play, workers and servers.
        attack: What lying workers do, a name of ``byzsgd.attacks``; None for silence.
        server_attack: What lying servers do; None for silence.
        options: Numbers that the workers' attack takes, such as ``z``.
        server_options: Numbers that the servers' attack takes, such as ``scale``.
        timing: When they speak, a name of ``Timing``.

    Raises:
        ByzsgdError: If the files, the identities, the attacks or the timing are wrong.
    """
    cluster = config.read_cluster(settings.cluster)
    for liar in liars:
        if cluster.role(liar) not in (Role.SERVER, Role.WORKER):
            raise ConfigError(f"--as {liar}: no server or worker of {settings.cluster}")
    initial = initial_model(settings, cluster)
    coalition = coalition_of(
        cluster,
        liars,
        partial(load_task, cluster.task, cluster.task_options, directory=settings.folder),
        attack=attack,
        options=options,
        server_attack=server_attack,
        server_options=server_options,
        timing=timing,
        gather_period=initial.gather_period,
        overhears=False,
        buffers=initial.buffers,
    )
    drill = _Drill(coalition)
    log = logger("adversary")
    for liar in liars:
        own = replace(settings, id=liar, key=None)
        node = cluster.node(liar)
        assert node is not None
        drill.transports[liar] = ZeroMQ(
            liar,
            cluster,
            config.secret_key(node, own),
            len(initial.vector),
            _Liar(liar, drill),
            buffers=initial.buffers,
            bind_host=settings.bind,
        )
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for transport in drill.transports.values():
        await transport.open()
    log.warning("%s", coalition)
    runs = [loop.create_task(transport.run()) for transport in drill.transports.values()]
    stopped = loop.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *runs], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, *runs):
        task.cancel()
    await asyncio.gather(stopped, *runs, return_exceptions=True)
    for transport in drill.transports.values():
        transport.close()
    for task in done - {stopped}:
        task.result()
