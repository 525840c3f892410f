"""The command line: one entry point, whose words are those of the documentation.

Sub-commands are imported when called, so that a server starts without the learning libraries.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from byzsgd import __version__
from byzsgd.cluster import Cluster, Role, Variant, WireType, nearest
from byzsgd.errors import ByzsgdError, ConfigError, TaskError
from byzsgd_daemons.config import VARIABLE_PREFIX, Settings, read_cluster

if TYPE_CHECKING:
    from byzsgd_daemons.init import Plan
    from byzsgd_daemons.local import Drill

DESCRIPTION = """Distributed training that stays correct while a third of the servers and of the
workers lie. Exit status: 0 done, 1 failed, 2 wrong files or words."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

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
    except OSError as error:
        print(f"byzsgd: {error.filename or 'the system'}: {error.strerror}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="byzsgd", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"byzsgd {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, text: str, commands: Any = commands
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False
        )
        sub.set_defaults(command=command)
        return sub

    sub = add("server", _server, "Run a parameter server.")
    _node_arguments(sub)
    _bind_argument(sub)
    _initial_argument(sub)
    sub.add_argument(
        "--checkpoint-period", type=_count, default=100, metavar="STEPS", help="default: 100"
    )

    sub = add("worker", _worker, "Run a worker.")
    _node_arguments(sub)
    _device_argument(sub)

    sub = add("adversary", _adversary, "Play Byzantine nodes, for drills only.")
    _cluster_argument(sub)
    _initial_argument(sub)
    sub.add_argument("--as", dest="liars", action="append", required=True, metavar="ID",
                     help="a node to play; several share what they see")  # fmt: skip
    sub.add_argument("--attack", help="what lying workers do")
    sub.add_argument("--server-attack", help="what lying servers do")
    _lie_arguments(sub)
    sub.add_argument("--stop-seconds", type=_seconds, default=10.0, help=argparse.SUPPRESS)
    _log_arguments(sub)

    sub = add("init", _init, "Write a new cluster file and the keys of its nodes.")
    sub.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="FOLDER")
    _plan_arguments(sub)
    sub.add_argument("--host", default=argparse.SUPPRESS,
                     help="of all nodes, to begin with; with {id} in it, one for each")  # fmt: skip
    sub.add_argument("--port", type=_port, default=argparse.SUPPRESS,
                     help="the first server's (default: 7000)")  # fmt: skip
    sub.add_argument("--http-port", type=_port, default=argparse.SUPPRESS, metavar="PORT",
                     help="the first node's; 0 for none (default: 9100)")  # fmt: skip
    sub.add_argument("--kubernetes", action="store_true",
                     help="names and addresses of the pods of deploy/kubernetes")  # fmt: skip

    sub = add("local", _local, "Train with a whole cluster on this machine, as real processes.")
    sub.add_argument("--cluster", type=Path, metavar="FILE", help="default: a new one, of flags")
    _plan_arguments(sub)
    _drill_arguments(sub)
    _device_argument(sub)
    sub.add_argument("--out", type=Path, metavar="FOLDER",
                     help="keep everything here, and go on from what is here")  # fmt: skip
    sub.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the daemons' logs here")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")

    sub = add("demo", _demo, "Train with byzsgd and then with a vanilla server, under attack.")
    _plan_arguments(sub)
    _drill_arguments(sub, attack="sign-flip", server_attack="equivocate")
    _device_argument(sub)
    sub.add_argument("--out", type=Path, default=Path("byzsgd-demo"), metavar="FOLDER",
                     help="plot, table and model come here (default: byzsgd-demo)")  # fmt: skip
    sub.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")

    sub = add("plot", _plot, "Draw what trainings left in their folders, as SVG files.")
    sub.add_argument("folders", nargs="+", type=Path, metavar="FOLDER",
                     help="of byzsgd local --out, or of byzsgd demo")  # fmt: skip
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="default: the first of them")

    sub = add("evaluate", _evaluate, "Run the paper's evaluation here, and write its report.")
    sub.add_argument("--out", type=Path, default=Path("byzsgd-evaluation"), metavar="FOLDER",
                     help="record and report (default: byzsgd-evaluation)")  # fmt: skip
    sub.add_argument("--only", action="append", default=[], metavar="GROUP",
                     help="a group that --list shows; again for more")  # fmt: skip
    sub.add_argument("--task", help="what all groups learn (default: what suits the group)")
    sub.add_argument("--steps", type=_steps, help="of every run (default: the task's)")
    sub.add_argument("--seeds", type=_steps, default=1, metavar="COUNT",
                     help="run everything so often, with other seeds (default: 1)")  # fmt: skip
    sub.add_argument("--in-memory", action="store_true",
                     help="no daemons: every node in one thread, in virtual time")  # fmt: skip
    sub.add_argument("--list", action="store_true", help="say what would run, and how long")
    sub.add_argument("--report-only", action="store_true", help="run nothing")
    sub.add_argument("--retry-failed", action="store_true",
                     help="also run again what failed or stood still")  # fmt: skip
    sub.add_argument("--into", type=Path, metavar="FILE",
                     help="write the tables into this document, too")  # fmt: skip
    _device_argument(sub)

    sub = add("status", _status, "Show where every node of a cluster stands.")
    _cluster_argument(sub)
    sub.add_argument("--json", action="store_true", help="for programs; a line a look")
    sub.add_argument("--watch", action="store_true", help="look again and again, until Ctrl-C")
    sub.add_argument("--every", type=_seconds, default=1.0, metavar="SECONDS",
                     help="between two looks of --watch (default: 1)")  # fmt: skip

    sub = add("drain", _drain, "Wait until nodes can be stopped and the others go on.")
    sub.add_argument("nodes", nargs="+", metavar="NODE", help="to be stopped, by you, afterwards")
    _cluster_argument(sub)
    sub.add_argument("--seconds", type=_seconds, default=300.0, help="wait so long (default: 300)")

    sub = add("fetch", _fetch, "Leave with the model: the median of a quorum of servers.")
    sub.add_argument("out", type=Path, metavar="FILE", help="a .safetensors file")
    _cluster_argument(sub)
    sub.add_argument("--id", default="operator", help="the operator's id (default: operator)")
    sub.add_argument("--key", type=Path, metavar="FILE", help="default: keys/ID.key")
    sub.add_argument("--step", type=_count, default=0,
                     help="this one's, or the next that servers have (default: now)")  # fmt: skip
    sub.add_argument("--seconds", type=_seconds, default=30.0, help="try so long (default: 30)")

    sub = add("check", _check, "Check a cluster file, and say what it asks for.")
    _cluster_word(sub)
    _parameters_argument(sub)
    _device_argument(sub)

    sub = add("doctor", _doctor, "Look for what keeps a node from running well on this machine.")
    _cluster_word(sub)
    _identity_arguments(sub)
    _bind_argument(sub)
    _or_variable(sub, "--state", type=Path, metavar="FOLDER", help="where checkpoints will be")
    _parameters_argument(sub)
    _device_argument(sub)
    sub.add_argument("--seconds", type=_seconds, default=5.0,
                     help="wait so long for another machine (default: 5)")  # fmt: skip

    sub = add("keys", _keys_show, "Make, show or replace the keys that prove who nodes are.")
    of_keys = sub.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sub = add("new", _keys_new, "Write a new secret key, and print its public one.", of_keys)
    sub.add_argument("key", type=Path, metavar="KEYFILE")
    sub = add("show", _keys_show, "Print the public key that belongs to a secret one.", of_keys)
    sub.add_argument("key", type=Path, metavar="KEYFILE")
    sub = add("rotate", _keys_rotate, "Make a new key for a node, and say what is next.", of_keys)
    _cluster_word(sub)
    sub.add_argument("id", metavar="NODE")
    sub.add_argument("--key", type=Path, metavar="FILE", help="default: keys/NODE.key beside it")

    sub = add("completion", _completion, "Print a script that lets a shell complete these words.")
    sub.add_argument("shell", choices=["bash", "zsh", "fish"])

    sub = add("data", _data, "Show which classes each worker draws from, and how unevenly.")
    _cluster_argument(sub)

    sub = add("initial-model", _initial_model, "Write theta_0 to a file, as servers do.")
    _cluster_argument(sub)
    sub.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser


