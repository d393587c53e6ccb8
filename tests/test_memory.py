import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from shared.memory import keep_freed_memory

def faults(block):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.full(block, 1, np.uint8), np.full(block, 2, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

block = 20 * 2**20
faults(block)
before = faults(block)
keep_freed_memory()
faults(block)
print(before, faults(block))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_is_used_again_instead_of_being_asked_for_anew():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    given_back, kept = map(int, run.stdout.split())
    assert kept < given_back / 10
