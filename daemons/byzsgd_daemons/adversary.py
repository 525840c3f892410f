"""Byzantine nodes, for drills only: one process plays any number of liars, who share all."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from byzsgd import attacks
from byzsgd.cluster import Cluster, Role
from byzsgd.errors import ConfigError
from byzsgd.messages import Message, Reason
from byzsgd.protocol import Event, PeerConnected, Publish, Received, Send
from byzsgd.simulation.adversary import Coalition
from byzsgd.tasks import Share, load_task
from byzsgd.transport import Transport, ZeroMQ
from byzsgd.vectors import Vector
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


class _Omniscience:
    """What the correct workers send, computed again: batches are a function of public numbers."""

    def __init__(self, cluster: Cluster, settings: config.Settings, liars: Sequence[str]) -> None:
        task = load_task(cluster.task, cluster.task_options, directory=settings.folder)
        self._beta = cluster.worker_momentum
        self._momenta: dict[str, Vector] = {}
        self._sources = {
            worker: task.source(
                Share(
                    identity=worker,
                    index=index,
                    n_workers=cluster.n_workers,
                    seed=cluster.seed,
                    batch_size=cluster.batch_size,
                )
            )
            for index, worker in enumerate(cluster.workers)
            if worker not in liars
        }

    def __call__(self, step: int, model: Vector) -> Mapping[str, Vector]:
        for worker, source in self._sources.items():
            gradient, _ = source.gradient(model, step)
            before = self._momenta.get(worker, np.float32(0))
            self._momenta[worker] = np.float32(self._beta) * before + (
                np.float32(1 - self._beta) * gradient
            )
        return dict(self._momenta)


async def lie(
    settings: config.Settings,
    liars: Sequence[str],
    *,
    attack: str | None,
    server_attack: str | None,
    options: Mapping[str, float],
) -> None:
    """Play liars until a signal ends the drill.

    Args:
        settings: The files; the id and key of each liar are taken from the cluster file's folder.
        liars: Identities to play, workers and servers.
        attack: What lying workers do, a name of ``byzsgd.attacks``; None for silence.
        server_attack: What lying servers do; None for silence.
        options: Numbers that the attacks take, such as ``z``.

    Raises:
        ByzsgdError: If the files, the identities or the attacks are wrong.
    """
    cluster = config.read_cluster(settings.cluster)
    for liar in liars:
        if cluster.role(liar) not in (Role.SERVER, Role.WORKER):
            raise ConfigError(f"--as {liar}: no server or worker of {settings.cluster}")
    initial = initial_model(settings, cluster)
    servers_lie = any(cluster.role(liar) is Role.SERVER for liar in liars)
    workers_see = servers_lie or attack in (None, "mute", "nan", "random")
    coalition = Coalition(
        cluster,
        liars,
        worker_attack=attacks.make(attack, Role.WORKER, **options) if attack else None,
        server_attack=attacks.make(server_attack, Role.SERVER) if server_attack else None,
        gather_period=initial.gather_period,
        oracle=None if workers_see else _Omniscience(cluster, settings, liars),
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
            bind_host=settings.bind,
        )
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for transport in drill.transports.values():
        await transport.open()
    log.warning("%s lie: %s, servers: %s", ", ".join(liars), attack, server_attack)
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
