"""Keys that change under a running cluster."""

import asyncio
import signal

import pytest

from byzsgd.transport import keys

pytestmark = pytest.mark.processes


def test_keys_are_replaced_one_node_at_a_time_while_training_goes_on(running) -> None:
    """A stolen key is shut out by SIGHUP, and new keys come in, of a worker and of a server."""

    async def main() -> None:
        plan = {"servers": 2, "workers": 4, "f_servers": 0, "f_workers": 1}
        async with running(**plan, steps=0) as rig:
            await rig.start_all()
            await rig.wait_for_step(5, "s0", "s1", "w3")

            # The file of the servers says so first: the old key's holder is cut off at once.
            replaced = _new_key(rig, "w3")
            _hang_up(rig, "s0", "s1")
            for server in ("s0", "s1"):
                await rig.wait_for(server, lambda status: _refused(status, "w3") > 0)
            await rig.wait_for_step(await rig.step("s0") + 10, "s0", "s1")

            replaced()
            await _restart(rig, "w3")
            await rig.wait_for_step(await rig.step("s0") + 10, "w3")

            # A server: who dials it needs the new key, and dials again when it is told.
            replaced = _new_key(rig, "s1")
            _hang_up(rig, "s0", *rig.cluster.workers)
            replaced()
            await _restart(rig, "s1")
            await rig.wait_for_step(await rig.step("s0") + 10, "s0", "s1")

            # Not admitted, and admitted again: the same process comes back by itself.
            text = rig.file.read_text()
            rig.file.write_text(text.replace('id = "w2"', 'id = "w2"\nadmitted = false'))
            assert rig.file.read_text() != text
            _hang_up(rig, "s0", "s1")
            for server in ("s0", "s1"):
                await rig.wait_for(server, lambda status: _refused(status, "w2") > 0)
            rig.file.write_text(text)
            _hang_up(rig, "s0", "s1")
            await rig.wait_for_step(await rig.step("s0") + 10, "s0", "s1", "w2")

            log = (rig.file.parent / "logs" / "s0.log").read_text()
            for words in ("w3 has another key", "s1 has another key", "w2 is not admitted"):
                assert f"has read the cluster file again: {words}" in log
            assert "needs a restart" not in log

    asyncio.run(main())


def _new_key(rig, identity):
    """Put a new public key into the cluster file; the result replaces the secret one."""
    pair = keys.generate()
    old = rig.cluster.node(identity).public_key
    text = rig.file.read_text()
    assert old in text
    rig.file.write_text(text.replace(old, pair.public))
    path = rig.file.parent / "keys" / f"{identity}.key"

    def replace_secret() -> None:
        path.unlink()
        keys.write_secret(path, pair.secret)

    return replace_secret


def _hang_up(rig, *identities: str) -> None:
    for identity in identities:
        rig.daemons.process(identity).send_signal(signal.SIGHUP)


async def _restart(rig, identity: str) -> None:
    rig.daemons.process(identity).kill()
    await rig.daemons.process(identity).wait()
    await rig.start(identity)


def _refused(status, peer: str) -> int:
    return status["peers"][peer]["refused"].get("not-admitted", 0)
