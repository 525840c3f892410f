"""byzsgd: one entry point, whose words are those of the documentation.

Exit status: 0 done, 1 failed, 2 wrong files or words. Sub-commands are imported when called, so
that a server starts without the learning libraries.
"""

import argparse
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn

from byzsgd import __version__
from byzsgd.cluster import nearest
from byzsgd.errors import ByzsgdError
from byzsgd_daemons.config import Settings, read_cluster

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Names the nearest word for one that it does not know."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"byzsgd: {message}; try: {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = nearest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"{value!r} is unknown; {hint}")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    arguments = _parser().parse_args(words)
    command: Command = arguments.command
    try:
        return command(arguments)
    except ByzsgdError as error:
        print("\n".join(f"byzsgd: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="byzsgd", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"byzsgd {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    sub = add("server", _server, "Run a parameter server.")
    _node_arguments(sub)
    sub.add_argument("--bind", metavar="HOST", help="listen here, not at the file's address")
    sub.add_argument(
        "--checkpoint-period", type=int, default=100, metavar="STEPS", help="default: 100"
    )

    sub = add("worker", _worker, "Run a worker.")
    _node_arguments(sub)
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")

    sub = add("adversary", _adversary, "Play Byzantine nodes, for drills only.")
    _cluster_argument(sub)
    sub.add_argument("--as", dest="liars", action="append", required=True, metavar="ID",
                     help="a node to play; several share what they see")  # fmt: skip
    sub.add_argument("--attack", help="what lying workers do")
    sub.add_argument("--server-attack", help="what lying servers do")
    sub.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER",
                     help="a number that the attack takes, such as z=1.5")  # fmt: skip
    _log_arguments(sub)

    sub = add("check", _check, "Check a cluster file, and say what it asks for.")
    sub.add_argument("cluster", type=Path, metavar="FILE")

    sub = add("initial-model", _initial_model, "Write theta_0 to a file, as servers do.")
    _cluster_argument(sub)
    sub.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser


def _cluster_argument(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--cluster", type=Path, default=Path("cluster.toml"), metavar="FILE",
                     help="default: cluster.toml")  # fmt: skip


def _log_arguments(sub: argparse.ArgumentParser) -> None:
    levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
    sub.add_argument("--log-level", default="INFO", choices=levels, help="default: INFO")
    sub.add_argument("--state", type=Path, metavar="FOLDER", help="keep checkpoints here")


def _node_arguments(sub: argparse.ArgumentParser) -> None:
    _cluster_argument(sub)
    sub.add_argument("--id", required=True, help="this node's id in the cluster file")
    sub.add_argument("--key", type=Path, metavar="FILE", help="default: keys/ID.key beside it")
    sub.add_argument("--http", metavar="HOST:PORT", help="default: the cluster file's")
    sub.add_argument("--pull-after", type=_seconds, default=1.0, metavar="SECONDS",
                     help="ask again after so long without a quorum (default: 1)")  # fmt: skip
    sub.add_argument("--stop-seconds", type=_seconds, default=10.0, metavar="SECONDS",
                     help="longest time that a stop takes (default: 10)")  # fmt: skip
    _log_arguments(sub)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _settings(arguments: argparse.Namespace, **more: Any) -> Settings:
    names = ("id", "cluster", "key", "state", "http", "pull_after", "stop_seconds")
    return Settings(**{name: getattr(arguments, name) for name in names}, **more)


def _run(arguments: argparse.Namespace, main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a daemon on uvloop."""
    import uvloop

    from byzsgd.transport import malloc
    from byzsgd_daemons import logs

    logs.configure(arguments.log_level)
    malloc.tune()
    uvloop.run(main())
    return 0


def _server(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import server

    settings = _settings(
        arguments, bind=arguments.bind, checkpoint_period=arguments.checkpoint_period
    )
    return _run(arguments, lambda: server.serve(settings))


def _worker(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import worker

    settings = _settings(arguments, device=arguments.device)
    return _run(arguments, lambda: worker.serve(settings))


def _adversary(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import adversary

    options = dict(_option(text) for text in arguments.option)
    settings = Settings(id="adversary", cluster=arguments.cluster, state=arguments.state)
    return _run(
        arguments,
        lambda: adversary.lie(
            settings,
            arguments.liars,
            attack=arguments.attack,
            server_attack=arguments.server_attack,
            options=options,
        ),
    )


def _option(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ByzsgdError(f"--option {text}: must be NAME=NUMBER, such as z=1.5") from None


def _check(arguments: argparse.Namespace) -> int:
    cluster = read_cluster(arguments.cluster)
    print(f"{arguments.cluster}: fine")
    print(
        f"servers: {cluster.n_servers}, of which {cluster.f_servers} may lie; a quorum is "
        f"{cluster.server_quorum}\n"
        f"workers: {cluster.n_workers}, of which {cluster.f_workers} may lie; a quorum is "
        f"{cluster.worker_quorum}"
    )
    for warning in cluster.warnings():
        print(f"warning: {warning}")
    return 0


def _initial_model(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import initial

    cluster = read_cluster(arguments.cluster)
    initial.write(initial.build(cluster, arguments.cluster.resolve().parent), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
