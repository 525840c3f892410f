"""A server daemon: builds a correct parameter server from its files and runs it."""

from byzsgd import checkpoint
from byzsgd.cluster import Role
from byzsgd.protocol import server_of
from byzsgd.transport import ZeroMQ
from byzsgd_daemons import config, daemon
from byzsgd_daemons.host import Host
from byzsgd_daemons.initial import initial_model
from byzsgd_daemons.logs import logger
from byzsgd_daemons.reload import Reload


async def serve(settings: config.Settings) -> None:
    """Run a server until a signal ends it.

    Raises:
        ByzsgdError: If its files are wrong, an address is taken, or the node must not go on.
    """
    log = logger(settings.id)
    cluster = config.read_cluster(settings.cluster)
    node = config.member(cluster, settings, Role.SERVER)
    secret = config.secret_key(node, settings)
    http = config.http_address(node, settings)
    for warning in cluster.warnings():
        log.warning("%s", warning)
    initial = initial_model(settings, cluster)
    step, vector = 0, initial.vector
    checkpoints = settings.state / "checkpoints" if settings.state else None
    if checkpoints:
        found, problems = checkpoint.load_newest(
            checkpoints, d=len(vector), digest=checkpoint.digest_of(cluster)
        )
        for problem in problems:
            log.warning("%s", problem)
        if found:
            step, vector = found.step, found.vector
            log.info("resumes from the checkpoint of step %d", step, extra={"step": step})
    server = server_of(
        cluster,
        settings.id,
        vector,
        step=step,
        gather_period=initial.gather_period,
        pull_after=settings.pull_after,
        checkpoint_period=settings.checkpoint_period if checkpoints else 0,
    )
    host = Host(server, checkpoints=checkpoints, stop_seconds=settings.stop_seconds)
    transport = ZeroMQ(settings.id, cluster, secret, len(vector), host, bind_host=settings.bind)
    await daemon.run(host, transport, http, Reload(settings, cluster, transport))
