"""A worker daemon: builds a correct worker from its files and runs it."""

from byzsgd.cluster import Role, Variant
from byzsgd.protocol import worker_of
from byzsgd.tasks import Share, buffers_of, load_task
from byzsgd.transport import ZeroMQ
from byzsgd_daemons import config, daemon
from byzsgd_daemons.host import Host
from byzsgd_daemons.initial import check_buffers, period_of
from byzsgd_daemons.reload import Reload


async def serve(settings: config.Settings) -> None:
    """Run a worker until a signal ends it.

    Raises:
        ByzsgdError: If its files or its task are wrong, or the node must not go on.
    """
    cluster = config.read_cluster(settings.cluster)
    node = config.member(cluster, settings, Role.WORKER)
    secret = config.secret_key(node, settings)
    http = config.http_address(node, settings)
    task = load_task(
        cluster.task, cluster.task_options, directory=settings.folder, device=settings.device
    )
    d, buffers = len(task.initial(cluster.seed)), buffers_of(task)
    check_buffers(buffers, d, cluster)
    share = Share(
        identity=settings.id,
        index=cluster.workers.index(settings.id),
        n_workers=cluster.n_workers,
        seed=cluster.seed,
        batch_size=cluster.batch_size,
    )
    period = None
    if cluster.variant is Variant.SYNCHRONOUS:
        period = period_of(task, cluster)
    worker = worker_of(
        cluster,
        settings.id,
        gather_period=period,
        pull_after=settings.pull_after,
        buffers=buffers,
    )
    host = Host(worker, gradient=task.source(share).gradient, stop_seconds=settings.stop_seconds)
    transport = ZeroMQ(settings.id, cluster, secret, d, host, buffers=buffers)
    await daemon.run(host, transport, http, Reload(settings, cluster, transport))
