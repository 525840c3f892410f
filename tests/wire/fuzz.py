"""Looks for bytes that break the decoder, led by the branches that they reach.

    .venv/bin/pip install atheris
    .venv/bin/python -m tests.wire.fuzz tests/wire/corpus -runs=1000000

Arguments are libFuzzer's. What breaks the property of ``decoding.py`` is written to ``crash-*``;
put it into the corpus, which ``make test`` replays. With ``MSGPACK_PUREPYTHON=1`` the branches of
msgpack's own Python count as well.
"""

import sys

import atheris

# These alone: branches of a library lead nowhere, and slow everything down.
with atheris.instrument_imports(include=["byzsgd.wire", "msgpack.fallback"]):
    import msgpack  # noqa: F401

    import byzsgd.wire  # noqa: F401

from tests.wire import decoding

if __name__ == "__main__":
    atheris.Setup(sys.argv, decoding.check)
    atheris.Fuzz()