def _cluster_argument(sub: argparse.ArgumentParser) -> None:
    _or_variable(sub, "--cluster", type=Path, default=Path("cluster.toml"), metavar="FILE",
                 help="default: cluster.toml")  # fmt: skip


def _cluster_word(sub: argparse.ArgumentParser) -> None:
    """The same of commands that are about the file, and not about the cluster that runs."""
    _or_variable(sub, "cluster", type=Path, default=Path("cluster.toml"), metavar="CLUSTER",
                 nargs="?", help="default: cluster.toml")  # fmt: skip


def _or_variable(sub: argparse.ArgumentParser, flag: str, **options: Any) -> None:
    """A flag that can also be given as an environment variable; the flag counts more."""
    name = VARIABLE_PREFIX + flag.strip("-").upper().replace("-", "_")
    if value := os.environ.get(name):
        options["default"] = value  # argparse reads it as it would the flag's.
        options.pop("required", None)
    options["help"] = f"{options.get('help', '')} [{name}]".strip()
    sub.add_argument(flag, **options)


def _device_argument(sub: argparse.ArgumentParser) -> None:
    _or_variable(sub, "--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")


def _initial_argument(sub: argparse.ArgumentParser) -> None:
    _or_variable(sub, "--initial", type=Path, metavar="FILE",
                 help="theta_0 (default: built from the task)")  # fmt: skip


