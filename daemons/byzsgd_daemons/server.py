"""A server daemon: builds a correct parameter server from its files and runs it."""

from pathlib import Path

from byzsgd import checkpoint
from byzsgd.checkpoint import Failure
from byzsgd.cluster import Cluster, Role
from byzsgd.errors import CheckpointError, ConfigError
from byzsgd.protocol import ParameterServer, server_of
from byzsgd.transport import ZeroMQ
from byzsgd_daemons import config, daemon
from byzsgd_daemons.host import Host
from byzsgd_daemons.initial import initial_model
from byzsgd_daemons.logs import logger
from byzsgd_daemons.reload import Reload


async def serve(settings: config.Settings) -> None:
    """Run a server until a signal ends it.

    Raises:
        ByzsgdError: If its files are wrong, an address is taken, the node must not go on, or its
            last checkpoint cannot be written.
    """
    log = logger(settings.id)
    cluster = config.read_cluster(settings.cluster)
    node = config.member(cluster, settings, Role.SERVER)
    secret = config.secret_key(node, settings)
    http = config.http_address(node, settings)
    for warning in cluster.warnings():
        log.warning("%s", warning)
    checkpoints = settings.state / "checkpoints" if settings.state else None
    unready = _prepare(checkpoints, settings.state) if checkpoints and settings.state else None
    server, saved = _build(settings, cluster, checkpoints)
    host = Host(server, checkpoints=checkpoints, stop_seconds=settings.stop_seconds)
    host.saves.step = saved
    if unready:
        host.unsaved(unready)
    transport = ZeroMQ(
        settings.id,
        cluster,
        secret,
        len(server.vector),
        host,
        buffers=server.buffers,
        bind_host=settings.bind,
    )
    await daemon.run(host, transport, http, Reload(settings, cluster, transport))


def _build(
    settings: config.Settings, cluster: Cluster, checkpoints: Path | None
) -> tuple[ParameterServer, int | None]:
    """A server at its last checkpoint or at theta_0, and that checkpoint's step.

    What it begins with is held by nobody else: a model may be large.
    """
    log = logger(settings.id)
    initial = initial_model(settings, cluster)
    step, vector, saved = 0, initial.vector, None
    if checkpoints:
        found, problems = checkpoint.load_newest(
            checkpoints, d=len(vector), digest=checkpoint.digest_of(cluster)
        )
        for problem in problems:
            log.warning("%s", problem)
        if found:
            step, vector, saved = found.step, found.vector, found.step
            log.info("resumes from the checkpoint of step %d", step, extra={"step": step})
    server = server_of(
        cluster,
        settings.id,
        vector,
        step=step,
        gather_period=initial.gather_period,
        pull_after=settings.pull_after,
        checkpoint_period=settings.checkpoint_period if checkpoints else 0,
        buffers=initial.buffers,
    )
    return server, saved


def _prepare(checkpoints: Path, state: Path) -> CheckpointError | None:
    """Make the folder of the checkpoints; what a disk has against it holds nobody up.

    A server whose disk is full or read-only would, if it did not start, be one silent node more.

    Raises:
        ConfigError: If it cannot be made, or is not ours to write to: the operator asked for it.
    """
    try:
        checkpoint.prepare(checkpoints)
    except CheckpointError as error:
        if error.failure == Failure.PERMISSION or not state.is_dir():
            raise ConfigError(f"--state {state}: {error}") from None
        return error
    return None
