"""Clusters on hosts of their own: one serves many tests, as its start is what costs."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from tests.network.hosted import hosted
from tests.network.namespaces import lacking


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips the test where there can be no network namespaces."""
    if reason := lacking():
        pytest.skip(f"NOT TESTED: {reason}")


@pytest.fixture(scope="module")
def runner(namespaces: None) -> Iterator[asyncio.Runner]:
    """Runs coroutines on one event loop."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def clusters(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Starts a cluster that trains, and ends the one of another plan; the last ends by itself."""
    started: dict[object, object] = {}
    stack = AsyncExitStack()

    async def enter(**plan) -> object:
        rig = await stack.enter_async_context(hosted(tmp_path_factory.mktemp("hosted"), **plan))
        await rig.progress(rig.nodes, 50)
        return rig, await rig.fetch()

    def start(**plan) -> object:
        key = tuple(sorted(plan.items()))
        if key not in started:
            started.clear()
            runner.run(stack.aclose())
            started[key] = runner.run(enter(**plan))
        return started[key]

    try:
        yield start
    finally:
        runner.run(stack.aclose())