def _parameters_argument(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--parameters", type=_steps, metavar="D",
                     help="of the model (default: found out by loading the task)")  # fmt: skip


def _plan_arguments(sub: argparse.ArgumentParser) -> None:
    def add(name: str, kind: Callable[[str], Any], text: str) -> None:
        sub.add_argument(f"--{name}", type=kind, metavar=kind.__name__.strip("_").upper(),
                         default=argparse.SUPPRESS, help=text)  # fmt: skip

    add("servers", _count, "default: 5")
    add("workers", _count, "default: 7")
    add("f-servers", _count, "how many servers may lie (default: the most that is possible)")
    add("f-workers", _count, "how many workers may lie (default: the most that is possible)")
    add("task", str, "what to learn (default: mnist)")
    sub.add_argument("--task-option", dest="task_options", action="append", metavar="NAME=VALUE",
                     default=argparse.SUPPRESS, help="an argument of the task; again for more",
                     type=_task_option)  # fmt: skip
    add("steps", _count, "learning steps; 0 for no end (default: the task's)")
    add("rule", str, "how gradients are aggregated (default: mda)")
    add("variant", str, "asynchronous or synchronous (default: asynchronous)")
    add("round-timeout", _seconds, "longest round, if synchronous, in seconds (default: 2)")
    add("gather-period", _count, "steps between two gathers (default: 1; synchronous: 5)")
    sub.add_argument("--overlapped-gather", action="store_true", default=argparse.SUPPRESS,
                     help="workers compute while servers gather")  # fmt: skip
    add("wire-type", str, "float32, float16 or bfloat16 between servers and workers (default: "
                          "float32)")  # fmt: skip
    sub.add_argument("--pre-step", dest="pre_steps", action="append", metavar="NAME",
                     default=argparse.SUPPRESS, help="before the rule; again for more")  # fmt: skip
    add("learning-rate", float, "eta (default: the task's)")
    add("worker-momentum", float, "beta (default: the task's)")
    add("batch-size", _count, "examples a worker takes for a step (default: the task's)")
    add("seed", _count, "of the first model and the batches (default: 1)")


def _drill_arguments(
    sub: argparse.ArgumentParser, *, attack: str | None = None, server_attack: str | None = None
) -> None:
    sub.add_argument("--attack", default=attack, help=f"what lying workers do (default: {attack})")
    for role in ("workers", "servers"):
        sub.add_argument(f"--lying-{role}", type=_count, metavar="COUNT",
                         help="how many lie (default: as many as may)")  # fmt: skip
    sub.add_argument("--server-attack", default=server_attack,
                     help=f"what lying servers do (default: {server_attack})")  # fmt: skip
    _lie_arguments(sub)


