"""Settings of the process for training on a CPU."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from experiments.processor import prepare_processor

prepare_processor()
for step in range(40):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, float(torch.tensor(1e-40) * 1.0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of another system")
def test_freed_memory_is_used_again_and_denormal_numbers_are_zero() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    faults, product = done.stdout.split()
    assert int(faults) < 2**24 * 4 // 4096  # the pages of one of the last 20 tensors
    assert float(product) == 0
