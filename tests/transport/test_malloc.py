"""The allocator's settings, in a process of their own: they hold for the rest of its life."""

import platform
import subprocess
import sys

import pytest

# Twice a block of 100 MB: does the second one cost a page fault for each of its pages?
PROGRAM = """
import resource, sys
from byzsgd.transport import malloc
assert sys.argv[1] == "default" or malloc.tune()
block = b"\\1" * 10**8
del block
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = b"\\1" * 10**8
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    command = [sys.executable, "-c", PROGRAM, setting]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_a_tuned_allocator_keeps_large_blocks() -> None:
    """The second block of 100 MB finds the pages of the first; untuned, it faults them in anew."""
    assert page_faults("tuned") < 10 < page_faults("default")