def _lie_arguments(sub: argparse.ArgumentParser) -> None:
    for name, whose in (("--option", "workers"), ("--server-option", "servers")):
        sub.add_argument(name, action="append", default=[], metavar="NAME=NUMBER",
                         help=f"a number of the {whose}' attack, such as scale=10")  # fmt: skip
    sub.add_argument("--timing", default="early",
                     help="when liars speak: early, late or flood (default: early)")  # fmt: skip


def _log_arguments(sub: argparse.ArgumentParser) -> None:
    _or_variable(sub, "--log-level", type=_log_level, default="INFO", metavar="LEVEL",
                 help=f"{', '.join(LOG_LEVELS)} (default: INFO)")  # fmt: skip
    _or_variable(sub, "--state", type=Path, metavar="FOLDER", help="keep checkpoints here")
    sub.add_argument("--until-stdin-closes", action="store_true",
                     help="stop when standard input ends: for whoever starts daemons")  # fmt: skip


def _node_arguments(sub: argparse.ArgumentParser) -> None:
    _cluster_argument(sub)
    _identity_arguments(sub)
    sub.add_argument("--pull-after", type=_seconds, default=1.0, metavar="SECONDS",
                     help="ask again after so long without a quorum (default: 1)")  # fmt: skip
    sub.add_argument("--stop-seconds", type=_seconds, default=10.0, metavar="SECONDS",
                     help="longest time that a stop takes (default: 10)")  # fmt: skip
    _log_arguments(sub)


def _identity_arguments(sub: argparse.ArgumentParser) -> None:
    _or_variable(sub, "--id", required=True, help="this node's id in the cluster file")
    _or_variable(sub, "--key", type=Path, metavar="FILE", help="default: keys/ID.key beside it")
    _or_variable(sub, "--http", metavar="HOST:PORT", help="default: the cluster file's")


def _bind_argument(sub: argparse.ArgumentParser) -> None:
    _or_variable(sub, "--bind", metavar="HOST", help="listen here, not at the file's address")


def _log_level(text: str) -> str:
    if text not in LOG_LEVELS:
        hint = nearest(text, LOG_LEVELS)
        raise argparse.ArgumentTypeError(f"{text!r} is unknown; {hint}")
    return text


def _task_option(text: str) -> tuple[str, object]:
    """A name, and a value as TOML has it; what is none there is a text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}; must be NAME=VALUE, such as hidden=32")
    try:
        (parsed,) = tomllib.loads(f"value = {value}").values()
    except ValueError:
        return name, value
    return name, parsed if isinstance(parsed, str | bool | int | float) else value


def _seconds(text: str) -> float:
    return _number(text, float, 1e-3, 1e6, "a number of seconds above 0")


def _count(text: str) -> int:
    return int(_number(text, int, 0, 2**53, "a whole number of at least 0"))


def _steps(text: str) -> int:
    return int(_number(text, int, 1, 2**53, "a whole number of at least 1"))


def _port(text: str) -> int:
    return int(_number(text, int, 0, 65535, "a port"))


def _number(text: str, kind: type[float], least: float, most: float, what: str) -> float:
    """A number within limits, or the sentence that says what it must be."""
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"found {text!r}; must be {what}")
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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_before_the_start)
    if arguments.until_stdin_closes:
        threading.Thread(target=_stop_with_stdin, name="stdin", daemon=True).start()
    malloc.tune()
    uvloop.run(main())
    return 0


def _stop_before_the_start(*_: object) -> NoReturn:
    """Ends a daemon that still loads or builds what it needs; then its host hears signals.

    Whatever process builds a server's first model for it is ended by what this raises there.
    """
    logging.getLogger("byzsgd").info("stops: a signal asked for it, before the start")
    raise SystemExit(0)


def _stop_with_stdin() -> None:
    """Ends this process in good order once whoever holds the other end of its input has gone."""
    # Not through sys.stdin, whose lock a thread must not hold when the interpreter ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _server(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import server

    settings = _settings(
        arguments,
        bind=arguments.bind,
        initial=arguments.initial,
        checkpoint_period=arguments.checkpoint_period,
    )
    return _run(arguments, lambda: server.serve(settings))


def _worker(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import worker

    settings = _settings(arguments, device=arguments.device)
    return _run(arguments, lambda: worker.serve(settings))


def _adversary(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import adversary

    settings = Settings(
        id="adversary",
        cluster=arguments.cluster,
        state=arguments.state,
        initial=arguments.initial,
    )
    return _run(
        arguments,
        lambda: adversary.lie(
            settings,
            arguments.liars,
            attack=arguments.attack,
            server_attack=arguments.server_attack,
            options=_options("--option", arguments.option, arguments.attack),
            server_options=_options(
                "--server-option", arguments.server_option, arguments.server_attack
            ),
            timing=arguments.timing,
        ),
    )


def _options(flag: str, texts: Sequence[str], attack: str | None) -> dict[str, float]:
    if texts and not attack:
        raise ConfigError(f"{flag} {texts[0]}: there is no attack to take it; name one")
    return dict(_option(flag, text) for text in texts)


def _option(flag: str, text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ConfigError(f"{flag} {text}: must be NAME=NUMBER, such as scale=10") from None


def _plan(arguments: argparse.Namespace) -> "Plan":
    from byzsgd_daemons.init import Plan

    given = vars(arguments)
    words = {field.name: given[field.name] for field in fields(Plan) if field.name in given}
    if "pre_steps" in words:
        words["pre_steps"] = tuple(words["pre_steps"])
    if "task_options" in words:
        words["task_options"] = dict(words["task_options"])
    return Plan(**words)


def _plan_here(arguments: argparse.Namespace) -> "Plan":
    """The plan of a cluster in a scratch folder: a task's file is looked up from this one."""
    plan = _plan(arguments)
    return replace(plan, task=_task_here(plan.task))


