"""``byzsgd`` that also shows the CPU time of gradients, as heavy work of a kind of its own.

    .venv/bin/python -m benchmarks.timed worker --cluster cluster.toml --id w0

For benchmarks only: the time that the clock shows is no cost where others have the same cores. It
is that of the thread which computes, so torch must have no other one, as in a ``fleet``.
"""

import sys
import time
from typing import Any

from byzsgd_daemons import cli
from byzsgd_daemons.host import Host

KIND = "gradient-cpu"
"""Of the work, in ``byzsgd_node_work_seconds``."""


def count_cpu() -> None:
    """From here on, hosts of this process count it."""
    compute = Host._compute

    def compute_and_count(self: Host, work: Any) -> None:
        def counted() -> Any:
            began = time.thread_time()
            result = work()
            self.node.progress.worked(KIND, time.thread_time() - began)
            return result

        compute(self, counted)

    Host._compute = compute_and_count  # type: ignore[method-assign]


if __name__ == "__main__":
    count_cpu()
    sys.exit(cli.main(sys.argv[1:]))
