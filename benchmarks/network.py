"""What network faults cost: seconds from their end until every correct node has made progress.

    sudo .venv/bin/python benchmarks/network.py
    sudo .venv/bin/python benchmarks/network.py --variant synchronous --seconds 5 15
    sudo .venv/bin/python benchmarks/network.py --d 1000000 --only "cut"

A cluster of 5 servers and 4 workers, f = 1 of each, every node in a network namespace of its own
(tests/network/namespaces.py). Each fault lasts for so many seconds, while the training goes on or
stands still. A row tells the steps that the correct servers made meanwhile, the seconds after the
end of the fault until *every* correct node had passed the furthest server's step of that moment,
and what an operator leaves with then.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.network.hosted import Hosted, hosted
from tests.network.namespaces import Network, lacking

Fault = Callable[[Network], None]


def faults() -> dict[str, Fault]:
    """Every fault by its name, in a cluster of s0 to s4 and w0 to w3."""
    others = ("s1", "s2", "s3", "s4", "w1", "w2", "w3")
    return {
        "cut off s0, w0": lambda network: network.cut("s0", "w0"),
        "cut off s0, s1, w0, w1": lambda network: network.cut("s0", "s1", "w0", "w1"),
        "cut off everybody": lambda network: network.cut(*network.hosts),
        "nothing from s0, w0": lambda network: network.block(("s0", "w0"), others),
        "nothing to s0, w0": lambda network: network.block(others, ("s0", "w0")),
        "nothing from workers to servers": lambda network: network.block(
            ("w0", "w1", "w2", "w3"), ("s0", "s1", "s2", "s3", "s4")
        ),
        "resets to and from s0": lambda network: network.reset("s0"),
        "5 % loss": lambda network: network.lose(5),
        "100 ms delay each way": lambda network: network.delay(100),
        "10 Mbit/s": lambda network: network.slow(10),
        "s0 gets another address": lambda network: network.move("s0"),
    }


async def measure(rig: Hosted, name: str, fault: Fault, seconds: float) -> None:
    """Make a fault, end it, and print what it cost."""
    before = await rig.furthest()
    fault(rig.network)
    await asyncio.sleep(seconds)
    during = await rig.furthest() - before
    rig.network.heal()
    progress = await rig.progress(rig.nodes, 1)
    result = await rig.fetch()
    print(
        f"| {name} | {seconds:g} | {during} | {progress:.1f} | {result.accuracy:.4f} | "
        f"{result.drift:.1e} |",
        flush=True,
    )


async def main(arguments: argparse.Namespace) -> None:
    """Run every fault for every time on one cluster."""
    with tempfile.TemporaryDirectory() as folder:
        plan = {"variant": arguments.variant, "d": arguments.d, "attack": arguments.attack}
        async with hosted(Path(folder) / "cluster", **plan) as rig:
            began = time.monotonic()
            await rig.progress(rig.nodes, 20)
            rate = 20 / (time.monotonic() - began)
            result = await rig.fetch()
            print(f"{arguments.variant}, d = {arguments.d}, about {rate:.0f} steps/s to begin with")
            print("| fault | seconds | steps meanwhile | s to progress | accuracy | drift |")
            print("| --- | --- | --- | --- | --- | --- |")
            print(f"| none | | | | {result.accuracy:.4f} | {result.drift:.1e} |", flush=True)
            for seconds in arguments.seconds:
                for name, fault in faults().items():
                    if arguments.only in name:
                        await measure(rig, name, fault, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="asynchronous")
    parser.add_argument("--d", type=int, default=10_000, help="coordinates of the model")
    parser.add_argument("--attack", help="of the last server and the last worker")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 15, 60])
    parser.add_argument("--only", default="", help="faults with these words in their names")
    if reason := lacking():
        sys.exit(f"no network namespaces: {reason}")
    asyncio.run(main(parser.parse_args()))