def _task_here(task: str) -> str:
    """A task whose file, if it has one, is found from every folder."""
    path, colon, factory = task.partition(":")
    return f"{Path(path).absolute()}:{factory}" if colon and path.endswith(".py") else task


def _drill(arguments: argparse.Namespace) -> "Drill":
    from byzsgd_daemons.local import Drill

    drill = Drill(
        attack=arguments.attack,
        options=_options("--option", arguments.option, arguments.attack),
        server_attack=arguments.server_attack,
        server_options=_options(
            "--server-option", arguments.server_option, arguments.server_attack
        ),
        timing=arguments.timing,
        n_workers=arguments.lying_workers,
        n_servers=arguments.lying_servers,
    )
    drill.check()
    return drill


def _init(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import init

    plan = _plan(arguments)
    usual: dict[str, Any] = {"host": init.LOCALHOST, "port": 7000, "http_port": 9100}
    given = {name: getattr(arguments, name) for name in usual if name in arguments}
    if arguments.kubernetes:
        if given:
            words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigError(f"--kubernetes says where pods are: leave out {words}")
        addresses = init.Addresses.of_pods(plan)
    else:
        addresses = init.Addresses.consecutive(plan, **(usual | given))
    path = init.create(arguments.folder, plan, addresses)
    print(f"{path}: {init.scaled(read_cluster(path))}")
    print(f"{path.parent / 'keys'}: a secret key for each node; give it to that node alone")
    return 0


def _local(arguments: argparse.Namespace) -> int:
    import json
    import tempfile

    from rich.console import Console

    from byzsgd_daemons import demo, folder, init, local
    from byzsgd_daemons.show import screen

    drill, plan = _drill(arguments), _plan_here(arguments)
    planned = any(each.name in arguments for each in fields(plan))
    if arguments.cluster and planned:
        raise ConfigError(
            f"--cluster {arguments.cluster}: says all that a cluster needs; leave out "
            + ", ".join(
                f"--{f.name.replace('_', '-')}" for f in fields(plan) if f.name in arguments
            )
        )
    os.environ.update(local.ONE_THREAD)
    with tempfile.TemporaryDirectory(prefix="byzsgd-") as scratch:
        kept = arguments.out or Path(scratch)
        file = arguments.cluster or folder.cluster_file(kept, plan, planned=planned)
        title = f"{init.scaled(read_cluster(file))}; {demo.under(drill)}"
        try:
            with screen(title, Console()) as view:
                training = folder.train(
                    kept,
                    file,
                    drill,
                    view,
                    logs=arguments.logs or kept / "logs",
                    device=arguments.device,
                    stays=arguments.out is not None,
                )
        except KeyboardInterrupt:
            if arguments.out:
                print(f"stopped; the same words go on from {arguments.out}", file=sys.stderr)
            raise
    if arguments.out:
        names = ("model.safetensors", folder.POINTS)
        print("written: " + ", ".join(str(arguments.out / name) for name in names))
    if arguments.json:
        arguments.json.write_text(json.dumps(demo.figures(training), indent=1) + "\n")
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import plot

    written = plot.plot(arguments.folders, arguments.out or arguments.folders[0])
    print("written: " + ", ".join(map(str, written)))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    import tempfile

    from rich.console import Console

    from byzsgd_daemons import demo, local

    drill, plan = _drill(arguments), _plan_here(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)  # Now, and not after the training.
    os.environ.update(local.ONE_THREAD)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="byzsgd-") as scratch:
        result = demo.run(plan, drill, console, scratch=Path(scratch), device=arguments.device)
    written = demo.write(result, arguments.out)
    if arguments.json:
        demo.write_json(result, arguments.json)
        written.append(arguments.json)
    console.print(f"\n{demo.table(result)}\n", highlight=False)
    console.print("written: " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from byzsgd_daemons import local
    from byzsgd_daemons.evaluate import command
    from byzsgd_daemons.evaluate.plan import Scale

    os.environ.update(local.ONE_THREAD)
    return command.evaluate(
        Scale(
            task=_task_here(arguments.task) if arguments.task else None,
            steps=arguments.steps,
            seeds=arguments.seeds,
            in_memory=arguments.in_memory,
        ),
        arguments.only,
        arguments.out,
        Console(),
        listed=arguments.list,
        report_only=arguments.report_only,
        retry_failed=arguments.retry_failed,
        document=arguments.into,
        device=arguments.device,
    )


def _status(arguments: argparse.Namespace) -> int:
    import asyncio
    import json
    import time

    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.text import Text

    from byzsgd_daemons import watch

    cluster, console = read_cluster(arguments.cluster), Console()

    def look() -> dict[str, watch.Status]:
        return asyncio.run(watch.statuses(cluster))

    def show(found: dict[str, watch.Status]) -> None:
        if arguments.json:
            print(json.dumps(watch.as_json(cluster, found)), flush=True)
            return
        console.print(watch.table(cluster, found, lying=frozenset()))
        for remark in watch.remarks(cluster, found):
            console.print(remark, highlight=False, markup=False, soft_wrap=True)

    def drawn(found: dict[str, watch.Status]) -> RenderableType:
        remarks = map(Text, watch.remarks(cluster, found))
        return Group(watch.table(cluster, found, lying=frozenset()), *remarks)

    found = look()
    if not arguments.watch:
        show(found)
        return 0 if any("error" not in answer for answer in found.values()) else 1
    try:
        if arguments.json or not console.is_terminal:
            while True:
                show(found)
                time.sleep(arguments.every)
                found = look()
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(drawn(found), refresh=True)
                time.sleep(arguments.every)
                found = look()
    except KeyboardInterrupt:
        return 0


def _drain(arguments: argparse.Namespace) -> int:
    from functools import partial

    from byzsgd_daemons.drain import drain

    cluster = read_cluster(arguments.cluster)
    tell = partial(print, flush=True)
    print(drain(cluster, arguments.nodes, seconds=arguments.seconds, tell=tell))
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons.fetch import fetch

    settings = Settings(id=arguments.id, cluster=arguments.cluster, key=arguments.key)
    answers, accuracy = fetch(
        settings, arguments.out, step=arguments.step, seconds=arguments.seconds
    )
    servers = ", ".join(sorted(answers.models))
    print(f"{arguments.out}: the median of {servers} at step {answers.step}")
    print(f"accuracy on the task's test data: {accuracy:.4f}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    cluster = read_cluster(arguments.cluster)
    print(f"{arguments.cluster}: fine")
    print(
        f"servers: {cluster.n_servers}, of which {cluster.f_servers} may lie; a quorum is "
        f"{cluster.server_quorum}\n"
        f"workers: {cluster.n_workers}, of which {cluster.f_workers} may lie; a quorum is "
        f"{cluster.worker_quorum}"
    )
    if cluster.variant is Variant.SYNCHRONOUS:
        print(f"synchronous: whoever takes longer than {cluster.round_timeout:g} s is passed over")
    for warning in cluster.warnings():
        print(f"warning: {warning}")
    if arguments.device != "cpu":
        print(f"device: {_device(cluster, arguments)}")
    print(_memory(cluster, arguments))
    return 0


def _device(cluster: Cluster, arguments: argparse.Namespace) -> str:
    """The device in words, if a worker of this cluster could compute there on this machine."""
    from byzsgd.tasks import load_task

    folder, device = arguments.cluster.resolve().parent, arguments.device
    load_task(cluster.task, cluster.task_options, directory=folder, device=device)
    if "torch" not in sys.modules:
        return str(device)
    from byzsgd.tasks.torch_task import describe_device

    return describe_device(device)


def _doctor(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import doctor

    names = ("id", "cluster", "key", "bind", "http", "state", "device")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    levels = []
    for finding in doctor.examine(settings, d=arguments.parameters, seconds=arguments.seconds):
        print(finding, flush=True)
        levels.append(finding.level)
    return 1 if doctor.Level.PROBLEM in levels else 0


def _memory(cluster: Cluster, arguments: argparse.Namespace) -> str:
    """What memory the nodes take at worst, if it can be told how long a vector is."""
    from byzsgd import memory
    from byzsgd_daemons import initial

    d, buffers = arguments.parameters, 0
    if d is None:
        try:
            first = initial.build(cluster, arguments.cluster.resolve().parent)
        except TaskError as error:
            return f"memory: unknown, for {error}; give the model's size with --parameters"
        d, buffers = len(first.vector), first.buffers
    lines = [f"memory: {d} parameters, {_megabytes(memory.vector_bytes(d))} a vector"]
    if cluster.wire_type is not WireType.FLOAT32:
        size = _megabytes(memory.wire_bytes(cluster, d, buffers=buffers))
        lines[0] += f", {size} between servers and workers ({cluster.wire_type})"
    for role, most, besides in (
        (Role.SERVER, memory.server_bytes(cluster, d, buffers=buffers), ""),
        (Role.WORKER, memory.worker_bytes(cluster, d, buffers=buffers), " and its data set"),
    ):
        limit = _megabytes(most + memory.kernel_bytes(cluster, role), unit="M")
        lines.append(
            f"  a {role} takes {_megabytes(most)} at worst{besides}; with the kernel's buffers "
            f"for it: MemoryMax={limit}"
        )
    return "\n".join(lines)


def _megabytes(size: int, unit: str = " MB") -> str:
    """A number of bytes in units of 2^20, rounded up."""
    return f"{-(-size // 2**20)}{unit}"


def _keys_new(arguments: argparse.Namespace) -> int:
    from byzsgd.transport import keys

    pair = keys.generate()
    keys.write_secret(arguments.key, pair.secret)
    print(pair.public)
    return 0


def _keys_show(arguments: argparse.Namespace) -> int:
    from byzsgd.transport import keys

    print(keys.public_of(keys.read_secret(arguments.key)))
    return 0


def _keys_rotate(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import rotate

    settings = Settings(id=arguments.id, cluster=arguments.cluster, key=arguments.key)
    print(rotate.next_steps(rotate.rotate(settings), arguments.cluster))
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import completion

    print(completion.script(_parser(), arguments.shell))
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from byzsgd_daemons import data

    cluster = read_cluster(arguments.cluster)
    found = data.class_counts(cluster, arguments.cluster.resolve().parent)
    console = Console()
    if not console.is_terminal:
        console.width = 250  # Whoever reads a file or a pipe wants whole rows.
    console.print(data.table(found))
    for sentence in data.sentences(found):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return 0


def _initial_model(arguments: argparse.Namespace) -> int:
    from byzsgd_daemons import initial

    cluster = read_cluster(arguments.cluster)
    built = initial.build(cluster, arguments.cluster.resolve().parent)
    initial.write(built, arguments.out, public=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
